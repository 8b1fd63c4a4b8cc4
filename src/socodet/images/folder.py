"""Image files: those below a folder, or those that a list names."""

import errno
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.names import Names
from socodet.images.reading import LARGEST_FILE
from socodet.images.suffixes import SUFFIXES, UNREAD, Skipped
from socodet.runtime.files import read_file
from socodet.runtime.notices import notice

LOOKED_FOR = 16
"""How many of a list's images are looked for before the list is believed."""
VOC_IMAGES = "JPEGImages"
_OF_SYSTEMS = frozenset(("@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information", "__macosx"))
"""Folders of file systems and network drives, in lower case: thumbnails, deleted files, what nobody may list."""
_STUDY = {"asked", "jobs"}
_NOTES = {
    "run.json": {"recipe", "versions"},
    "predict.json": {"detector", "images", "settings"},
    "comparison.json": _STUDY,
    "ablation.json": _STUDY,
    "own_data.json": _STUDY,
}
"""Files that identify folders written by socodet, and what each contains at least."""
_LARGEST_NOTE = 2**24
_MASKS = frozenset(
    "mask masks annotation annotations label labels seg segmentation segmentations segmentationclass "  # noqa: SIM905
    "segmentationobject trimaps gt groundtruth ground_truth".split()
)
"""Folders whose images are often masks of other images, in lower case."""


@dataclass(frozen=True)
class ImageFolder:
    """Image files below a folder, or that a file names, in its order."""

    root: Path
    """The folder that relative names start from."""
    keys: Sequence[str]
    """Paths relative to `root`, with forward slashes; those of a list may be absolute."""
    named_in: Path | None = None
    """The file that names them, or a pattern that they match."""
    ids: NDArray[np.int64] | Sequence[str] | None = None
    """Their ids in that file, if it is a COCO file."""

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """The path of image `index`, without `./` and the like."""
        return self.keys[index]

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        return self.root / self.keys[index]

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return read_file(self.path(index), LARGEST_FILE)

    @property
    def location(self) -> str:
        """The file or pattern that names the images, or else the folder, as it was given."""
        return str(self.named_in or self.root)


def open_files(paths: Sequence[Path]) -> ImageFolder:
    """The image files of these paths, in their order, below the folder that holds all of them.

    A missing file is noticed when it is read; InputError when none of the first is there, one occurs twice, or none is
    given.
    """
    if not paths:
        raise InputError("images: the list is empty; give paths of image files")
    absolute = [os.path.abspath(path) for path in paths]
    if len(set(absolute)) < len(absolute):
        twice = next(path for path, count in Counter(absolute).items() if count > 1)
        raise InputError(f"{twice}: is in the list twice; name each image once")
    first = next((path for path in absolute[:LOOKED_FOR] if not os.path.isfile(path)), None)
    if first is not None and not any(map(os.path.isfile, absolute[:LOOKED_FOR])):
        raise InputError(f"{first}: no such image file; a list holds paths of image files")
    root = Path(os.path.commonpath([os.path.dirname(path) for path in absolute]))
    return ImageFolder(root, Names([Path(path).relative_to(root).as_posix() for path in absolute]))


def open_folder(root: Path) -> ImageFolder | None:
    """All images below a folder, sorted: files that end in one of `SUFFIXES` in any case, in nested folders too.

    Names that start with a dot, folders of the system and, below `root`, folders with socodet's results are skipped.
    Links are followed, except a link back to a folder that it is in. If a folder contains a folder `JPEGImages`, only
    that one is read: it is a year of Pascal VOC, whose other folders hold segmentation maps, not photographs.

    Files that may be images but have another suffix are counted on stderr. None when there is nothing like an image;
    InputError when a folder cannot be listed, or has hardly any images among many other files.
    """
    skipped = Skipped()
    try:
        keys = sorted(_image_paths(str(root), "", frozenset(), skipped))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable") from None
    skipped.report_results(str(root))
    if keys or any(ending in UNREAD for ending in skipped.endings):
        skipped.report(str(root), len(keys))
    _note_masks(root, keys)
    if not keys:
        return None
    return ImageFolder(root, Names(keys))


