"""Where the validation images of a training set are: in its own files or others, in which split and which folder."""

import os
from pathlib import Path

from socodet.detection.datasets.cvat_xml import cvat_subsets, is_cvat
from socodet.detection.datasets.layouts import (
    COCO,
    CVAT,
    LABEL_STUDIO,
    TABLES,
    VIA,
    VOC,
    VOC_LIST,
    has_split,
    layout_at,
)
from socodet.detection.datasets.splits import WHOLE
from socodet.detection.datasets.voc_folder import LISTS
from socodet.detection.datasets.yolo_description import DESCRIPTIONS
from socodet.errors import InputError
from socodet.images.folder import VOC_IMAGES
from socodet.images.suffixes import SUFFIXES


def may_have_splits(given: str | Path) -> bool:
    """Whether a path may be a dataset with several splits: a folder, a file that describes one, or one of CVAT's."""
    path = Path(given)
    return path.is_dir() or path.suffix.lower() in DESCRIPTIONS or (is_cvat(path) and len(cvat_subsets(path)) > 1)


def split_to_score(val: str | Path, images: str | Path | None, split: str = "val") -> str:
    """Which split of the dataset given as --val is scored: this one; all of a folder that does not have it."""
    return WHOLE if Path(val).is_dir() and not has_split(val, split, images) else split


def images_for_other(other: str | Path, train: str | Path, images: str | Path | None) -> str | Path | None:
    """`images`, the folder of the images of `train`, if it also applies to `other`; None if `other` has its own images.

    It always applies to the same dataset, to a JSON or XML file and to a table; to a folder of such files if that has
    no image; to one in VOC's layout if that has no folder of images; and to any other only if it has no layout without
    `images`.
    """
    given = Path(other)
    if (
        images is None
        or given.suffix.lower() in (".json", ".xml", ".csv")
        or _dataset_path(given) == _dataset_path(Path(train))
    ):
        return images
    try:
        name = layout_at(given).name
    except InputError:
        return images
    if name in (COCO, VIA, CVAT, LABEL_STUDIO, TABLES):
        return None if _holds_image(given) else images
    if name in (VOC, VOC_LIST):
        root = _dataset_path(given)
        return None if any(one.is_dir() for one in (root / VOC_IMAGES, *root.glob(f"*/{VOC_IMAGES}"))) else images
    return None


def _dataset_path(given: Path) -> Path:
    """The resolved folder or file of a dataset; for one of VOC's lists, the folder of the dataset."""
    absolute = given.absolute()
    is_list = given.suffix.lower() == ".txt" and absolute.parent.parts[-2:] == LISTS.parts
    return Path(os.path.realpath(absolute.parents[2] if is_list else absolute))


def _holds_image(folder: Path) -> bool:
    """Whether a folder holds an image, not counting its annotations, which may include segmentation maps."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if any(name.lower().endswith(SUFFIXES) for name in names):
            return True
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if name.lower() != "annotations"]
        seen.add(real)
    return False
