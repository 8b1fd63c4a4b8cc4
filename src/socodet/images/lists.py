"""Images named in a file: a text file of paths, or a COCO file."""

import codecs
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.folder import LOOKED_FOR, ImageFolder, folders_in
from socodet.images.names import Names
from socodet.images.reading import reading_asked
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.files import parse_json, read_given
from socodet.runtime.notices import notice

JPEG_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG")


def open_list(file: Path) -> ImageFolder:
    """The images that a text file names, one path a line, in its order.

    Paths are absolute or begin at the list's folder. Empty lines and lines that start with # are skipped.
    Whether each image is there shows when it is read; InputError when none of the first is, when a path occurs
    twice, or when nothing is listed.
    """
    names = [line for line in read_lines(file) if line and not line.startswith("#")]
    if not names:
        raise InputError(f"{file}: lists no image; write one path a line, relative to its folder")
    keys = _unique_keys(file, _as_the_files(file.parent, spelled_as_in(file.parent, names, file)))
    if not _holds_any(file.parent, keys):
        raise InputError(
            f"{file}: none of the first {len(keys[:LOOKED_FOR])} images it lists is there, first "
            f"{file.parent / keys[0]}; paths are absolute or begin at the list's folder"
        )
    return ImageFolder(file.parent, Names(keys), file)


