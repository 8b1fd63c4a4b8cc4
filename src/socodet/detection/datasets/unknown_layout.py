"""The error for a folder in no known layout, with the closest layouts and what is missing for them."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from socodet.detection.datasets.beginning import beginning_of
from socodet.detection.datasets.coco_folder import FILES, WHOLE_FILES, may_be_coco
from socodet.detection.datasets.cvat_xml import is_cvat
from socodet.detection.datasets.label_studio import is_label_studio
from socodet.detection.datasets.split_files import split_files
from socodet.detection.datasets.splits import SPELLINGS
from socodet.detection.datasets.tables import is_table, lacking_columns
from socodet.detection.datasets.voc_folder import voc_splits
from socodet.detection.datasets.yolo_description import find_description
from socodet.errors import InputError
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.files import LFS_POINTER

LOOKED_AT = 5000
"""Maximum number of files examined below a folder."""
NAMED = 4
"""Maximum number of annotation files that a message names."""
LOOKED_INTO = 8
"""Maximum number of files opened for each suffix."""
_FOREIGN = (
    *(
        (
            suffix,
            b"^" + LFS_POINTER,
            "pointers of Git LFS instead of files, such as {}: git lfs pull gets them",
        )
        for suffix in (".json", ".xml", ".txt", ".csv")
    ),
    (
        ".json",
        rb'"shapes"\s*:',
        "LabelMe files, such as {}, that belong to none of its images: put the images beside them, or the files into "
        "annotations/ beside the folder of images",
    ),
    (".json", rb'"classTitle"\s*:', "Supervisely's own JSON files, such as {}: export the project as COCO or YOLO"),
    (
        ".json",
        rb'"shape_attributes"\s*:',
        "VGG Image Annotator's own JSON, such as {}: give it itself, or export it as COCO",
    ),
    (".csv", rb"region_shape_attributes", "VGG Image Annotator's CSV, such as {}: export it as JSON"),
    (
        ".json",
        rb'"(from_name|rectanglelabels|polygonlabels|brushlabels)"\s*:',
        "Label Studio's JSON, such as {}: give a file of all tasks itself, or export the project as JSON or COCO",
    ),
    (".json", rb'"coordinates"\s*:\s*\{', "CreateML's JSON, such as {}: export it as COCO or YOLO"),
    (".xml", rb"<annotations>", "CVAT's XML, such as {}: give it itself, or export the task as COCO 1.0"),
    (".txt", rb"^[A-Za-z]\S*( -?[\d.]+){14,15}\s", "KITTI label files, such as {}: convert them to YOLO or COCO"),
    (
        ".txt",
        rb"(?m)^(-?[\d.]+[ ,]+){8}[^\s,]+([ ,]+[012])?\r?$",
        "DOTA's label files of rotated boxes, such as {}: convert them to COCO or YOLO",
    ),
    (
        ".txt",
        rb"(?m)^\S[^\r\n]*\.(jpe?g|png) (\d+,){4}\d+",
        "a list of boxes, {}, as tutorials of YOLO in Keras have it: convert it to a COCO file",
    ),
    (
        ".jsonl",
        rb'"file_name"\s*:',
        "{}: load it with datasets.load_dataset('imagefolder') and save it with save_to_disk",
    ),
    (
        ".parquet",
        rb"^PAR1",
        "a dataset in Parquet files, such as {}: load it with datasets and save it with save_to_disk",
    ),
)
"""Unsupported formats: the suffix of their files, what these contain near their start, and what to do."""


class _Found(NamedTuple):
    """The contents of a folder that matter for layouts."""

    files: list[str]
    """Relative paths, in lower case."""

    def any(self, *endings: str) -> bool:
        return any(name.endswith(endings) for name in self.files)

    def named(self, *names: str) -> bool:
        return any(f"/{name}" in f"/{file}" for file in self.files for name in names)


def unknown_layout(folder: Path) -> InputError:
    """An error in one line that says what the folder holds, or names the two closest layouts and what they lack."""
    below = list(_below(folder))
    hint, is_sure = _hint(folder, below)
    if is_sure:
        return InputError(f"{folder}: is in no known layout{hint}; see docs/data.md")
    found = _Found([name.lower() for name in below])
    images = "images" if not found.any(*SUFFIXES) else ""
    stems = [{Path(name).stem for name in below if name.lower().endswith(ends)} for ends in (SUFFIXES, (".txt",))]
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
            ""
            if stems[0] & stems[1]
            else "label files of the images' names, in the same case, beside them or in labels/",
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
    return InputError(f"{folder}: is in no known layout{hint}; closest are {closest}; see docs/data.md")


def _hint(folder: Path, below: list[str]) -> tuple[str, bool]:
    """What the folder holds and what to do, and whether that is sure."""
    for suffix, words, what in _FOREIGN:
        ending = (name for name in sorted(below) if name.lower().endswith(suffix))
        for file in islice(ending, LOOKED_INTO):
            if re.search(words, beginning_of(folder / file)):
                return f", and holds {what.format(file)}", True
    files = sorted(name for name in below if name.lower().endswith(".json"))
    if files:
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        which = "give it" if len(files) == 1 else "give one of them"
        return f", and holds {', '.join(files[:NAMED])}{more}: {which} itself if it is COCO's", False
    tables = sorted(name for name in below if name.lower().endswith(".csv"))
    of_boxes = [name for name in tables[:LOOKED_INTO] if is_table(folder / name)]
    if of_boxes:
        which = "it" if len(of_boxes) == 1 else "one of them"
        return f", and holds {' and '.join(of_boxes[:NAMED])}: give {which} itself", True
    if tables:
        columns = "filename, class, xmin, ymin, xmax and ymax"
        lacking = lacking_columns(folder / tables[0])
        table = f"{tables[0]}, without a column for {' and '.join(lacking)}" if lacking else tables[0]
        fix = f"name its columns {columns}, or convert it to a COCO file"
        return f", and holds a table, {table}: {fix}", bool(lacking)
    above = Path(os.path.normpath(folder / os.pardir))
    if any(name.lower().endswith(SUFFIXES) for name in below) and _is_set(above):
        return f", and the annotations seem to lie one level up: give {above}", True
    tops = {name.split("/")[0] for name in below if "/" in name}
    if len(tops) == 1 and all("/" in name for name in below):
        return f", and all it holds is in {next(iter(tops))}: give that folder", False
    return "", False


def _is_set(folder: Path) -> bool:
    """Whether a folder has its own annotations: COCO's, YOLO's, VOC's, CVAT's or Label Studio's, or tables of boxes."""
    names = [
        *WHOLE_FILES,
        *(file.format(name) for file in FILES for spellings in SPELLINGS.values() for name in spellings),
    ]
    with suppress(InputError):
        coco = any((folder / name).is_file() and may_be_coco(folder / name) for name in names)
        return (
            coco
            or find_description(folder) is not None
            or bool(voc_splits(folder))
            or any(
                split_files(folder, suffix, is_one)
                for suffix, is_one in ((".xml", is_cvat), (".json", is_label_studio), (".csv", is_table))
            )
        )
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
