"""The splits and classes of a dataset in YOLO's form, from its `data.yaml`, Darknet's `obj.data`, or its folders."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from socodet.detection.datasets.annotations import Category
from socodet.detection.datasets.folder_listing import FolderListings, folder_listings
from socodet.detection.datasets.problems import AnnotationProblems
from socodet.detection.datasets.splits import (
    SPELLINGS,
    AnnotationFolder,
    annotation_folder,
    by_folder,
    corresponding_folders,
    image_folders,
    images_below,
)
from socodet.detection.datasets.values import pixel_count
from socodet.detection.datasets.yolo_classes import NOTHING, class_lines, named_classes
from socodet.detection.datasets.yolo_labels import LABEL_FOLDERS, LabelReader
from socodet.detection.datasets.yolo_paths import (
    folder_of_last_name,
    identifies_split,
    locate_path,
    refuse_ambiguous_split,
)
from socodet.errors import InputError
from socodet.images.folder import folders_in
from socodet.images.lists import read_lines
from socodet.images.reach import is_within_reach
from socodet.runtime.files import read_user_file
from socodet.runtime.notices import notice

YAML = (".yaml", ".yml")
DARKNET = ".data"
DESCRIPTIONS = (*YAML, DARKNET)
"""Suffixes of files that describe a dataset with splits."""
LISTS = (".txt", ".lst", ".list")
NAMES = ("classes.txt", "obj.names", "classes.names", "_darknet.labels")
ALONE = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
"""Files that may only name the classes."""
SPELLED = frozenset(itertools.chain(*SPELLINGS.values()))
LOOKED_AT = 16
"""Number of text files beside images that are tried before concluding that they are not labels."""


@dataclass(frozen=True)
class YoloDataset:
    """A dataset as described by a `data.yaml`, or by its folders."""

    about: Path
    """The file or folder, for messages."""
    root: Path
    """The folder to which image names are relative."""
    splits: Mapping[str, Sequence[Path]]
    """Folders of images, and lists of images, by split."""
    categories: tuple[Category, ...] | None
    """None if no file names the classes."""
    keypoints: int = 0
    """How many numbers of keypoints follow an object's box."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Splits that are described but do not exist, and their description."""
    images: Path | None = None
    """The folder of the images, if not that of the dataset."""

    def label_folder(self, images: Sequence[Path], listings: FolderListings) -> AnnotationFolder | None:
        """The place of the label files for the images of one folder; None when no image has one."""
        instead = corresponding_folders(images[0].parent, self.root, self.images)
        return annotation_folder(images, LABEL_FOLDERS, ".txt", listings, instead)

    def check(self, split: str) -> None:
        """InputError if a split is described but does not exist, or is far from the file."""
        for place in self.splits.get(split, ()):
            if self.about.is_file() and not is_within_reach(place, self.about):
                raise InputError(
                    f"{self.about}: its {split} is {place}, which is not in the folder above it; pass --outside-images "
                    "if you trust that file"
                )
        if split in self.absent:
            raise InputError(self.missing_split_message(split))

    def missing_split_message(self, split: str) -> str:
        """The message for a split in `absent`."""
        return f"{self.about}: its {split} is {self.absent[split]:.80}, which does not exist in {self.root}; correct it"


