"""The same two images and three objects, as six tools write them, are read to equal sets."""

import json
import shutil

import pytest

from socodet.detection.datasets import open_detection_set
from socodet.images.photographs import photographs

SIZES = {"chelsea": (400, 266), "coffee": (400, 267)}
CAT, CUP, EYE = (40, 20, 240, 220), (100, 50, 300, 250), (120, 80, 160, 120)
"""xyxy; the sides of the images are no powers of 2, so that shares are rounded."""
EXPECTED = {"chelsea": [("cat", *CAT), ("eye", *EYE)], "coffee": [("cup", *CUP)]}


def objects(*sets):
    """Image's name → class and rounded xyxy of its objects, of all the sets."""
    return {
        image.file.stem.split("-")[-1].split("_jpg")[0]: sorted(
            (data.categories[label - 1].name, *(round(float(side), 2) for side in box))
            for label, box in zip(image.labels.tolist(), image.boxes, strict=True)
        )
        for data in sets
        for image in data.images
    }


def image(name, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(photographs() / f"{name}.jpg", path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def xywh(box, add=0):
    return [box[0] + add, box[1] + add, box[2] - box[0], box[3] - box[1]]


def yolo(name, number, box):
    width, height = SIZES[name]
    centre = (box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height
    shares = (*centre, (box[2] - box[0]) / width, (box[3] - box[1]) / height)
    return f"{number} {' '.join(f'{side:.6f}' for side in shares)}"


def outline(name, number, box):
    width, height = SIZES[name]
    x1, y1, x2, y2 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    return f"{number} {' '.join(map(str, (x1, y1, x2, y1, x2, y2, x1, y2)))}"


def cvat(root):
    """CVAT's "COCO 1.0": an id for each object, areas and attributes; sizes and ids as numbers."""
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


def cvat_voc(root):
    """CVAT's "PASCAL VOC 1.1": fractions of pixels, a list named after the task's subset, a labelmap."""
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


def cvat_yolo(root):
    """CVAT's "YOLO 1.1", which is Darknet's form: a list, label files beside the images, and obj.data."""
    for name, found in EXPECTED.items():
        image(name, root / "obj_train_data" / f"{name}.jpg")
        lines = (yolo(name, ("cat", "cup", "eye").index(kind), box) for kind, *box in found)
        text(root / "obj_train_data" / f"{name}.txt", *lines)
    text(root / "obj.names", "cat", "cup", "eye")
    text(root / "obj.data", "classes = 3", "train = data/train.txt", "names = data/obj.names", "backup = backup/")
    text(root / "train.txt", "data/obj_train_data/chelsea.jpg", "data/obj_train_data/coffee.jpg")
    return [open_detection_set(root, split="train")]


def label_studio(root):
    """Label Studio's COCO: names with a hash before them, backslashes, categories from 0."""
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
    for name, found in EXPECTED.items():
        image(name, root / "images" / f"3f1a2b4c-{name}.jpg")
        lines = (yolo(name, ("cat", "cup", "eye").index(kind), box) for kind, *box in found)
        text(root / "labels" / f"3f1a2b4c-{name}.txt", *lines)
    text(root / "classes.txt", "cat", "cup", "eye")
    notes = {"categories": [{"id": 0, "name": "cat"}], "info": {"contributor": "Label Studio"}}
    (root / "notes.json").write_text(json.dumps(notes))
    return [open_detection_set(root, split="all")]


ROBOFLOW = {"train": ["chelsea"], "valid": ["coffee"]}


def roboflow_coco(root):
    """Roboflow's COCO: a part per folder, and first of all a category for the group of all others."""
    for part, names in ROBOFLOW.items():
        found = [(number, *one) for number, name in enumerate(names) for one in EXPECTED[name]]
        groups = [("things", "none"), ("cat", "things"), ("cup", "things"), ("eye", "things")]
        content = {
            "info": {"year": "2024", "version": "1", "contributor": "", "url": "https://public.roboflow.com"},
            "licenses": [{"id": 1, "url": "", "name": "Unknown"}],
            "categories": [{"id": n, "name": name, "supercategory": group} for n, (name, group) in enumerate(groups)],
            "images": [
                {
                    "id": number,
                    "license": 1,
                    "file_name": f"{name}_jpg.rf.0123456789abcdef.jpg",
                    "height": SIZES[name][1],
                    "width": SIZES[name][0],
                    "date_captured": "2024-01-01T00:00:00+00:00",
                }
                for number, name in enumerate(names)
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": of,
                    "category_id": ("things", "cat", "cup", "eye").index(kind),
                    "bbox": xywh(box),
                    "area": 1,
                    "segmentation": [],
                    "iscrowd": 0,
                }
                for number, (of, kind, *box) in enumerate(found)
            ],
        }
        for name in names:
            image(name, root / part / f"{name}_jpg.rf.0123456789abcdef.jpg")
        (root / part / "_annotations.coco.json").write_text(json.dumps(content))
    text(root / "README.roboflow.txt", "things - v1")
    return [open_detection_set(root, split=part) for part in ("train", "val")]


def roboflow_voc(root):
    """Roboflow's VOC: XML beside the images; each corner is 1 more than in its other exports, x before y."""
    for part, names in ROBOFLOW.items():
        for name in names:
            file = f"{name}_jpg.rf.0123456789abcdef"
            image(name, root / part / f"{file}.jpg")
            things = "".join(
                f"<object>\n<name>{kind}</name>\n<pose>Unspecified</pose>\n<truncated>0</truncated>\n"
                f"<difficult>0</difficult>\n<occluded>0</occluded>\n<bndbox>\n<xmin>{x1 + 1}</xmin>\n"
                f"<xmax>{x2 + 1}</xmax>\n<ymin>{y1 + 1}</ymin>\n<ymax>{y2 + 1}</ymax>\n</bndbox>\n</object>"
                for kind, x1, y1, x2, y2 in EXPECTED[name]
            )
            size = f"<width>{SIZES[name][0]}</width><height>{SIZES[name][1]}</height><depth>3</depth>"
            head = f"<folder></folder><filename>{file}.jpg</filename><path>{file}.jpg</path>"
            source = "<source><database>roboflow.com</database></source>"
            xml = f"<annotation>{head}{source}<size>{size}</size><segmented>0</segmented>{things}</annotation>"
            text(root / part / f"{file}.xml", xml)
    return [open_detection_set(root, split=part) for part in ("train", "val")]


def roboflow_yolo(root):
    """Roboflow's YOLO: a data.yaml whose paths begin above the folder that holds it, outlines for boxes."""
    for part, names in ROBOFLOW.items():
        for name in names:
            file = f"{name}_jpg.rf.0123456789abcdef"
            image(name, root / part / "images" / f"{file}.jpg")
            lines = [outline(name, ("cat", "cup", "eye").index(kind), box) for kind, *box in EXPECTED[name]]
            text(root / part / "labels" / f"{file}.txt", *lines)
    paths = ["train: ../train/images", "val: ../valid/images", "test: ../test/images", ""]
    text(root / "data.yaml", *paths, "nc: 3", "names: ['cat', 'cup', 'eye']", "", "roboflow:", "  version: 1")
    return [open_detection_set(root, split=part) for part in ("train", "val")]


def label_img(root):
    """labelImg's PascalVOC: XML beside the images with the path of the machine that it ran on."""
    for name, found in EXPECTED.items():
        image(name, root / f"{name}.jpg")
        things = "".join(
            f"\t<object>\n\t\t<name>{kind}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
            f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>\n"
            f"\t\t\t<xmax>{x2}</xmax>\n\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>\n\t</object>\n"
            for kind, x1, y1, x2, y2 in found
        )
        text(
            root / f"{name}.xml",
            f"<annotation>\n\t<folder>set</folder>\n\t<filename>{name}.jpg</filename>\n"
            f"\t<path>C:\\Users\\me\\set\\{name}.jpg</path>\n\t<source>\n\t\t<database>Unknown</database>\n"
            f"\t</source>\n\t<size>\n\t\t<width>{SIZES[name][0]}</width>\n\t\t<height>{SIZES[name][1]}</height>\n"
            f"\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{things}</annotation>",
        )
    return [open_detection_set(root, split="all")]


def label_img_yolo(root):
    """labelImg's YOLO: label files and classes.txt beside the images."""
    for name, found in EXPECTED.items():
        image(name, root / f"{name}.jpg")
        lines = (yolo(name, ("dog", "cat", "cup", "eye").index(kind), box) for kind, *box in found)
        text(root / f"{name}.txt", *lines)
    text(root / "classes.txt", "dog", "cat", "cup", "eye")
    return [open_detection_set(root, split="all")]


def labelme(root):
    """LabelMe's labelme2coco.py: JPEGImages/, outlines, a category for the background."""
    notes = [(0, 1, CAT), (0, 3, EYE), (1, 2, CUP)]
    for name in SIZES:
        image(name, root / "JPEGImages" / f"{name}.jpg")
    corners = [[x1, y1, x2, y1, x2, y2, x1, y2] for _, _, (x1, y1, x2, y2) in notes]
    content = {
        "info": {"description": None, "url": None, "version": None, "year": 2024, "contributor": None},
        "licenses": [{"url": None, "id": 0, "name": None}],
        "images": [
            {"license": 0, "url": None, "file_name": f"JPEGImages/{name}.jpg", "height": h, "width": w, "id": number}
            for number, (name, (w, h)) in enumerate(SIZES.items())
        ],
        "type": "instances",
        "annotations": [
            {
                "id": number,
                "image_id": of,
                "category_id": kind,
                "segmentation": [outline],
                "area": float((box[2] - box[0]) * (box[3] - box[1])),
                "bbox": [float(side) for side in xywh(box)],
                "iscrowd": 0,
            }
            for number, ((of, kind, box), outline) in enumerate(zip(notes, corners, strict=True))
        ],
        "categories": [
            {"supercategory": None, "id": number, "name": name}
            for number, name in enumerate(("_background_", "cat", "cup", "eye"))
        ],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    image("chelsea", root / "Visualization" / "chelsea.jpg")
    return [open_detection_set(root, split="all")]


def ultralytics(root):
    """Ultralytics' own sets: data.yaml with a path of another machine and numbered names, images/ and labels/."""
    parts = {"train2017": "chelsea", "val2017": "coffee"}
    for part, name in parts.items():
        image(name, root / "images" / part / f"{name}.jpg")
        lines = [yolo(name, (15, 41, 77)[("cat", "cup", "eye").index(kind)], box) for kind, *box in EXPECTED[name]]
        text(root / "labels" / part / f"{name}.txt", *lines)
    names = "\n".join(f"  {n}: { {15: 'cat', 41: 'cup', 77: 'eye'}.get(n, f'other {n}') }" for n in range(80))
    paths = ["path: ../datasets/coco8 # dataset root", "train: images/train2017", "val: images/val2017", "test:"]
    text(root / "coco8.yaml", "# Ultralytics", *paths, "names:", names, "download: https://example.org/coco8.zip")
    return [open_detection_set(root, split=part) for part in ("train", "val")]


TOOLS = (
    cvat, cvat_voc, cvat_yolo, label_studio, label_studio_yolo, roboflow_coco, roboflow_voc, roboflow_yolo, label_img,
    label_img_yolo, labelme, ultralytics,
)  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_what_tools_write_is_read_to_equal_sets(tmp_path, tool):
    sets = tool(tmp_path)
    assert objects(*sets) == EXPECTED
    for data in sets:
        assert len(data.pixels(0)) == data.images[0].height
        harmless = {"PLACEHOLDER_CATEGORY", "NAME_FROM_ELSEWHERE"}
        assert {problem.name for problem in data.problems.counts} <= harmless
