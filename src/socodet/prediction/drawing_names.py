"""How the drawings of images are named: each differently, however alike the names of the images are."""

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from socodet.images.names import inner_path
from socodet.images.source import ImageSource

LONGEST_NAME = 255
"""Maximum length of a file name in bytes."""
DIGITS = 16
"""Length of the hash that sets apart two drawings of one name."""


class DrawingNames:
    """The paths of an output's drawings within their folder.

    A drawing is called like its image, with .jpg added unless that is how it ends. If an earlier image has that name,
    as a.png has that of a.png.jpg, or a folder has, a hash of the image's own name is added too.
    """

    def __init__(self, source: ImageSource, left: Collection[int], apart: Mapping[str, str]) -> None:
        """left: indices of the images still to be drawn; apart: the other images' drawings with a hash, by key."""
        self.apart = dict(apart)
        """Key → name of each drawing that is not called like its image."""
        waiting = set(left)
        folders: set[str] = set()
        taken: set[str] = set()
        for index in range(len(source)):
            name = self.of(source.key(index))
            folders.update(map(str, PurePosixPath(name).parents))
            if index not in waiting:
                taken.add(name)
        for index in sorted(waiting):
            key = source.key(index)
            name = _usual(key)
            if name in taken or name in folders:
                name = self.apart[key] = _with_hash(key)
            taken.add(name)

    def of(self, key: str) -> str:
        """The path of an image's drawing; never outside the folder."""
        return self.apart.get(key) or _usual(key)


def _usual(key: str) -> str:
    path = PurePosixPath(inner_path(key) or "image")
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        longer = path.with_name(f"{path.name}.jpg")
        path = longer if _fits(longer) else path.with_suffix(".jpg")
    return str(path) if _fits(path) else _with_hash(key)


def _fits(path: PurePosixPath) -> bool:
    return len(os.fsencode(path.name)) <= LONGEST_NAME


def _with_hash(key: str) -> str:
    path = PurePosixPath(inner_path(key) or "image")
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:DIGITS]
    stem = os.fsencode(path.stem)[: LONGEST_NAME - DIGITS - len("..jpg")].decode(errors="ignore")
    return str(path.with_name(f"{stem}.{digest}.jpg"))
