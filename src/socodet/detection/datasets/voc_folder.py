"""Reads Pascal VOC's folders: one or more years, or another dataset with the same layout and `ImageSets/Main`."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path, PureWindowsPath

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.splits import SPELLINGS, WHOLE, missing_split
from socodet.detection.datasets.voc import classes_of, is_voc_year, read_voc
from socodet.errors import InputError
from socodet.images.folder import VOC_IMAGES
from socodet.images.lists import read_lines

LISTS = Path("ImageSets", "Main")
_OWN = {"train": "trainval", "val": "test", "test": "test"}
"""VOC's lists for each split; years without a test have train and val."""
_OTHER = {"train": (*SPELLINGS["train"], "trainval"), "val": (*SPELLINGS["val"], "test"), "test": SPELLINGS["test"]}
"""Lists for each split of another dataset in this layout, in any case; the first that exists is used. If the dataset is
scored on its test list, training prefers trainval."""
LOOKED_AT = 16
"""Number of images in a list whose XML files are looked for."""


def voc_splits(folder: Path) -> tuple[str, ...]:
    """The splits of a folder in VOC's layout; none if it does not have that layout."""
    roots, own = _roots(folder)
    if own:
        there = {name for root in roots.values() for name in _nonempty_lists(root)}
        return tuple(split for split in _OWN if _OWN[split] in there or split in there)
    if not roots:
        return ()
    lists = _lists(folder)
    lower = {name.lower() for name in lists}
    splits = tuple(split for split, names in _OTHER.items() if any(name in lower for name in names))
    return splits or ((WHOLE,) if len(lists) == 1 else tuple(lists))


def read_voc_folder(folder: Path, split: str, images: Path | None = None) -> DetectionDataset:
    """The images of a list with its years, such as `trainval07+12`, or of a split. InputError if that is ambiguous.

    `images` is the folder of the images of all years, if they are not in `JPEGImages`.
    """
    roots, own = _roots(folder)
    match = re.fullmatch(r"([a-z_]+?)((?:\d\d\+)*\d\d)?", split)
    years = match[2].split("+") if match and match[2] and own else None
    name = match[1] if match and (own or not match[2]) else split
    if not own:
        name, years = _list_of(folder, split), [""]
    elif years is None and split in _OWN:
        name, years = _voc_list(roots, split)
    elif years is None and len(roots) == 1:
        years = list(roots)
    if years is None or any(year not in roots for year in years):
        raise InputError(
            f"{folder}: has no split {split}; it holds the years {', '.join(roots)}: name a list and its years, "
            "such as trainval07+12 or test07"
        )
    lists = [roots[year] / LISTS / f"{name}.txt" for year in years]
    about = f"VOC {name}{'+'.join(years)}" if own else f"{folder.absolute().name} {name}"
    return read_voc(lists, about, voc_classes(lists[0].parents[2], images), images)


def _voc_list(roots: Mapping[str, Path], split: str) -> tuple[str, list[str]]:
    """The list and years for a split of VOC itself: trainval and test, or train and val if no test is annotated.

    The latter is the case for VOC2012 alone, whose trainval includes the images of val.
    """
    tested = [year for year, root in roots.items() if _is_annotated(root, "test")]
    filled = {year: _nonempty_lists(root) for year, root in roots.items()}
    names = [_OWN[split], split]
    if not tested and any("val" in there for there in filled.values()):
        names.reverse()
    for name in names:
        years = tested if name == "test" else [year for year, there in filled.items() if name in there]
        if years:
            return name, [year for year in years if year == "07"] or years if name == "test" else years
    return split, list(roots)


def _is_annotated(root: Path, name: str) -> bool:
    """Whether one of the first images of a list has an XML file."""
    if name not in _nonempty_lists(root):
        return False
    images = islice(filter(None, read_lines(root / LISTS / f"{name}.txt")), LOOKED_AT)
    stems = (stem for image in images for stem in (image, image.split()[0], PureWindowsPath(image).stem))
    return any((root / "Annotations" / f"{stem}.xml").is_file() for stem in stems)


def voc_classes(root: Path, images: Path | None = None) -> list[str] | None:
    """None for VOC's own twenty classes; otherwise those of the dataset, including folders that hold its images."""
    if is_voc_year(root):
        return None
    place, of_images = root / "Annotations", images or root / VOC_IMAGES
    folders = [place, *(folder for folder in place.rglob("*/") if (of_images / folder.relative_to(place)).is_dir())]
    return classes_of(sorted(file for folder in folders for file in folder.glob("*.xml")), place)


def _roots(folder: Path) -> tuple[dict[str, Path], bool]:
    """Year → folder, and whether they are VOC's own; a dataset with another name has an empty year."""
    if _lists(folder):
        own = is_voc_year(folder)
        return {folder.absolute().name[-2:] if own else "": folder}, own
    years = {place.name[-2:]: place for place in sorted(folder.glob("VOC20[0-9][0-9]")) if (place / LISTS).is_dir()}
    return years, bool(years)


def _nonempty_lists(root: Path) -> dict[str, Path]:
    """Name → file of the lists, without empty ones, which scripts for splitting a dataset leave behind."""
    return {file.stem: file for file in sorted((root / LISTS).glob("*.txt")) if file.is_file() and file.stat().st_size}


def _lists(folder: Path) -> dict[str, Path]:
    """Name → file of the lists, without empty ones and those of single classes."""
    found = _nonempty_lists(folder)
    return {name: file for name, file in found.items() if not any(name.endswith(f"_{other}") for other in found)}


def _list_of(folder: Path, split: str) -> str:
    lists = _lists(folder)
    if voc_splits(folder) == (WHOLE,) and split in (WHOLE, "train"):
        return next(iter(lists))
    lower = {name.lower(): name for name in lists}
    names: Sequence[str] = _OTHER.get(split, (split.lower(),))
    if split == "train" and lower.keys().isdisjoint(SPELLINGS["val"]):
        names = names[::-1]
    found = next((lower[name] for name in names if name in lower), None)
    if found is None:
        raise missing_split(folder, split, f"its lists are {', '.join(map(repr, lists))}")
    return found