def read_description(file: Path) -> YoloDataset:
    """The dataset that a `data.yaml`, or Darknet's `obj.data`, describes. InputError if it does not describe one."""
    facts = _darknet(file) if file.suffix.lower() == DARKNET else _yaml(file)
    above = file.absolute().parent
    roots = [above]
    for name in ("path", "nc", *itertools.chain(*SPELLINGS.values())):
        given = facts.get(name, "")
        if not all(isinstance(one, str) for one in (given if isinstance(given, list) else [given])):
            raise InputError(f"{file}: `{name}` must be text, or a list of it; correct it")
    if facts.get("path", "") not in NOTHING:
        path = locate_path(str(facts["path"]), [above])
        roots = [above, *folder_of_last_name(str(facts["path"]), above)] if path is None else [path, above]
    splits: dict[str, list[Path]] = {}
    absent: dict[str, str] = {}
    for split, names in SPELLINGS.items():
        written: Any = next((facts[name] for name in names if facts.get(name, "") not in NOTHING), [])
        for value in written if isinstance(written, list) else [written]:
            place = locate_path(str(value), roots)
            if place is None:
                absent[split] = str(value)
                continue
            refuse_ambiguous_split(file, split, str(value), place)
            if place.is_file() and place.suffix.lower() not in LISTS:
                raise InputError(f"{file}: its {split} is {value!s:.80}, which is neither a folder nor a .txt list")
            splits.setdefault(split, []).append(place)
    if not splits and not absent:
        raise InputError(f"{file}: has no `train` and no `val`; give the folders of their images, or lists of them")
    if "val" in splits and splits["val"] == splits.get("train"):
        notice(f"{file}: its val is its train; scores on images that were trained on say little")
    categories = named_classes(file, facts)
    return YoloDataset(file, above, splits, categories, _keypoints(facts), absent)


def _keypoints(facts: Mapping[str, Any]) -> int:
    """How many numbers an object's keypoints have, by `kpt_shape`; 0 without it."""
    shape = facts.get("kpt_shape")
    sides = [pixel_count(side) for side in shape] if isinstance(shape, list) else []
    return sides[0] * sides[1] if len(sides) == 2 else 0


def find_description(folder: Path) -> YoloDataset | None:
    """The dataset that a file in a folder describes; None without such a file. InputError for several."""
    names = sorted(name for name in folder_listings().names(folder) if name.lower().endswith(DESCRIPTIONS))
    described = [folder / name for name in names if _describes_a_set(folder / name)]
    usual = [file for file in described if file.stem.lower() in ("data", "dataset", "obj")] or described
    if len(usual) > 1:
        raise InputError(
            f"{folder}: holds {', '.join(file.name for file in usual)}, each describing a dataset; give one of them"
        )
    return read_description(usual[0]) if usual else None


def find_dataset(folder: Path, places: Mapping[str, Path], images: Path | None = None) -> YoloDataset | None:
    """The dataset of the images and label files in a folder; None if there are none.

    `places`: for each split, the folder that may hold its images. `images`: the folder of the images, if elsewhere.
    """
    root, elsewhere = folder.absolute(), images.absolute() if images else None
    if (elsewhere or root) in places.values() and places != next(image_folders(elsewhere or root)):
        return None  # images in other folders would count as images without objects
    listings = folder_listings()
    found = YoloDataset(folder, root, {}, None, images=elsewhere)
    splits: dict[str, Sequence[Path]] = {
        split: [place] for split, place in places.items() if _has_labels(found, place, listings)
    }
    if not splits:
        return None
    lists: dict[str, Sequence[Path]] = {
        split: [path]
        for split, names in SPELLINGS.items()
        if (path := next((root / f"{name}.txt" for name in names if _is_list(root, name, listings)), None))
    }
    named = lists if lists and len(splits) == 1 else splits
    return replace(found, splits=named, categories=_classes_near(root), keypoints=_keypoints_near(root))


def _is_list(root: Path, name: str, listings: FolderListings) -> bool:
    """Whether a text file may be a list; it is not if it is the label file of an image beside it."""
    return (root / f"{name}.txt").is_file() and listings.image(root, name) is None


def _has_labels(described: YoloDataset, folder: Path, listings: FolderListings) -> bool:
    """Whether any image of a split has a label file in `labels/`, or a file beside it that looks like a label file."""
    for images in by_folder(images_below(folder)).values():
        labels = described.label_folder(images, listings)
        if labels is None:
            continue
        root = described.root if labels.path.is_relative_to(described.root) else labels.path.parent
        if any(part.lower() in LABEL_FOLDERS for part in labels.path.relative_to(root).parts):
            return True
        files = (listings.file(labels.path, image.stem, ".txt") for image in images)
        for file in itertools.islice(filter(None, files), LOOKED_AT):
            try:
                if LabelReader(AnnotationProblems()).read(file, read_lines(file)):
                    return True
            except InputError:
                continue
    return False


