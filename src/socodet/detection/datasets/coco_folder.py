"""Finds the COCO files of a folder by their usual names."""

import re
from collections.abc import Iterable
from pathlib import Path

from socodet.detection.datasets.folder_listing import folder_listings
from socodet.detection.datasets.labelme import is_labelme
from socodet.detection.datasets.splits import SPELLINGS, WHOLE, split_in_name, split_name
from socodet.runtime.files import open_file

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
MANY = 8
"""Number of files with the name of a split from which they are annotation files of single images, or other data."""
BEGINNING = 2**16
"""Number of bytes at the start of a file that are searched for the name of one of COCO's lists."""


def may_be_coco(file: Path) -> bool:
    """Whether a file with one of these names may be a COCO file, and not other JSON, such as a list of classes."""
    try:
        with open_file(file) as stream:
            beginning = stream.read(BEGINNING).replace(b"\0", b"")  # of UTF-16
    except OSError:
        return file.is_file()
    named = any(
        b'"%s"' % name in beginning for name in (b"images", b"annotations", b"categories", b"info", b"licenses")
    )
    return named or not re.match(rb"(?:\xef\xbb\xbf)?\s*[\[{]", beginning)


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


def coco_files_by_words(folder: Path) -> dict[str, Path]:
    """Split → file, for COCO files whose names only contain that of their split, such as `custom_train.json`.

    Empty if a split has several, since they cannot be told apart.
    """
    listing = folder_listings()
    places = (folder, listing.folders(folder).get("annotations", folder))
    found: dict[str, list[Path]] = {}
    for file in sorted({place / name for place in places for name in listing.names(place)}):
        split = split_in_name(file) if file.suffix.lower() == ".json" else None
        if split and listing.image(file.parent, file.stem) is None:
            found.setdefault(split, []).append(file)
    if any(len(files) > MANY for files in found.values()):
        return {}
    coco = {split: [file for file in files if _begins_like_coco(file)] for split, files in found.items()}
    single = all(len(files) < 2 for files in coco.values())
    return {split: coco[split][0] for split in SPELLINGS if coco.get(split)} if single else {}


def _begins_like_coco(file: Path) -> bool:
    try:
        with open_file(file) as stream:
            beginning = stream.read(BEGINNING).replace(b"\0", b"")
    except OSError:
        return False
    is_object = re.match(rb"(?:\xef\xbb\xbf|\xff\xfe)?\s*\{", beginning) is not None
    return is_object and any(b'"%s"' % name in beginning for name in (b"images", b"annotations", b"categories"))
