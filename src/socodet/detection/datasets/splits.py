"""Finds the splits of a folder without a description file, their images, and their annotation files."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from socodet.detection.datasets.folder_listing import FolderListings, folder_listings
from socodet.errors import InputError
from socodet.images.folder import folders_in, open_folder
from socodet.images.spelling import composed, normal_forms
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.notices import notice

SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names of splits in folders and files; the first one found is used."""
IMAGE_FOLDERS = ("images", "jpegimages", "imgs", "img", "image")
"""Names of folders of images, in any case."""
WHOLE = "all"
"""Name of the only split of a dataset without splits."""


def split_name(root: Path, split: str) -> str:
    """The name of a split of the dataset in the folder `root`, for messages."""
    return root.absolute().name if split == WHOLE else f"{root.absolute().name} {split}"


def split_in_name(file: Path) -> str | None:
    """The split whose name is a word of the file's name, as in `custom_train.json` or `test_labels.csv`, if one is."""
    words = set(re.findall("[a-z]+", file.stem.lower()))
    found = [split for split, names in SPELLINGS.items() if words.intersection(names)]
    return found[0] if len(found) == 1 else None


HOLD_BACK = "hold out a share of it with --val-share 0.2 (in Python reading=socodet.ReadingSettings(val_share=0.2))"


class MissingSplitError(InputError):
    """A dataset does not have this split, but may have others."""


def missing_split(given: Path, split: str, there: str) -> MissingSplitError:
    """The error for a split that a dataset does not have; there: a description of those that it has."""
    name = "set --split to one that it has"
    if split == "val":
        ways = f"To use the images that training held out, give its --val-share; otherwise {name}"
    else:
        ways = f"Give a dataset that has it, or {name} (for a probe: --train-split, --val-split)"
    return MissingSplitError(f"{given}: has no split {split!r}; {there}. {ways}")


def no_validation_split(given: Path | str) -> MissingSplitError:
    """The error for a dataset to train on, or to probe with, that has no validation split."""
    return MissingSplitError(f"{given}: has no validation split; {HOLD_BACK}, or give another dataset with --val")


def split_folders(folder: Path) -> dict[str, Path]:
    """Split → folder, for folders named after a split, or after a split and a year, such as `train2017`."""
    folders = folders_in(folder)
    there = {path.name.lower(): path for path in folders}
    for name in itertools.chain(*SPELLINGS.values()):
        of_a_year = [path for path in folders if re.fullmatch(rf"{name}20\d\d", path.name.lower())]
        if len(of_a_year) == 1:
            there.setdefault(name, of_a_year[0])
    found = {split: next((there[name] for name in names if name in there), None) for split, names in SPELLINGS.items()}
    return {split: path for split, path in found.items() if path is not None}


def image_folders(folder: Path) -> Iterator[dict[str, Path]]:
    """Split → folder of its images, most likely first: `train/`, `images/train/` or `images/`, the folder; see `WHOLE`.

    A later candidate counts only if no image of an earlier one is annotated, for example if only images beside `test/`
    are.
    """
    splits = split_folders(folder)
    if splits:
        yield splits
    there = folder_listings().folders(folder)
    inner = next((there[name] for name in IMAGE_FOLDERS if name in there), None)
    if inner:
        yield split_folders(inner) or {WHOLE: inner}
    yield {WHOLE: folder}


def note_unread(places: Mapping[str, Path]) -> None:
    """Prints a note if a folder of images has other folders or images beside the splits, which are not read."""
    inner = {place.parent for place in places.values() if place.parent.name.lower() in IMAGE_FOLDERS}
    for folder in inner:
        beside = [path.name for path in folders_in(folder) if path not in places.values()]
        beside += sorted(name for name in folder_listings().names(folder) if name.lower().endswith(SUFFIXES))
        if beside:
            more = f" and {len(beside) - 1:,} more" if len(beside) > 1 else ""
            splits = " and ".join(sorted(place.name for place in places.values()))
            verb, them = ("is", "it") if len(places) == 1 else ("are", "them")
            notice(f"{folder}: {splits} {verb} read, but not {beside[0]}{more} beside {them}")