def read_lines(file: Path) -> list[str]:
    """The lines of a text file without the space around them: UTF-8, or UTF-16 that begins with its mark.

    Bytes that are not UTF-8 are kept as file names keep them. InputError when the file cannot be read or is not text.
    """
    data = read_given(file)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16") if wide else os.fsdecode(data.removeprefix(codecs.BOM_UTF8))
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{file}: is not a text file; give a list in UTF-8, one name a line")
    return [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def open_coco(file: Path) -> ImageFolder:
    """The images of a COCO file, in its order; their `file_name`, as `locate_images` finds it, is the key.

    InputError when the file is not COCO's, when the images are nowhere, or in several such folders.
    """
    names, ids = _coco_images(file)
    root, keys = locate_images(file, names)
    astray = next((name for name, key in zip(names, keys, strict=True) if leads_astray(key, file, root)), None)
    if astray is not None:
        raise InputError(
            f"{file}: {astray} leads far away, or to no image; pass --outside-images if you trust that file, or take "
            "it out"
        )
    return ImageFolder(root, Names(_unique_keys(file, _as_the_files(root, keys))), file, ids)


def _coco_images(file: Path) -> tuple[list[str], NDArray[np.int64] | Names | None]:
    """Names and ids of a COCO file's images; no ids where one is missing or occurs twice, or some are not numbers."""
    content = parse_json(file, read_given(file), "give a COCO file")
    try:
        names: list[str] = [image["file_name"] for image in content["images"]]
    except (KeyError, TypeError):
        names = []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{file}: is not a COCO file; one has a list `images`, with a `file_name` for each image")
    ids = [image.get("id") for image in content["images"]]
    if len({*map(str, ids)}) == len(ids):
        if all(type(one) is int and abs(one) < 2**63 for one in ids):
            return names, np.array(ids, np.int64)
        if all(isinstance(one, str) for one in ids):
            return names, Names(ids)
    return names, None


def locate_images(file: Path, names: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder near a COCO file below which the images it names lie, and their paths from there.

    The names begin at the file's own folder if its first images are there; else at a folder that has them: one in
    the file's folder, or in its `images`; else one beside the file's folder, or in an `images` there (`train2017` or
    `images/train2017` next to `annotations/instances_train2017.json`). Where several equally near have them,
    at the one whose name is part of the file's name.

    Where no folder has them, names from another machine are tried: with backslashes as slashes, then without
    their leading folders, one after the other, then as URLs. InputError when the images are nowhere, or in several such
    folders.
    """
    for paths in _spellings(names):
        root = _nearby_root(file, paths)
        if root is not None:
            _say_other_names(file, names, paths)
            return root, paths
    raise InputError(
        f"{file}: its images are nowhere near, first {names[0]}; put the file into the folder where their names "
        "begin, or beside it"
    )


def spelled_as_in(folder: Path, names: Sequence[str], source: Path | None = None) -> list[str]:
    """The names as `locate_images` spells them, from a folder that is given; as they are where it has none of them.

    source: the file that has them, where it is to be said that they are spelled otherwise.
    """
    for paths in _spellings(names):
        if _holds_any(folder, paths):
            _say_other_names(source, names, paths)
            return paths
    return list(names)


def _as_the_files(root: Path, keys: list[str]) -> list[str]:
    """The keys, spelled as their files are where none of the first is there as it is written."""
    if any(os.path.isfile(root / key) for key in keys[:LOOKED_FOR]):
        return keys
    return [next((one for one in spellings(key) if os.path.isfile(root / one)), key) for key in keys]


def _say_other_names(source: Path | None, names: Sequence[str], paths: Sequence[str]) -> None:
    """Says it when names of another machine are taken without their leading folders."""
    changed = [k for k, name in enumerate(names) if posixpath.normpath(name) != paths[k]]
    if source is not None and changed:
        first = changed[0]
        notice(
            f"{source}: {len(changed):,} of its {len(names):,} names are of another machine and begin at another "
            f"folder here: {names[first]} is taken as {paths[first]}"
        )


def _spellings(names: Sequence[str]) -> Iterator[list[str]]:
    paths = [posixpath.normpath(name) for name in names]
    yield paths
    distinct = len(set(paths))
    decoded = [_decoded(name) for name in names]
    for written in (names, *([decoded] if decoded != list(names) else [])):
        parts = [posixpath.normpath(name.replace("\\", "/")).lstrip("/").split("/") for name in written]
        for dropped in range(max(map(len, parts))):
            shortened = ["/".join(path[min(dropped, len(path) - 1) :]) for path in parts]
            if len(set(shortened)) == distinct:  # else only their folders distinguish images
                yield shortened


def _decoded(name: str) -> str:
    """The path in a URL, without its query; `%20` is a space."""
    return unquote(re.sub(r"^\w+://[^/]*/|[?#].*", "", name) if "://" in name else name)


def _nearby_root(file: Path, keys: Sequence[str]) -> Path | None:
    """As `locate_images`, for one spelling; None when the images are nowhere."""
    here = file.parent
    if _holds_any(here, keys):
        return here
    above = here.resolve().parent  # `..` of a relative path would leave its name out
    found: dict[Path, Path] = {}
    for start in (here, above):  # what lies below the file's own folder is nearer than what lies beside it
        nearby = [*folders_in(start), *folders_in(start / "images"), *([above] if start == above else [])]
        found = found or {path.resolve(): path for path in nearby if _holds_any(path, keys)}
    if len(found) > 1:
        named = {real: path for real, path in found.items() if path.name in file.stem}
        found = named or found
    if len(found) > 1:
        one, other, *_ = sorted(map(str, found))
        raise InputError(
            f"{file}: its images may be those in {one} or in {other}; put the file into the folder where their "
            "names begin, or name that folder where a command takes --images"
        )
    return next(iter(found.values()), None)


def _holds_any(folder: Path, keys: Sequence[str]) -> bool:
    return any(os.path.isfile(folder / one) for key in keys[:LOOKED_FOR] for one in spellings(key))


def spellings(name: str) -> list[str]:
    """The name, and with its suffix in capitals or not, as the other ones of JPEG, and in its `normal_forms`."""
    found = []
    for form in normal_forms(name):
        stem, suffix = posixpath.splitext(form)
        small = suffix.lower()
        others = (small, small.upper(), *(JPEG_SUFFIXES if small in JPEG_SUFFIXES else ()))
        found += [form, *(stem + other for other in others)] if small in SUFFIXES else [form]
    return list(dict.fromkeys(found))


def composed(name: str) -> str:
    """The name with accents as parts of their letters (Unicode's NFC), to compare names by."""
    return unicodedata.normalize("NFC", name)


def normal_forms(name: str) -> list[str]:
    """The name, and the same text with accents as parts of their letters or apart, as in names that macOS wrote."""
    if name.isascii():
        return [name]
    return list(dict.fromkeys([name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]))


def leads_astray(name: str, file: Path, root: Path, *, anywhere: bool = False) -> bool:
    """Whether a name in a file of a set leads to what is there and not the set's.

    Sets name images below `root`, where their names begin, beside it, or by where they are on this machine. What is
    not below `root` must be `is_near` the file, unless `anywhere`, and have the name of an image. What is there may
    differ from the name in how its suffix is spelled.
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
        or is_near(place, file)
        or place.is_relative_to(os.path.realpath(root))
    )
    return not (near and path.lower().endswith(SUFFIXES))


def is_near(place: Path, file: Path) -> bool:
    """Whether what a file names lies in the folder above its own, or below; with --outside-images everything does."""
    if reading_asked().settings.outside_images:
        return True
    place, other = Path(os.path.abspath(place)), Path(os.path.abspath(file))
    if place.is_relative_to(_above(other.parent)):
        return True
    places, files = (place, Path(os.path.realpath(place))), (other, Path(os.path.realpath(file)))  # as links lead, too
    return any(one.is_relative_to(_above(other.parent)) for one in places for other in files)


def _above(folder: Path) -> Path:
    return folder.parent if len(folder.parts) > 2 else folder


def _unique_keys(file: Path, names: Iterable[str]) -> list[str]:
    keys = [posixpath.normpath(name) for name in names]
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise InputError(f"{file}: names {twice} twice; name each image once")
    return keys
