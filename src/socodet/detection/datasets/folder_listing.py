"""Finds files from one listing of each folder, because checking 100,000 files one by one takes minutes on a network."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from socodet.images.folder import folders_in
from socodet.images.spelling import normal_forms, spellings
from socodet.images.suffixes import SUFFIXES

OF_MACOS = "._"
"""Prefix of files that macOS writes beside others on foreign disks; they are never annotations."""


class FolderListings:
    """Answers whether files exist, and which image has a given name without suffix."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}
        self._images: dict[Path, dict[str, str]] = {}
        self._in_small: dict[Path, dict[str, str]] = {}
        self._folders: dict[Path, dict[str, Path]] = {}
        self.images_below: dict[Path, list[Path]] = {}
        """Cache of `splits.images_below`."""
        self.classes: dict[tuple[Path, ...], list[str]] = {}
        """Cache of `voc.classes_of`, by XML files."""
        self.cvat: dict[Path, ElementTree.Element] = {}
        """Cache of the roots of CVAT's XML files."""

    def __contains__(self, file: Path) -> bool:
        return file.name in self.names(file.parent)

    def image(self, folder: Path, stem: str) -> Path | None:
        """The image with this stem in a folder, with any of `SUFFIXES` in any case; the first if there are several.

        The stem may begin with subfolders.
        """
        inside, _, stem = stem.rpartition("/")
        if inside.startswith("/") or ".." in inside.split("/"):
            return None
        folder = folder / inside
        if folder not in self._images:
            found: dict[str, str] = {}
            for suffix in reversed(SUFFIXES):
                names = (name for name in self.names(folder) if name.lower().endswith(suffix))
                found |= {name[: -len(suffix)]: name for name in sorted(names)}
            self._images[folder] = found
        there = self._images[folder]
        return next((folder / there[one] for one in normal_forms(stem) if one in there), None)

    def spelled(self, root: Path, name: str) -> Path | None:
        """The file with this name below a folder, otherwise one that differs only in spelling (`spellings`)."""
        path = root / name
        return path if path in self else next((path for one in spellings(name) if (path := root / one) in self), None)

    def file(self, folder: Path, stem: str, suffix: str) -> Path | None:
        """The file with this stem in a folder, with the suffix in any case."""
        there = self.names(folder)
        suffixes = (suffix, suffix.upper(), suffix.title())
        spelled = (form + end for form in normal_forms(stem) for end in suffixes)
        return next((folder / name for name in spelled if name in there), None)

    def find_ignoring_case(self, folder: Path, name: str) -> Path | None:
        """The file or folder with this path below a folder, in any case; an exact match is preferred."""
        if (folder / name).exists():
            return folder / name
        for part in name.split("/"):
            if folder not in self._in_small:
                self._in_small[folder] = {one.lower(): one for one in sorted(self.names(folder), reverse=True)}
            found = self._in_small[folder].get(part.lower())
            if found is None:
                return None
            folder = folder / found
        return folder

    def names(self, folder: Path) -> frozenset[str]:
        """The names in a folder; none if it does not exist."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except (OSError, ValueError):  # ValueError: a name that no folder can have
                self._names[folder] = frozenset()
        return self._names[folder]

    def folders(self, folder: Path) -> dict[str, Path]:
        """The subfolders as in `folders_in`, by their names in lower case."""
        if folder not in self._folders:
            self._folders[folder] = {path.name.lower(): path for path in folders_in(folder)}
        return self._folders[folder]


_reused: ContextVar[FolderListings | None] = ContextVar("files there", default=None)


@contextmanager
def reuse_folder_listings() -> Iterator[None]:
    """In this context, `folder_listings` reuses listings, since all layouts and splits look into the same folders."""
    if _reused.get() is not None:
        yield
        return
    token = _reused.set(FolderListings())
    try:
        yield
    finally:
        _reused.reset(token)


def folder_listings() -> FolderListings:
    """The listings of the innermost `reuse_folder_listings`, or new ones."""
    return _reused.get() or FolderListings()
