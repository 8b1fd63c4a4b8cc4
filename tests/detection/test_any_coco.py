"""Any value in any field of a COCO or LVIS file, Roboflow's included, is read as COCO defines it, or counted."""

import json
import shutil

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_any_annotations import CALM, FEWER, VALUES, check, paths, replaced

from socodet.detection.datasets.problems import LEAST_SIDE
from socodet.detection.datasets.values import LARGEST
from socodet.images.photographs import photographs

SIZE = (400, 266)
MASK = [[10, 10, 60, 10, 60, 60, 10, 60]]
COCO = {
    "info": {"description": None},
    "licenses": [{"id": 1, "name": ""}],
    "images": [
        {"id": 1, "file_name": "chelsea.jpg", "width": 400, "height": 266, "license": 1, "coco_url": ""},
        {"id": 2, "file_name": "coffee.jpg", "width": 400, "height": 267, "date_captured": 0},
    ],
    "annotations": [
        {
            "id": number,
            "image_id": 1 + number // 2,
            "category_id": 1 + number % 2,
            "bbox": [10, 10, 50, 50],
            "area": 2500,
            "iscrowd": 0,
            "segmentation": mask,
            "attributes": {"occluded": False},
        }
        for number, mask in enumerate([MASK, {"size": [266, 400], "counts": [100, 50, 266 * 400 - 150]}, MASK, MASK])
    ],
    "categories": [
        {"id": 1, "name": "cat", "supercategory": "things"},
        {"id": 2, "name": "eye", "supercategory": None},
    ],
}
LVIS = COCO | {
    "images": [one | {"neg_category_ids": [1], "not_exhaustive_category_ids": []} for one in COCO["images"]],
    "categories": [one | {"frequency": "r"} for one in COCO["categories"]],
}
BOXES = COCO | {"annotations": [one | {"segmentation": []} for one in COCO["annotations"]]}
DIFFICULT = BOXES | {"annotations": [one | {"difficult": 0} for one in BOXES["annotations"]]}


def as_number(value):
    """A JSON value as a number: a number itself, or a text that spells one."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else np.nan
    except (ValueError, OverflowError):
        found = np.nan
    return found if abs(found) < LARGEST else np.nan


def is_id(one):
    whole = isinstance(one, int | str) or (isinstance(one, float) and one.is_integer())
    return whole and not isinstance(one, bool) and one != ""


def same_id(one, other):
    return is_id(one) and is_id(other) and (one == other or as_number(one) == as_number(other))


def is_outline(value, size):
    if isinstance(value, dict):
        sides, counts = value.get("size"), value.get("counts")
        if not isinstance(sides, list) or not isinstance(counts, list):
            return False
        runs = [as_number(one) for one in counts]
        return [as_number(side) for side in sides] == size[::-1] and sum(runs) == size[0] * size[1] and min(runs) >= 0
    if not isinstance(value, list):
        return False
    flat = not any(isinstance(part, list) for part in value)
    points = all(isinstance(part, list) and len(part) == 2 for part in value)
    for part in [value] if flat or points else value:
        try:
            numbers = np.array(part, float).reshape(-1)
        except (ValueError, TypeError, OverflowError):
            return False
        if len(numbers) < 6 or len(numbers) % 2 or not np.isfinite(numbers).all():
            return False
    return True


def is_odd_lvis(images, categories):
    """Whether a file has LVIS's lists but some of them are malformed."""
    if not any("neg_category_ids" in one for one in images):
        return any("frequency" in one for one in categories)
    lists = [one.get(name) for one in images for name in ("neg_category_ids", "not_exhaustive_category_ids")]
    known = [one["id"] for one in categories]
    return any(one.get("frequency") not in ("r", "c", "f") for one in categories) or not all(
        isinstance(ids, list) and all(any(same_id(one, other) for other in known) for one in ids) for ids in lists
    )


