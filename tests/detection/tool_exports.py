"""The dataset of `tool_files` as Roboflow, labelImg, LabelMe and its scripts, and Ultralytics write it."""

import base64
import json

from tool_files import CAT, CUP, EXPECTED, EYE, SIZES, image, outline, text, xywh, yolo

from socodet.detection.datasets.layouts import open_detection_set

ROBOFLOW = {"train": ["chelsea"], "valid": ["coffee"]}


def roboflow_coco(root):
    """Roboflow's COCO: one folder per split; the first category stands for the group of all others."""
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
    """Roboflow's VOC: XML beside the images; corners are 1 more than in its other exports, in the order x, x, y, y."""
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
    """Roboflow's YOLO: paths in data.yaml start with `../`; boxes are written as outlines."""
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
    """labelImg's PascalVOC: XML beside the images, with paths of the machine that it ran on."""
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


def labelme_files(root, four=False):
    """LabelMe's own files beside the images, with the image embedded and corners in any order."""
    for name, found in EXPECTED.items():
        image(name, root / f"{name}.jpg")
        shapes = [
            {
                "label": kind,
                "points": [[x2, y1], [x2, y2], [x1, y2], [x1, y1]] if four else [[float(x2), float(y1)], [x1, y2]],
                "group_id": None,
                "description": "",
                "shape_type": "rectangle",
                "flags": {},
                **({"difficult": False, "attributes": {}} if four else {"mask": None}),
            }
            for kind, x1, y1, x2, y2 in found
        ]
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{name}.jpg",
            "imageData": None if four else base64.b64encode((root / f"{name}.jpg").read_bytes()).decode(),
            "imageHeight": SIZES[name][1],
            "imageWidth": SIZES[name][0],
        }
        (root / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, indent=2))
    return [open_detection_set(root, split="all")]


def x_anylabeling(root):
    """X-AnyLabeling's files: like LabelMe's, but rectangles have four corners."""
    return labelme_files(root, four=True)


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


def labelme2coco(root):
    """The package of that name by others: file names without folders, classes from 0."""
    notes = [(0, 0, CAT), (0, 2, EYE), (1, 1, CUP)]
    for name in SIZES:
        image(name, root / f"{name}.jpg")
    content = {
        "images": [
            {"height": h, "width": w, "id": number, "file_name": f"{name}.jpg"}
            for number, (name, (w, h)) in enumerate(SIZES.items())
        ],
        "categories": [
            {"supercategory": name, "id": number, "name": name} for number, name in enumerate(("cat", "cup", "eye"))
        ],
        "annotations": [
            {
                "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                "iscrowd": 0,
                "area": float((x2 - x1) * (y2 - y1)),
                "image_id": of,
                "bbox": [float(side) for side in xywh((x1, y1, x2, y2))],
                "category_id": kind,
                "id": number,
            }
            for number, (of, kind, (x1, y1, x2, y2)) in enumerate(notes, 1)
        ],
    }
    (root / "trainval.json").write_text(json.dumps(content, indent=4))
    return [open_detection_set(root, split="all")]


def ultralytics(root):
    """Ultralytics' own datasets: data.yaml with another machine's path and numbered names, images/ and labels/."""
    parts = {"train2017": "chelsea", "val2017": "coffee"}
    for part, name in parts.items():
        image(name, root / "images" / part / f"{name}.jpg")
        lines = [yolo(name, (15, 41, 77)[("cat", "cup", "eye").index(kind)], box) for kind, *box in EXPECTED[name]]
        text(root / "labels" / part / f"{name}.txt", *lines)
    names = "\n".join(f"  {n}: { {15: 'cat', 41: 'cup', 77: 'eye'}.get(n, f'other {n}') }" for n in range(80))
    paths = ["path: ../datasets/coco8 # dataset root", "train: images/train2017", "val: images/val2017", "test:"]
    text(root / "coco8.yaml", "# Ultralytics", *paths, "names:", names, "download: https://example.org/coco8.zip")
    return [open_detection_set(root, split=part) for part in ("train", "val")]