def images_below(folder: Path) -> list[Path]:
    """The images of a split, sorted: those in `images/` or a similar folder if there is one, otherwise all below it."""
    kept = folder_listings()
    if folder not in kept.images_below:
        place = next((path for path in folders_in(folder) if path.name.lower() in IMAGE_FOLDERS), folder)
        source = open_folder(place)
        kept.images_below[folder] = [] if source is None else [place / key for key in source.keys]
    return kept.images_below[folder]


class AnnotationFolder(NamedTuple):
    """The place of the annotation files for the images of one folder."""

    path: Path
    shared: bool
    """Whether images of other folders may have their annotation files there, too."""


def annotation_folder(
    images: Sequence[Path], names: Sequence[str], suffix: str, listings: FolderListings, instead: Sequence[Path] = ()
) -> AnnotationFolder | None:
    """The folder with the annotation files for the images of one folder; None when no image has one.

    It is the images' own folder, or one with a name in `names` that mirrors their folder or is beside or inside it.
    `instead`: see `corresponding_folders`.
    """
    folders = instead or [images[0].parent]
    candidates = [one for folder in folders for one in _candidates(folder, names, listings)]
    for candidate in sorted(candidates, key=lambda one: one.shared):
        stems = {name[: -len(suffix)] for name in listings.names(candidate.path) if name.lower().endswith(suffix)}
        if stems and any(form in stems for image in images for form in normal_forms(image.stem)):
            return candidate
    return None


def corresponding_folders(folder: Path, root: Path, images: Path | None) -> list[Path]:
    """The folders of a dataset that may correspond to a folder below `images`, if its images are elsewhere."""
    if images is None or not folder.is_relative_to(images):
        return []
    inside = folder.relative_to(images)
    return [root / IMAGE_FOLDERS[0] / inside, root / inside]


def same_named_images(folders: Iterable[tuple[Sequence[Path], AnnotationFolder | None]]) -> dict[Path, list[Path]]:
    """Images with equal names in several folders that share a folder of annotation files: image → all with its name.

    `folders`: for each folder of all splits, its images and the folder of their annotation files.
    """
    sharing: dict[Path, dict[Path, list[Path]]] = {}
    for images, place in folders:
        if place is not None:
            sharing.setdefault(place.path.resolve(), {}).setdefault(images[0].parent.resolve(), []).extend(images)
    found: dict[Path, list[Path]] = {}
    for by_place in sharing.values():
        if len(by_place) > 1:
            found |= _repeated_names(by_place)
    return found


def _repeated_names(folders: Mapping[Path, Sequence[Path]]) -> dict[Path, list[Path]]:
    """Images with equal names, however accents are encoded, in several of these folders."""
    claims: dict[str, dict[Path, list[Path]]] = {}
    for folder, images in folders.items():
        for image in images:
            claims.setdefault(composed(image.stem), {}).setdefault(folder, []).append(image)
    several = ([image for same in claim.values() for image in same] for claim in claims.values() if len(claim) > 1)
    return {image: same for same in several for image in same}


def by_folder(images: Sequence[Path]) -> dict[Path, list[Path]]:
    """The images of each folder, in their order."""
    folders: dict[Path, list[Path]] = {}
    for image in images:
        folders.setdefault(image.parent, []).append(image)
    return folders


def _candidates(folder: Path, names: Sequence[str], listings: FolderListings) -> Iterator[AnnotationFolder]:
    """Mirrored (`labels/train/` for `images/train/`), beside the images, in a folder there, or flat (`labels/`)."""
    parts = folder.parts
    places = [place for place in range(len(parts) - 1, 0, -1) if parts[place].lower() in IMAGE_FOLDERS]
    above = [(Path(*parts[:place]), parts[place + 1 :]) for place in places]
    for root, rest in [*above, (folder.parent, (folder.name,))]:
        yield from (AnnotationFolder(path.joinpath(*rest), False) for path in _named(root, names, listings))
    for path in [folder, *_named(folder, names, listings)]:
        yield AnnotationFolder(path, False)
    for root in [*(root for root, _ in above), folder.parent]:
        yield from (AnnotationFolder(path, True) for path in _named(root, names, listings))


def _named(root: Path, names: Sequence[str], listings: FolderListings) -> list[Path]:
    folders = listings.folders(root)
    return [folders[name] for name in names if name in folders]