def defined(content):
    """By COCO's definition: image name → class and box of each object; and whether anything is wrong."""
    odd = False
    images, found, sizes = [], {}, {}
    for one in content["images"]:
        if not isinstance(one, dict) or not is_id(one.get("id")):
            odd = True
            continue
        name = one.get("file_name")
        real = {"chelsea.jpg": SIZE, "coffee.jpg": (400, 267)}.get(name if isinstance(name, str) else "")
        if real is None or any(same_id(one.get("id"), other["id"]) for other, _ in images):
            odd = True
            continue
        size = [as_number(one.get(side)) for side in ("width", "height")]
        if not all(side >= 1 and side == int(side) for side in size):
            odd, size = True, real
        size = [int(side) for side in size]
        images.append((one, size))
        sizes.setdefault(name, size)
        odd |= name in found
        found.setdefault(name, [])
    for note in content["annotations"]:
        if not isinstance(note, dict):
            odd = True
            continue
        of = [(one, size) for one, size in images if same_id(note.get("image_id"), one.get("id"))]
        names = [one for one in content["categories"] if same_id(note.get("category_id"), one["id"])]
        box = note.get("bbox")
        numbers = [as_number(side) for side in box] if isinstance(box, list) and len(box) == 4 else [np.nan]
        if not of or not names or not np.isfinite(numbers).all():
            odd = True
            continue
        x, y, w, h = numbers
        (image, size) = of[0]
        clipped = [max(x, 0), max(y, 0), min(x + w, size[0]), min(y + h, size[1])]
        clipped = np.float32(clipped).tolist()
        if min(w, h, clipped[2] - clipped[0], clipped[3] - clipped[1]) < LEAST_SIDE:
            odd = True
            continue
        crowd = str(note.get("iscrowd", 0)).strip().lower() in ("1", "1.0", "true", "yes", "y", "t")
        plain = str(note.get("iscrowd", 0)).strip().lower() in (
            "0",
            "0.0",
            "-0.0",
            "false",
            "no",
            "n",
            "f",
            "none",
            "null",
            "",
        )
        area = as_number(note.get("area"))
        odd |= not (crowd or plain) or not (area > 0 or note.get("area") is None)
        odd |= np.abs(np.array(clipped) - [x, y, x + w, y + h]).max() > 1
        odd |= note.get("segmentation") not in (None, "", [], [[]], {}) and not is_outline(note["segmentation"], size)
        row = (str(names[0]["name"]), *clipped, crowd)
        found[image["file_name"]].append((image, (names[0]["id"], crowd, *numbers), row))
    joined = {name: [] for name in found}
    for name, objects in found.items():
        known = set()
        for image, size in images:  # several entries may name one file
            if size == sizes[name]:
                of_it = [(key, row) for one, key, row in objects if one is image]
                joined[name] += [row for key, row in of_it if key not in known]
                known |= {key for key, _ in of_it}
    return joined, odd or is_odd_lvis([one for one, _ in images], content["categories"])


def learned(read):
    return {
        image.file.name: [
            (read.categories[label - 1].name, *box, crowd)
            for label, box, crowd in zip(image.labels.tolist(), image.boxes.tolist(), image.crowd.tolist(), strict=True)
        ]
        for image in read.images
    }


@CALM
@given(st.data())
def test_any_value_in_any_field_of_a_coco_or_lvis_file(tmp_path, data):
    start = data.draw(st.sampled_from([COCO, LVIS, BOXES, DIFFICULT]))
    content = start
    for _ in range(data.draw(st.integers(1, 2))):
        content = replaced(content, data.draw(st.sampled_from(list(paths(content)))), data.draw(VALUES))
    (tmp_path / "images").mkdir(exist_ok=True)
    for name in ("chelsea", "coffee"):
        shutil.copy(photographs() / f"{name}.jpg", tmp_path / "images")
    (tmp_path / "set.json").write_text(json.dumps(content))
    read = check(tmp_path / "set.json")
    if read is None:
        return
    expected, odd = defined(content)
    assert learned(read) == expected
    assert read.problems or not odd


@FEWER
@given(st.data())
def test_any_value_in_any_field_of_a_roboflow_folder(tmp_path, data):
    """Its splits are read separately: a value in one changes nothing in the other."""
    for part, name in (("train", "chelsea"), ("valid", "coffee")):
        (tmp_path / part).mkdir(exist_ok=True)
        shutil.copy(photographs() / f"{name}.jpg", tmp_path / part)
    parts = {
        "train": BOXES | {"images": BOXES["images"][:1], "annotations": BOXES["annotations"][:2]},
        "valid": BOXES | {"images": BOXES["images"][1:], "annotations": BOXES["annotations"][2:]},
    }
    content = parts["train"]
    content = replaced(content, data.draw(st.sampled_from(list(paths(content)))), data.draw(VALUES))
    for part, written in (("train", content), ("valid", parts["valid"])):
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(written))
    read = check(tmp_path, split="train")
    if read is not None:
        expected, odd = defined(content)
        assert learned(read) == expected
        assert read.problems or not odd
    other = check(tmp_path, split="val")
    assert learned(other) == {"coffee.jpg": [("cat", 10, 10, 60, 60, False), ("eye", 10, 10, 60, 60, False)]}
    assert not other.problems
