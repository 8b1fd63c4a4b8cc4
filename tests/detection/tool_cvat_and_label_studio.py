"""The dataset of `tool_files` in the export formats of CVAT and Label Studio."""

import json
import shutil

from tool_files import CAT, CUP, EXPECTED, EYE, SIZES, image, text, xywh, yolo

from socodet.detection.datasets.layouts import open_detection_set


def cvat(root):
    """CVAT's "COCO 1.0": object ids, areas and attributes; sizes and ids are numbers."""
    files = {"chelsea": 1, "coffee": 2}
    notes = [(1, 1, CAT), (1, 3, EYE), (2, 2, CUP)]
    for name in files:
        image(name, root / "images" / "default" / f"{name}.jpg")
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [
            {"id": number, "name": name, "supercategory": ""} for number, name in enumerate(("cat", "cup", "eye"), 1)
        ],
        "images": [
            {
                "id": number,
                "width": SIZES[name][0],
                "height": SIZES[name][1],
                "file_name": f"{name}.jpg",
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            }
            for name, number in files.items()
        ],
        "annotations": [
            {
                "id": number,
                "image_id": of,
                "category_id": kind,
                "segmentation": [],
                "area": float((box[2] - box[0]) * (box[3] - box[1])),
                "bbox": [float(side) for side in xywh(box)],
                "iscrowd": 0,
                "attributes": {"occluded": False, "rotation": 0.0},
            }
            for number, (of, kind, box) in enumerate(notes, 1)
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_default.json").write_text(json.dumps(content))
    return [open_detection_set(root, split="all")]


def cvat_subsets(root):
    """CVAT's "COCO 1.0" of a task with the subsets Train and Validation."""
    cvat(root)
    content = json.loads((root / "annotations" / "instances_default.json").read_text())
    for part, number in (("Train", 1), ("Validation", 2)):
        (one,) = (entry for entry in content["images"] if entry["id"] == number)
        (root / "images" / part).mkdir()
        shutil.move(root / "images" / "default" / one["file_name"], root / "images" / part)
        notes = [note for note in content["annotations"] if note["image_id"] == number]
        of_part = json.dumps(content | {"images": [one], "annotations": notes})
        (root / "annotations" / f"instances_{part}.json").write_text(of_part)
    (root / "annotations" / "instances_default.json").unlink()
    (root / "images" / "default").rmdir()
    return [open_detection_set(root, split=part) for part in ("train", "val")]


def cvat_voc(root):
    """CVAT's "PASCAL VOC 1.1": fractional pixels, a list named after the task's subset, a label map."""
    for name, found in EXPECTED.items():
        image(name, root / "JPEGImages" / f"{name}.jpg")
        things = "".join(
            f"<object><name>{kind}</name><truncated>0</truncated><occluded>0</occluded><difficult>0</difficult>"
            f"<bndbox><xmin>{x1}.0</xmin><ymin>{y1}.0</ymin><xmax>{x2}.0</xmax><ymax>{y2}.0</ymax></bndbox>"
            "<attributes><attribute><name>rotation</name><value>0.0</value></attribute></attributes></object>"
            for kind, x1, y1, x2, y2 in found
        )
        size = f"<width>{SIZES[name][0]}</width><height>{SIZES[name][1]}</height><depth></depth>"
        head = f"<folder></folder><filename>{name}.jpg</filename><source><database>Unknown</database></source>"
        text(root / "Annotations" / f"{name}.xml", f"<annotation>{head}<size>{size}</size>{things}</annotation>")
    text(root / "ImageSets" / "Main" / "default.txt", "chelsea", "coffee")
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions", "background:0,0,0::", "cat:1,2,3::")
    return [open_detection_set(root, split="all")]


def yolo_files(images, labels, before=""):
    """Writes each image and its label file into two folders; their names start with `before`."""
    for name, found in EXPECTED.items():
        image(name, images / f"{before}{name}.jpg")
        lines = (yolo(name, ("cat", "cup", "eye").index(kind), box) for kind, *box in found)
        text(labels / f"{before}{name}.txt", *lines)


def cvat_yolo(root):
    """CVAT's "YOLO 1.1", Darknet's format: a list, label files beside the images, and obj.data."""
    yolo_files(root / "obj_train_data", root / "obj_train_data")
    text(root / "obj.names", "cat", "cup", "eye")
    text(root / "obj.data", "classes = 3", "train = data/train.txt", "names = data/obj.names", "backup = backup/")
    text(root / "train.txt", "data/obj_train_data/chelsea.jpg", "data/obj_train_data/coffee.jpg")
    return [open_detection_set(root, split="train")]


def cvat_ultralytics(root):
    """CVAT's "Ultralytics YOLO Detection 1.0": lists of each split's images beside data.yaml."""
    for part, name in {"train": "chelsea", "val": "coffee"}.items():
        image(name, root / "images" / part / f"{name}.jpg")
        lines = [yolo(name, ("cat", "cup", "eye").index(kind), box) for kind, *box in EXPECTED[name]]
        text(root / "labels" / part / f"{name}.txt", *lines)
        text(root / f"{part}.txt", f"images/{part}/{name}.jpg")
    text(
        root / "data.yaml", "names:", "  0: cat", "  1: cup", "  2: eye", "path: ./", "train: train.txt", "val: val.txt"
    )
    return [open_detection_set(root, split=part) for part in ("train", "val")]


def cvat_ultralytics_subsets(root):
    """Likewise for a project whose tasks have the subsets Train and Validation, as CVAT suggests."""
    cvat_ultralytics(root)
    for part, name in {"train": "Train", "val": "Validation"}.items():
        for folder in ("images", "labels"):
            (root / folder / part).rename(root / folder / name)
        (root / f"{part}.txt").unlink()
        text(root / f"{name}.txt", *(f"data/images/{name}/{one.name}" for one in (root / "images" / name).iterdir()))
    names = ["Train: Train.txt", "Validation: Validation.txt", "names:", "  0: cat", "  1: cup", "  2: eye", "path: ."]
    text(root / "data.yaml", *names)
    return [open_detection_set(root, split=part) for part in ("train", "val")]


def cvat_yolo_subsets(root):
    """CVAT's "YOLO 1.1" of a project with these subsets."""
    cvat_yolo(root)
    (root / "obj_train_data").rename(root / "obj_Train_data")
    (root / "train.txt").unlink()
    text(root / "Train.txt", "data/obj_Train_data/chelsea.jpg", "data/obj_Train_data/coffee.jpg")
    text(root / "obj.data", "classes = 3", "Train = data/Train.txt", "names = data/obj.names", "backup = backup/")
    return [open_detection_set(root, split="train")]


def label_studio(root):
    """Label Studio's COCO: names with a hash in front, backslashes, categories from 0."""
    names = {"chelsea": "3f1a2b4c-chelsea.jpg", "coffee": "9d8e7f60-coffee.jpg"}
    for name, file in names.items():
        image(name, root / "images" / file)
    sizes = [{"width": SIZES[name][0], "height": SIZES[name][1], "id": n} for n, name in enumerate(names)]
    content = {
        "images": [one | {"file_name": f"images\\{file}"} for one, file in zip(sizes, names.values(), strict=True)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(("cat", "cup", "eye"))],
        "annotations": [
            {
                "id": number,
                "image_id": of,
                "category_id": kind,
                "segmentation": [],
                "bbox": [side + 1e-7 for side in xywh(box)],
                "ignore": 0,
                "iscrowd": 0,
                "area": 1.0,
            }
            for number, (of, kind, box) in enumerate([(0, 0, CAT), (0, 2, EYE), (1, 1, CUP)])
        ],
        "info": {"year": 2024, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""},
    }
    (root / "result.json").write_text(json.dumps(content, indent=2))
    return [open_detection_set(root, split="all")]


def label_studio_yolo(root):
    """Label Studio's YOLO: images/, labels/, classes.txt, notes.json."""
    yolo_files(root / "images", root / "labels", "3f1a2b4c-")
    text(root / "classes.txt", "cat", "cup", "eye")
    notes = {"categories": [{"id": 0, "name": "cat"}], "info": {"contributor": "Label Studio"}}
    (root / "notes.json").write_text(json.dumps(notes))
    return [open_detection_set(root, split="all")]


def label_studio_voc(root):
    """Label Studio's VOC: images/ and Annotations/, names without suffix, VOC's phrases in `source`."""
    for name, found in EXPECTED.items():
        image(name, root / "images" / f"3f1a2b4c-{name}.jpg")
        things = "".join(
            f"<object>\n<name>{kind}</name>\n<pose>Unspecified</pose>\n<truncated>0</truncated>\n"
            f"<difficult>0</difficult>\n<bndbox>\n<xmin>{x1}</xmin>\n<ymin>{y1}</ymin>\n<xmax>{x2}</xmax>\n"
            f"<ymax>{y2}</ymax>\n</bndbox>\n</object>\n"
            for kind, x1, y1, x2, y2 in found
        )
        source = "<database>MyDatabase</database>\n<annotation>COCO2017</annotation>\n<image>flickr</image>\n"
        text(
            root / "Annotations" / f"3f1a2b4c-{name}.xml",
            f'<?xml version="1.0" encoding="utf-8"?>\n<annotation>\n<folder>images</folder>\n'
            f"<filename>3f1a2b4c-{name}</filename>\n<source>\n{source}</source>\n<owner>\n"
            f"<name>Label Studio</name>\n</owner>\n<size>\n<width>{SIZES[name][0]}</width>\n"
            f"<height>{SIZES[name][1]}</height>\n<depth>3</depth>\n</size>\n<segmented>0</segmented>\n{things}"
            "</annotation>",
        )
    return [open_detection_set(root, split="all")]
