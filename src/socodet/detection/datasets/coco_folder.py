"""Finds the COCO files of a folder by their usual names."""

import re
from collections.abc import Iterable
from pathlib import Path

from socodet.detection.datasets.beginning import beginning_of
from socodet.detection.datasets.folder_listing import folder_listings
from socodet.detection.datasets.labelme import is_labelme
from socodet.detection.datasets.splits import SPELLINGS, WHOLE, split_name

FILES = (
    "annotations/instances_{}2017.json",
    "annotations/instances_{}.json",
    "annotations/instances_{}2014.json",
    "annotations/{}.json",
    "{}.json",
    "{}/_annotations.coco.json",
    "{}/annotations.json",
    "{}/labels.json",
    "{}/annotations/instances.json",
    "annotations/lvis_v1_{}.json",
    "lvis_v1_{}.json",
)
"""Annotation files of a split in COCO's or LVIS's folder layout, in any case; the first that exists is used."""
WHOLE_FILES = (
    "_annotations.coco.json",
    "annotations/instances_default.json",
    "annotations/instances.json",
    "result.json",
    "result_coco.json",
    "annotations.json",
    "annotations/annotations.json",
    "labels.json",
    "trainval.json",
    "coco.json",
)
"""Files with all images: of a Roboflow split, CVAT, Supervisely, Label Studio, LabelMe's converters, FiftyOne."""
LISTS = (b"images", b"annotations", b"categories")
"""The lists of a COCO file."""


def may_be_coco(file: Path) -> bool:
    """Whether a file with one of these names may be a COCO file, and not other JSON, such as a list of classes."""
    beginning = beginning_of(file)
    if beginning.lstrip().startswith(b"["):
        return False
    named = any(b'"%s"' % name in beginning for name in (*LISTS, b"info", b"licenses"))
    return named or (file.is_file() and not re.match(rb"\s*[\[{]", beginning))


def name_from_location(file: Path) -> str:
    """The name of a COCO file's dataset: its folder's if the file is in a usual place there, otherwise the file's.

    Files called train.json of several datasets could not be told apart.
    """
    path = file.absolute().as_posix()
    places = [
        (name.format(spelling), split) for split, names in SPELLINGS.items() for spelling in names for name in FILES
    ]
    for place, split in sorted([*places, *((name, WHOLE) for name in WHOLE_FILES)], key=lambda one: -len(one[0])):
        root = Path(path[: -len(place)])
        if path.lower().endswith(f"/{place}".lower()) and root.name:
            return split_name(root, split)
    return file.stem


def coco_files(folder: Path, split: str | None = None) -> dict[str, Path]:
    """Split → file, for a folder in COCO's layout; empty for another. `split` may be one of another name."""
    wanted = {**SPELLINGS, **({split: (split,)} if split and split not in SPELLINGS and split != WHOLE else {})}
    listing = folder_listings()

    def first(names: Iterable[str]) -> Path | None:
        paths = (listing.find_ignoring_case(folder, name) for name in names)
        return next((path for path in paths if path and may_be_coco(path) and not is_of_an_image(path)), None)

    def is_of_an_image(path: Path) -> bool:
        return listing.image(path.parent, path.stem) is not None and is_labelme(path)

    files = {split: first(file.format(name) for name in names for file in FILES) for split, names in wanted.items()}
    there = {split: file for split, file in files.items() if file}
    if there and not there.keys() & {"train", "val"}:
        both = first(file.format("trainval") for file in FILES)
        there = {"train": both, **there} if both else there
    if not there:
        whole = first(WHOLE_FILES)
        return {WHOLE: whole} if whole else {}
    return there


def begins_like_coco(file: Path) -> bool:
    """Whether a file of any name seems to be a COCO file."""
    beginning = beginning_of(file)
    foreign = re.search(rb'"(shapes|shape_attributes|_via_settings|from_name)"\s*:', beginning) is not None
    lists = rb'"(%s)"\s*:\s*\[\s*[{\]]' % b"|".join(LISTS)
    return beginning.lstrip().startswith(b"{") and not foreign and re.search(lists, beginning) is not None
