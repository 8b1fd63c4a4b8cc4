"""Finds annotation files, one per image: beside their images, or in a folder like `annotations/` beside `images/`."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from socodet.detection.datasets.folder_listing import OF_MACOS, FolderListings, folder_listings
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.splits import (
    SPELLINGS,
    WHOLE,
    AnnotationFolder,
    annotation_folder,
    by_folder,
    corresponding_folders,
    images_below,
    same_named_images,
)
from socodet.images.spelling import composed
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.notices import notice

LISTS = "[Ii]mage[Ss]ets/**/*.txt"
"""Lists of images, which count only in VOC's layout and in `ImageSets/Main`."""
LOOKED_AT = 16
"""Number of files that are tried before concluding that they are not annotations."""


class ImageFile(NamedTuple):
    """An image and its annotation file."""

    image_id: str
    image: Path
    path: Path
    """The annotation file."""
    beside: Collection[str] = ()
    """Stems of all images in its folder; the annotation file may name another one of these."""

    def count_other_name(self, named: str, problems: AnnotationProblems) -> None:
        """Counts a problem if the file names an image of the folder other than the one it is named after."""
        stem = composed(Path(named).stem)
        if stem != composed(self.image.stem) and stem in self.beside:
            problems.add(Problem.OTHER_FILE_NAME, f"{self.path}: {named}")


@dataclass(frozen=True)
class FileFormat:
    """How to recognise annotation files of one format, and which image each belongs to."""

    suffix: str
    folders: tuple[str, ...]
    """Names of folders that may hold them, in any case."""
    is_one: Callable[[Path], bool]
    """Whether a file has this format."""
    named_in: Callable[[Path], tuple[str, str]]
    """The names of the image and of its folder that a file gives; empty if it does not."""


@dataclass(frozen=True)
class PerImageDataset:
    """A dataset with one annotation file per image, and its splits."""

    form: FileFormat
    root: Path
    splits: Mapping[str, Path]
    """The folder of each split's images."""
    images: Path | None = None
    """The folder of the images, if not that of the dataset."""

    def folders(self, split: str, listings: FolderListings) -> Iterator[tuple[Sequence[Path], AnnotationFolder | None]]:
        """The images of each folder of a split, and the place of their annotation files."""
        for images in by_folder(images_below(self.splits[split])).values():
            places = corresponding_folders(images[0].parent, self.root, self.images)
            mirrored = AnnotationFolder(places[-1], False) if places else None
            yield images, annotation_folder(images, self.form.folders, self.form.suffix, listings, places) or mirrored


def find_dataset(
    folder: Path, form: FileFormat, places: Mapping[str, Path], images: Path | None = None
) -> PerImageDataset | None:
    """The dataset in a folder; None if no image has a file of this format.

    `places`: for each split, the folder that may hold its images. `images`: the folder of the images, if elsewhere.
    """
    root = folder.absolute()
    found = PerImageDataset(form, root, places, images.absolute() if images else None)
    listings = folder_listings()
    splits = {split: place for split, place in found.splits.items() if _has_annotations(found, split, listings)}
    lists = [*(root / f"{name}.txt" for name in itertools.chain(*SPELLINGS.values())), *root.glob(LISTS)]
    unread = next((file for file in lists if file.is_file() and file.stat().st_size), None)
    if tuple(splits) == (WHOLE,) and unread:
        notice(
            f"{unread}: is ignored, and all images are read; to split them by lists, use VOC's layout, with the "
            "lists in ImageSets/Main"
        )
    return replace(found, splits=splits) if splits else None


def files_by_split(described: PerImageDataset, split: str, problems: AnnotationProblems) -> dict[str, list[ImageFile]]:
    """The images of every split with their annotation files; counts the problems of `split` only.

    A file belongs to the image with the same name, otherwise to the image named in it. If several folders have an image
    with that name, it belongs to the one in the folder named in the file.
    """
    listings = folder_listings()
    files: dict[str, list[ImageFile]] = {one: [] for one in described.splits}
    folders = {one: list(described.folders(one, listings)) for one in described.splits}
    ambiguous = same_named_images(itertools.chain(*folders.values()))
    for one in described.splits:
        counted = problems if one == split else AnnotationProblems()
        for images, place in folders[one]:
            for file in _pairs(described, images, place, listings, counted):
                if _is_its_own(described.form, file, ambiguous.get(file.image, ()), counted):
                    files[one].append(file)
    return files


def _has_annotations(described: PerImageDataset, split: str, listings: FolderListings) -> bool:
    """Whether any file named like an image of the split has this format."""
    form = described.form
    for images, place in described.folders(split, listings):
        files = (listings.file(place.path, image.stem, form.suffix) for image in images) if place else ()
        if any(form.is_one(file) for file in itertools.islice(filter(None, files), LOOKED_AT)):
            return True
    return False


def _pairs(
    described: PerImageDataset,
    images: Sequence[Path],
    place: AnnotationFolder | None,
    listings: FolderListings,
    problems: AnnotationProblems,
) -> Iterator[ImageFile]:
    """The images of one folder with their files, in order; counts images without a file and files without an image."""
    form = described.form
    names = listings.names(place.path) if place else frozenset()
    files = sorted(name for name in names if name.lower().endswith(form.suffix) and not name.startswith(OF_MACOS))
    file_of = {composed(name[: -len(form.suffix)]): place.path / name for name in files} if place else {}
    of_stem: dict[str, list[Path]] = {}
    for image in images:
        of_stem.setdefault(composed(image.stem), []).append(image)
    chosen = {_first(same): file_of[stem] for stem, same in of_stem.items() if stem in file_of}
    by_name = {composed(image.name): image for image in images} | {
        stem: same[0] for stem, same in of_stem.items() if len(same) == 1
    }
    for stem, file in file_of.items():
        if stem in of_stem or (place and place.shared):
            continue
        named = composed(form.named_in(file)[0])
        found = by_name.get(named) or by_name.get(Path(named).stem) or by_name.get(unquote(named))
        if found is None or found in chosen:
            problems.add(Problem.NO_IMAGE_FOR_LABELS, str(file))
        else:
            chosen[found] = file
    stems = frozenset(of_stem)
    for image in images:
        if image in chosen:
            inside = image.relative_to(described.images or described.root).with_suffix("").as_posix()
            yield ImageFile(inside, image, chosen[image], stems)
        else:
            problems.add(Problem.NO_ANNOTATION_FILE, str(image))


def _is_its_own(form: FileFormat, file: ImageFile, same: Sequence[Path], problems: AnnotationProblems) -> bool:
    """Whether a file belongs to its image, not to another one with the same name (`same`); counts a problem if not."""
    if not same:
        return True
    named = form.named_in(file.path)[1].lower()
    folders = {image.parent for image in same if image.parent.name.lower() == named}
    if len(folders) == 1 and file.image.parent not in folders:
        problems.add(Problem.NO_ANNOTATION_FILE, str(file.image))
    elif len(folders) != 1:
        problems.add(Problem.SHARED_ANNOTATION_FILE, f"{file.path} for {' and '.join(map(str, same))}")
    return folders == {file.image.parent}


def _first(same: Sequence[Path]) -> Path:
    """The one among images that differ only in their suffix whose suffix comes first in `SUFFIXES`."""
    return min(same, key=lambda image: SUFFIXES.index(image.suffix.lower()))
