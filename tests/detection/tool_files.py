"""Two images with three objects, and helpers that write the files of labelling tools."""

import shutil

from socodet.images.photographs import photographs

SIZES = {"chelsea": (400, 266), "coffee": (400, 267)}
CAT, CUP, EYE = (40, 20, 240, 220), (100, 50, 300, 250), (120, 80, 160, 120)
"""xyxy; the sides of the images are no powers of 2, so that shares are rounded."""
EXPECTED = {"chelsea": [("cat", *CAT), ("eye", *EYE)], "coffee": [("cup", *CUP)]}


def objects(*sets):
    """Image name → class and rounded xyxy of its objects, over all the datasets."""
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