def _describes_a_set(file: Path) -> bool:
    if file.suffix.lower() == DARKNET:
        return file.is_file()
    if file.suffix.lower() not in YAML or not file.is_file():
        return False
    try:
        facts = _yaml(file)
    except InputError:
        return file.stem.lower() in ("data", "dataset")  # its errors are reported when it is read
    return "names" in facts and not SPELLED.isdisjoint(facts)


def _yaml(file: Path) -> dict[str, Any]:
    try:
        facts = yaml.load(read_user_file(file), yaml.BaseLoader)  # values stay as written, since `no` is a name here
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not valid YAML ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(facts, dict):
        raise InputError(f"{file}: does not describe a dataset; it needs `train`, `val` and `names`")
    return _with_lower_case_splits(facts)


def _with_lower_case_splits(facts: dict[str, Any]) -> dict[str, Any]:
    """Adds the names of splits in lower case, because CVAT writes its own names, such as `Train`."""
    return {str(key).lower(): value for key, value in facts.items() if str(key).lower() in SPELLED} | facts


def _darknet(file: Path) -> dict[str, Any]:
    """Reads `key = value` lines; the file that `names` gives has one class per line."""
    pairs = [line.partition("=") for line in read_lines(file) if "=" in line]
    facts = _with_lower_case_splits({key.strip(): value.strip() for key, _, value in pairs})
    names = locate_path(str(facts.get("names", "")), [file.absolute().parent])
    if (
        names is None
        or not is_within_reach(names, file)
        or not names.is_file()
        or names.suffix.lower() not in (".names", ".txt")
    ):
        raise InputError(f"{file}: needs a line `names = FILE.names`, and that file beside it, with one class per line")
    return facts | {"names": class_lines(names), "nc": facts.get("classes", "")}


def _classes_near(root: Path) -> tuple[Category, ...] | None:
    folders = [root, *folders_in(root)]
    folders += [path for folder in folders[1:] for path in folders_in(folder)]
    files = [folder / name for folder in folders for name in NAMES if (folder / name).is_file()]
    others = sorted(name for name in folder_listings().names(root) if name.endswith(".names") and name[0] != ".")
    if not files and len(others) == 1:
        files = [root / others[0]]
    if not files:
        named = _names_alone(root)
        above = next((path for path in (root.parent / "data.yaml", root.parent / "data.yml") if path.is_file()), None)
        if named or above is None:
            return named
        of_set = _names_alone(root.parent)  # the folder may be a split of a dataset
        if of_set:
            return of_set if identifies_split([root.name]) else None
        described = read_description(above)
        of_it = any(place.is_relative_to(root) for places in described.splits.values() for place in places)
        return described.categories if of_it or identifies_split([root.name]) else None
    classes = class_lines(files[0])
    other = next((file for file in files[1:] if class_lines(file) != classes), None)
    if other is not None:
        raise InputError(f"{other}: names other classes than {files[0]}; make them equal, or give a data.yaml")
    return tuple(Category(place, name) for place, name in enumerate(classes))


def _keypoints_near(root: Path) -> int:
    """The keypoints of a `data.yaml` in a folder, or in the one above, of which it may be a split."""
    for folder in (root, root.parent):
        for name in ALONE:
            if (folder / name).is_file() and (folder == root or identifies_split([root.name])):
                return _keypoints(_yaml(folder / name))
    return 0


def _names_alone(folder: Path) -> tuple[Category, ...] | None:
    """The classes in a `data.yaml` that describes no splits, as the package supervision writes it."""
    for name in ALONE:
        facts = _yaml(folder / name) if (folder / name).is_file() else {}
        if "names" in facts and SPELLED.isdisjoint(facts):
            return named_classes(folder / name, facts)
    return None