def _note_masks(root: Path, keys: Sequence[str]) -> None:
    """A note if images seem to be masks of others: lossless, in a folder of such a name, most named like others."""
    lossless = [key for key in keys if key.lower().endswith((".png", ".gif", ".tif", ".tiff", ".bmp"))]
    marked = [key for key in lossless if not _MASKS.isdisjoint(key.lower().split("/")[:-1])]
    if not marked:
        return
    others = {_stem(key) for key in set(keys).difference(marked)}
    masks = [key for key in marked if _stem(key) in others]
    if len(masks) > len(marked) / 2:
        notice(
            f"{root}: {len(masks):,} of its {len(keys):,} images seem to be masks of others (first: {masks[0]}), and "
            "are read too; to leave them out, give the folder of the other images, or a text file that lists those"
        )


def _stem(key: str) -> str:
    """The name of an image, or of what it is a mask of."""
    return re.sub(r"[_-](masks?|seg\w*|gt|labels?)$", "", posixpath.splitext(posixpath.basename(key))[0])


def is_read_from(root: Path, path: Path) -> bool:
    """Whether an image file at `path`, there or not, is one of those that `open_folder` finds below `root`."""
    inside, folder = _below(path, root), Path(root)
    if inside is None or any(_is_hidden(part) for part in inside.parts):
        return False
    for number, part in enumerate(inside.parts):
        if part != VOC_IMAGES and (folder / VOC_IMAGES).is_dir():
            return False
        if number and folder.is_dir() and holds_results(str(folder), set(os.listdir(folder))):
            return False
        folder /= part
    return True


def _below(path: Path, root: Path) -> Path | None:
    """The path of a file within a folder, if the file, or what it links to, is in the folder."""
    real = Path(os.path.realpath(root))
    for place in (Path(os.path.realpath(path.parent), path.name), Path(os.path.realpath(path))):
        if place.is_relative_to(real):
            return place.relative_to(real)
    return None


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones; none where it cannot be listed."""
    try:
        with os.scandir(folder) as there:  # without a stat of every file, which takes minutes on a network drive
            return sorted(folder / one.name for one in there if not _is_hidden(one.name) and _is_folder(one))
    except OSError:
        return []


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_of_system(name)


def is_of_system(name: str) -> bool:
    """Whether a folder of this name is one of a file system or network drive, with nothing of the user's."""
    return name.lower() in _OF_SYSTEMS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link that leads in a circle, or to where nobody may look
        return entry.is_dir()
    return False


def _image_paths(folder: str, prefix: str, above: frozenset[str], skipped: Skipped) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as scanned:
        entries = [entry for entry in scanned if not _is_hidden(entry.name) and not _is_link_loop(entry)]
    if above and holds_results(folder, {entry.name for entry in entries}):
        skipped.results.append(prefix.rstrip("/"))
        return
    voc = [entry for entry in entries if entry.name == VOC_IMAGES and entry.is_dir()]
    for entry in voc or entries:
        if entry.is_dir():
            yield from _image_paths(entry.path, f"{prefix}{entry.name}/", above | {real}, skipped)
        elif entry.name.lower().endswith(SUFFIXES):
            if entry.is_file():
                yield prefix + entry.name
        else:
            skipped.add(prefix + entry.name)


def _is_link_loop(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link that leads to itself, which, like a broken one, is neither a file nor a folder."""
    try:
        entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return True
    return False


def holds_results(folder: str, names: set[str]) -> bool:
    """Whether socodet wrote the folder: its drawings, figures and logs are not images to read."""
    for note in _NOTES.keys() & names:
        with suppress(OSError, ValueError, RecursionError):
            noted = json.loads(read_file(Path(folder, note), _LARGEST_NOTE))
            if isinstance(noted, dict) and _NOTES[note] <= noted.keys():
                return True
    return False
