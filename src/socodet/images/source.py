"""Where pictures come from: anything with a length, a unique key a picture, and its bytes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from socodet.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


class ImageSource(Protocol):
    """A fixed sequence of encoded images. Must be cheap to hand to data workers."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """The name of image `index`: unique, and the same wherever the source is opened."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded bytes of image `index`; OSError when they cannot be had."""
        ...

    @property
    def location(self) -> str:
        """Where this is, as shown to users."""
        ...


@dataclass(frozen=True)
class ImageFolder:
    """The image files below a folder; see `open_images`."""

    root: Path
    keys: tuple[str, ...]
    """POSIX paths relative to `root`, sorted."""

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """The path of image `index` relative to the folder, with forward slashes."""
        return self.keys[index]

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return (self.root / self.keys[index]).read_bytes()

    @property
    def location(self) -> str:
        """The folder, as it was given."""
        return str(self.root)


def open_images(path: str | Path) -> ImageSource:
    """All images below a folder: files that end in one of `SUFFIXES` in any case, in nested folders too.

    What starts with a dot is skipped. Links are followed, but not one that leads back to a folder it is in.
    InputError when there is no such folder, when one cannot be listed, or when no image is found.
    """
    root = Path(path)
    if root.is_file():
        raise InputError(f"{root}: is a file; give the folder that holds the images")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that holds the images")
    try:
        keys = sorted(_image_paths(str(root), "", frozenset()))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable") from None
    if not keys:
        raise InputError(f"{root}: no image in it or below it; images end in {' '.join(SUFFIXES)}")
    return ImageFolder(root, tuple(keys))


def _image_paths(folder: str, prefix: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _image_paths(entry.path, f"{prefix}{entry.name}/", above | {real})
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                yield prefix + entry.name
