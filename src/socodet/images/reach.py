"""Which images a dataset's file may name: those of its own folders, and others only where the user trusts it."""

import os
import posixpath
from pathlib import Path

from socodet.images.reading import requested_reading
from socodet.images.spelling import spellings
from socodet.images.suffixes import SUFFIXES


def points_outside(name: str, file: Path, root: Path, *, anywhere: bool = False) -> bool:
    """Whether a name in a dataset's file leads to something that exists and is not the dataset's.

    Datasets name images below `root`, where their names begin, beside it, or by their place on this machine. What is
    not below `root` must be within reach of the file, unless `anywhere`, and have the name of an image. The suffix on
    disk may be spelled differently from the name's.
    """
    path = posixpath.normpath(name)
    if not path.startswith(("/", "..")):
        return False
    start = root if path.startswith("/") else Path(os.path.realpath(root))  # `..` leads out of what a link leads to
    place = Path(os.path.abspath(start / path))
    if not any(os.path.lexists(one) for one in spellings(str(place))):
        return False
    near = (
        anywhere
        or place.is_relative_to(root.absolute())
        or is_within_reach(place, file)
        or place.is_relative_to(os.path.realpath(root))
    )
    return not (near and path.lower().endswith(SUFFIXES))


def is_within_reach(place: Path, file: Path) -> bool:
    """Whether what a file names lies below the folder above its own; with --outside-images, everything counts."""
    if requested_reading().settings.outside_images:
        return True
    place, other = Path(os.path.abspath(place)), Path(os.path.abspath(file))
    if place.is_relative_to(_above(other.parent)):
        return True
    places, files = (place, Path(os.path.realpath(place))), (other, Path(os.path.realpath(file)))  # links too
    return any(one.is_relative_to(_above(other.parent)) for one in places for other in files)


def _above(folder: Path) -> Path:
    return folder.parent if len(folder.parts) > 2 else folder
