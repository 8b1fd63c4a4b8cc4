"""What a folder is told that is in no known layout: which ones it is closest to, and what it lacks of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from socodet.errors import InputError
from socodet.images.suffixes import SUFFIXES

LOOKED_AT = 5000
"""Files below a folder."""
NAMED = 4
"""Annotation files of an unknown layout that a message names."""


class _Found(NamedTuple):
    """What a folder holds, as far as layouts are concerned."""

    files: list[str]
    """Relative, in lower case."""

    def any(self, *endings: str) -> bool:
        return any(name.endswith(endings) for name in self.files)

    def named(self, *names: str) -> bool:
        return any(f"/{name}" in f"/{file}" for file in self.files for name in names)


def unknown_layout(folder: Path) -> InputError:
    """One line that names the two closest layouts and what is missing."""
    below = list(_below(folder))
    found = _Found([name.lower() for name in below])
    images = "images" if not found.any(*SUFFIXES) else ""
    layouts = {
        "COCO layout": (
            "" if found.any(".json") else "a .json file with images, annotations and categories",
            images,
            ""
            if found.named("annotations/instances_", "train.json", "_annotations.coco.json")
            else "a usual name of it, such as train.json or annotations/instances_train2017.json",
        ),
        "YOLO layout": (
            images,
            "" if found.any(".txt") else "a .txt file of labels per image",
            "" if found.named("labels/") else "label files of the images' names, beside them or in labels/",
            "" if found.named("data.yaml", "classes.txt") else "data.yaml or classes.txt",
        ),
        "images with Pascal VOC's XML files": (
            images,
            "" if found.any(".xml") else "an .xml file per image",
            "XML files that begin with <annotation> and have the images' names, beside them or in annotations/",
        ),
        "images with LabelMe's JSON files": (
            images,
            "" if found.any(".json") else "a .json file per image",
            "JSON files with `shapes` that have the images' names, beside them or in annotations/",
        ),
        "Pascal VOC's folders": (
            "" if found.named("annotations/") and found.any(".xml") else "Annotations/ with XML files",
            "" if found.named("jpegimages/") else "JPEGImages/",
            "" if found.named("imagesets/main/") else "ImageSets/Main/ with lists",
        ),
        "a Hugging Face dataset on disk": (
            "" if found.any(".arrow") else ".arrow files",
            "" if found.named("dataset_info.json") else "dataset_info.json",
            "" if found.named("state.json") else "state.json",
        ),
    }
    missing = {name: [lack for lack in lacks if lack] for name, lacks in layouts.items()}
    one, other, *_ = sorted(missing, key=lambda name: len(missing[name]) / len(layouts[name]))
    closest = " and ".join(f"{name} (missing: {'; '.join(missing[name]) or 'nothing'})" for name in (one, other))
    return InputError(f"{folder}: is in no known layout{_hint(folder, below)}; closest are {closest}; see docs/data.md")


def _hint(folder: Path, below: list[str]) -> str:
    files = sorted(name for name in below if name.lower().endswith(".json"))
    if files and _begins_with(folder / files[0], "shapes"):
        return (
            f", and holds LabelMe's files, as {files[0]}, of none of its images: put the images beside them, or give "
            "their folder with --images"
        )
    xml = sorted(name for name in below if name.lower().endswith(".xml"))
    if xml and _begins_with(folder / xml[0], "<annotations>"):
        return f", and holds CVAT's own form, {xml[0]}: export the task as COCO 1.0 or Ultralytics YOLO"
    if files:
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        return f", and holds {', '.join(files[:NAMED])}{more}: give one of them itself if it is COCO's"
    tops = {name.split("/")[0] for name in below}
    return f", and all it holds is in {next(iter(tops))}: give that folder" if len(tops) == 1 and below else ""


def _begins_with(file: Path, word: str) -> bool:
    try:
        with file.open("rb") as stream:
            return word.encode() in stream.read(4096)
    except OSError:
        return False


def _below(folder: Path) -> Iterator[str]:
    """Files below a folder, relative to it."""
    count = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield (Path(place) / name).relative_to(folder).as_posix()
            count += 1
            if count == LOOKED_AT:
                return
