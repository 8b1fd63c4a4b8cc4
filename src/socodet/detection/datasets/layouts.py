"""From a path to a detection set, in any of the known layouts."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset, Style
from socodet.detection.datasets.coco import read_coco
from socodet.detection.datasets.headers import without_broken_images
from socodet.detection.datasets.voc import LISTS, classes_of, read_voc
from socodet.errors import InputError
from socodet.images.value_range import spread_over, white_of_set

FILES = (
    "annotations/instances_{}2017.json",
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}.json",
    "{}/_annotations.coco.json",
    "annotations/lvis_v1_{}.json",
    "lvis_v1_{}.json",
)
"""Where a folder in COCO's or LVIS's layout has the annotations of a split; the first one found is used."""
SPELLINGS = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
"""Names of the two splits that commands ask for, in folders; the first one found is used."""
NAMED = 4
"""Annotation files of an unknown layout that a message names."""
KNOWN = (
    "give a COCO or LVIS .json, a folder with annotations/instances_train2017.json or train.json, "
    "a folder with VOC2007 or ImageSets/Main, or one of its lists, .txt"
)


def open_detection_set(
    path: str | Path,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    style: Style | None = None,
    check_images: bool = False,
) -> DetectionDataset:
    """The detection set at `path`.

    - a .json file: COCO's form or LVIS's; `images` is the folder of its images if it is not found nearby;
    - a folder in COCO's layout (`FILES`, Roboflow's among them); `split` is `train`, `val` (`SPELLINGS`) or what the
      file is called;
    - a folder in VOC's layout, or one that holds VOC2007 and VOC2012; `split` is a list and its years, `trainval07+12`
      or `test07`, a list without a year where there is one year, or `train` (trainval of 2007 and, if there,
      of 2012; in a set that is not VOC's own, trainval or else train) or `val` (test of 2007; test or else val);
    - one of VOC's lists, `…/ImageSets/Main/NAME.txt`.

    `style` chooses other evaluation rules than the format's own. With `check_images` the header of every image file is
    read, and images that are broken or differ in size from their annotation are left out.

    InputError, in one line, for a set that cannot be used; problems of single entries are in the set's `problems`.
    """
    given = Path(path)
    folder = Path(images) if images is not None else None
    if given.is_dir():
        if not split:
            raise InputError(f"{given}: is a folder; say which part of it, split train or val")
        paths = (given / form.format(name) for name in SPELLINGS.get(split, (split,)) for form in FILES)
        file = next((path for path in paths if path.is_file()), None)
        dataset = read_coco(file, images=folder) if file else _read_voc_folder(given, split)
    elif given.suffix.lower() == ".json" and given.is_file():
        dataset = read_coco(given, images=folder)
    elif given.suffix.lower() == ".txt" and given.is_file() and given.absolute().parent.parts[-2:] == LISTS.parts:
        root = given.absolute().parents[2]
        dataset = read_voc([given], f"{root.name} {given.stem}", _classes(root))
    elif not given.exists():
        raise InputError(f"{given}: no such file or folder; {KNOWN}")
    else:
        raise InputError(f"{given}: no detection set; {KNOWN}")
    files = [dataset.images[index].file for index in spread_over(len(dataset))]
    white = white_of_set(list(map(str, files)), lambda place: files[place].read_bytes(), dataset.name)
    dataset = replace(dataset, style=style or dataset.style, white=white)
    return without_broken_images(dataset) if check_images else dataset


def _read_voc_folder(folder: Path, split: str) -> DetectionDataset:
    match = re.fullmatch(r"([a-z_]+?)((?:\d\d\+)*\d\d)?", split)
    roots = {place.name[-2:]: place for place in sorted(folder.glob("VOC20[0-9][0-9]")) if (place / LISTS).is_dir()}
    own = bool(roots)
    if (folder / LISTS).is_dir():
        year = re.fullmatch(r"VOC20(\d\d)", folder.absolute().name)
        roots, own = {year[1] if year else "": folder}, year is not None
    if not roots:
        looked_for = ", ".join(form.format(split) for form in FILES[:5])
        raise InputError(
            f"{folder}: no annotations of {split} in it, neither {looked_for} nor VOC's; {_json_files(folder) or KNOWN}"
        )
    name = match[1] if match and (own or not match[2]) else split
    years = match[2].split("+") if match and match[2] and own else None
    if years is None and own and name in ("train", "val"):
        name, years = (
            ("trainval", list(roots)) if name == "train" else ("test", ["07"] if "07" in roots else list(roots))
        )
    elif years is None and not own:
        name = _first_list(
            folder, {"train": ("trainval", *SPELLINGS["train"]), "val": ("test", *SPELLINGS["val"])}.get(name, (name,))
        )
        years = [""]
    elif years is None and len(roots) == 1:
        years = list(roots)
    if years is None or any(year not in roots for year in years):
        raise InputError(
            f"{folder}: has no split {split}; it holds the years {', '.join(roots)}: name a list and its years, "
            "such as trainval07+12 or test07"
        )
    lists = [roots[year] / LISTS / f"{name}.txt" for year in years]
    return read_voc(
        lists,
        f"VOC {name}{'+'.join(years)}" if own else f"{folder.absolute().name} {name}",
        _classes(lists[0].parents[2]),
    )


def _json_files(folder: Path) -> str:
    """The files that may be meant, for a message."""
    found = sorted(str(path.relative_to(folder)) for path in [*folder.glob("*.json"), *folder.glob("*/*.json")])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"it holds {', '.join(found[:NAMED])}{more}: give one of them itself" if found else ""


def _first_list(folder: Path, names: Sequence[str]) -> str:
    return next((name for name in names if (folder / LISTS / f"{name}.txt").is_file()), names[-1])


def _classes(root: Path) -> list[str] | None:
    """None for VOC's own twenty classes; else those that the set has."""
    return None if re.fullmatch(r"VOC20\d\d", root.absolute().name) else classes_of(root)
