"""Image files: those below a folder."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from socodet.errors import InputError
from socodet.images.names import Names
from socodet.images.reading import LARGEST_FILE
from socodet.images.suffixes import SUFFIXES, UNREAD, Skipped
from socodet.runtime.files import read_file

VOC_IMAGES = "JPEGImages"


@dataclass(frozen=True)
class ImageFolder:
    """Image files below a folder."""

    root: Path
    keys: Sequence[str]
    """Paths relative to `root`, with forward slashes."""

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """The path of image `index` relative to the folder, with forward slashes."""
        return self.keys[index]

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return read_file(self.root / self.keys[index], LARGEST_FILE)

    @property
    def location(self) -> str:
        """The folder, as it was given."""
        return str(self.root)


def open_folder(root: Path) -> ImageFolder | None:
    """All images below a folder, sorted: files that end in one of `SUFFIXES` in any case, in nested folders too.

    What starts with a dot is skipped. Links are followed, but not one that leads back to a folder it is in.
    Of a folder that has a folder `JPEGImages` in it, only that one counts: it is a year of Pascal VOC, whose
    other folders hold segmentation maps, which are no photographs.

    Files that may be images but have another suffix are counted on stderr. None when there is nothing like an image;
    InputError when a folder cannot be listed, or has hardly any images among many other files.
    """
    skipped = Skipped()
    try:
        keys = sorted(_image_paths(str(root), "", frozenset(), skipped))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable") from None
    if not keys:
        if any(ending in UNREAD for ending in skipped.endings):
            skipped.say(str(root), 0)
        return None
    skipped.say(str(root), len(keys))
    return ImageFolder(root, Names(keys))


def _image_paths(folder: str, prefix: str, above: frozenset[str], skipped: Skipped) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as scanned:
        entries = [entry for entry in scanned if not entry.name.startswith(".")]
    voc = [entry for entry in entries if entry.name == VOC_IMAGES and entry.is_dir()]
    for entry in voc or entries:
        if entry.is_dir():
            yield from _image_paths(entry.path, f"{prefix}{entry.name}/", above | {real}, skipped)
        elif entry.name.lower().endswith(SUFFIXES):
            if entry.is_file():
                yield prefix + entry.name
        else:
            skipped.add(prefix + entry.name)
