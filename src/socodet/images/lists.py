"""Images named in a file: a text file of paths, or a COCO file."""

import codecs
import itertools
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.folder import LOOKED_FOR, ImageFolder, folders_in
from socodet.images.names import Names, is_valid_file_name
from socodet.images.reach import points_outside
from socodet.images.spelling import IN_QUERY, composed, decode_url, name_before_upload, normal_forms, spellings
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.files import open_file, parse_json, read_user_file
from socodet.runtime.notices import notice

WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FOR_ANNOTATIONS = ("annotations", "annotation", "annots", "anns", "ann", "labels", "label", "json", "jsons", "coco")
"""Usual names of folders of annotation files whose images are beside them."""
BY_FLAG = "give their folder with --images, if the command has that flag"


def open_list(file: Path) -> ImageFolder:
    """The images that a text file names, one path per line, in its order.

    Paths are absolute or begin at the list's folder. Empty lines and lines that start with # are skipped.
    A missing image is noticed when it is read; InputError when none of the first is there, when a path occurs
    twice, or when nothing is listed.
    """
    if _looks_binary(file):
        raise _not_text(file)
    names = [line for line in read_lines(file) if line and not line.startswith("#")]
    if names and names[0].startswith("<"):
        raise InputError(f"{file}: is not a list of images but XML or HTML; give the folder of the images")
    if not names:
        raise InputError(f"{file}: lists no image; write one path per line, relative to its folder")
    keys = _unique_keys(file, _spelled_as_files(file.parent, spelled_as_in(file.parent, names, file)))
    if not _holds_any(file.parent, keys):
        raise InputError(
            f"{file}: none of the first {len(keys[:LOOKED_FOR])} images it lists is there, first "
            f"{file.parent / keys[0]}; paths are absolute or begin at the list's folder"
        )
    return ImageFolder(file.parent, Names(keys), file)


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, without surrounding space. InputError as for `read_text`."""
    return [line.strip() for line in read_text(file).split("\n")]


def read_text(file: Path) -> str:
    """A text file, UTF-8, or UTF-16 with its byte order mark, with line feeds between lines.

    Bytes that are not UTF-8 are kept as file names keep them. InputError when the file cannot be read or is not text.
    """
    data = read_user_file(file)
    try:
        text = data.decode("utf-16") if data.startswith(WIDE) else os.fsdecode(data.removeprefix(codecs.BOM_UTF8))
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise _not_text(file)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _not_text(file: Path) -> InputError:
    return InputError(f"{file}: is not a text file; give a list in UTF-8, one name per line")


def _looks_binary(file: Path) -> bool:
    """Whether it begins unlike text: an archive of all images, say, given for a list must not be read into memory."""
    with suppress(OSError), open_file(file) as stream:
        head = stream.read(4096)
        return b"\0" in head and not head.startswith(WIDE)
    return False


def open_coco(file: Path) -> ImageFolder:
    """The images of a COCO file, in its order; their `file_name`, as `locate_images` finds it, is the key.

    InputError when it is not a COCO file, or when the images are nowhere or in several such folders.
    """
    names, ids = _coco_images(file)
    root, keys = locate_images(file, names, otherwise="give their folder instead of this file")
    astray = next((name for name, key in zip(names, keys, strict=True) if points_outside(key, file, root)), None)
    if astray is not None:
        raise InputError(
            f"{file}: {astray} leads far away, or to no image; pass --outside-images if you trust that file, or take "
            "it out"
        )
    return ImageFolder(root, Names(_unique_keys(file, _spelled_as_files(root, keys))), file, ids)


def _coco_images(file: Path) -> tuple[list[str], NDArray[np.int64] | Names | None]:
    """Names and ids of a COCO file's images; no ids where one is missing or occurs twice, or some are not numbers."""
    content = parse_json(file, read_user_file(file), "give a COCO file")
    try:
        names: list[str] = [image["file_name"] for image in content["images"]]
    except (KeyError, TypeError):
        names = []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{file}: is not a COCO file; one has a list `images`, with a `file_name` for each image")
    wrong = next((name for name in names if not is_valid_file_name(name)), None)
    if wrong is not None:
        raise InputError(f"{file}: names an image {wrong!r}, as no file can be called; correct the name")
    ids = [image.get("id") for image in content["images"]]
    if len({*map(str, ids)}) == len(ids):
        if all(type(one) is int and abs(one) < 2**63 for one in ids):
            return names, np.array(ids, np.int64)
        if all(isinstance(one, str) for one in ids):
            return names, Names(ids)
    return names, None


def locate_images(
    file: Path, names: Sequence[str], otherwise: str = BY_FLAG, *, show_note: bool = True
) -> tuple[Path, list[str]]:
    """The folder near a COCO file that holds the images it names, and their paths from there.

    The names begin at the file's own folder if its first images are there; else at a folder that has them: one in
    the file's folder, or in its `images`; else one beside the file's folder, or in an `images` there (`train2017` or
    `images/train2017` next to `annotations/instances_train2017.json`). Of several equally near, it is the one whose
    name is part of the file's name, or else the one that has every image that any of them has.

    If no folder has them, names from another machine are tried: with backslashes as slashes, then without their
    leading folders, dropped one by one, then as URLs, then as before an upload to Label Studio. If none of the first
    images is found, other images are looked for whose names occur in these folders. A note says that names were
    changed. InputError when the images are nowhere, or in several such folders.
    """
    for looked_for in _indices_to_check(names, lambda: folders_near(file)):
        for paths in _spellings(names):
            root = _nearby_root(file, [paths[place] for place in looked_for], otherwise)
            if root is not None:
                if looked_for[0] >= LOOKED_FOR:
                    notice(f"{file}: its first {LOOKED_FOR} images were not found; those in {root} are read")
                elif _may_be_of_others(root / paths[looked_for[0]], file):
                    notice(f"{file}: its images are not below its folder; those in {root} are read")
                return root, _resolve_url_names(file if show_note else None, root, names, paths)
    below = [file.parent, *next(_below_and_beside(file))]
    there = (folder / name for folder in below for name in sorted(names_in(folder)))
    other = next((one for one in there if one.name.lower().endswith(SUFFIXES)), None)
    others = "" if other is None else f" (those there, such as {other}, have other names: were they renamed?)"
    raise InputError(
        f"{file}: none of its images, such as {names[0]}, is in its folder or near it{others}; put the file beside its "
        f"images, or {otherwise}"
    )


def _indices_to_check(names: Sequence[str], folders: Callable[[], Iterable[Path]]) -> Iterator[list[int]]:
    """Numbers of images to look for: first those of the first images, then of some whose names are in these folders."""
    yield list(range(min(len(names), LOOKED_FOR)))
    there = {composed(name) for folder in folders() for name in names_in(folder)}
    ends = (re.split(r"[/\\]", name)[-1] for name in names)
    found = (place for place, end in enumerate(ends) if composed(end) in there or composed(decode_url(end)) in there)
    others = list(itertools.islice(found, LOOKED_FOR))
    if others:
        yield others


def names_in(folder: Path) -> list[str]:
    """The names in a folder; none where it cannot be listed."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def spelled_as_in(folder: Path, names: Sequence[str], source: Path | None = None) -> list[str]:
    """The names as `locate_images` spells them, from a given folder; unchanged if it has none of them.

    source: the file that names them, for a note if they are spelled otherwise.
    """
    for looked_for in _indices_to_check(names, lambda: [folder]):
        for paths in _spellings(names):
            if _holds_any(folder, [paths[place] for place in looked_for]):
                return _resolve_url_names(source, folder, names, paths)
    return list(names)


def _resolve_url_names(source: Path | None, root: Path, names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The paths, with `%20` and the like decoded where only the decoded name is a file's; a note says so."""
    found = list(paths)
    for place, path in enumerate(paths):
        other = posixpath.normpath(decode_url(path)) if "%" in path or "?" in path else path
        if other != path and not _holds_any(root, [path]) and _holds_any(root, [other]):
            found[place] = other
    _note_changed_names(source, names, found)
    return found


def _spelled_as_files(root: Path, keys: list[str]) -> list[str]:
    """The keys, spelled as their files are, if none of the first is there as it is written.

    Names with accents, which another system may have written in another form, are checked separately.
    """
    accented = [len(normal_forms(key)) > 1 for key in keys]
    found = list(keys)
    for kind in (False, True):
        places = [place for place, one in enumerate(accented) if one is kind]
        if not any(os.path.isfile(root / keys[place]) for place in places[:LOOKED_FOR]):
            for place in places:
                spelled = (one for one in spellings(keys[place]) if os.path.isfile(root / one))
                found[place] = next(spelled, keys[place])
    return found


def _note_changed_names(source: Path | None, names: Sequence[str], paths: Sequence[str]) -> None:
    """Notes that names from another machine are read without their leading folders."""
    changed = [k for k, name in enumerate(names) if posixpath.normpath(name) != paths[k]]
    if source is not None and changed:
        first = changed[0]
        notice(
            f"{source}: {len(changed):,} of its {len(names):,} images are named by URLs or paths on another machine: "
            f"{names[first]} is read as {paths[first]}"
        )


def _spellings(names: Sequence[str]) -> Iterator[list[str]]:
    paths = [posixpath.normpath(name) for name in names]
    yield paths
    distinct = len(set(paths))
    by_url = [decode_url(name) for name in names]
    forms = [names, *([by_url] if by_url != list(names) else [])]
    for written in forms[::-1] if any(IN_QUERY in name for name in names) else forms:
        parts = [posixpath.normpath(name.replace("\\", "/")).lstrip("/").split("/") for name in written]
        for dropped in range(max(map(len, parts))):
            shortened = ["/".join(path[min(dropped, len(path) - 1) :]) for path in parts]
            if len(set(shortened)) == distinct:  # else only their folders distinguish images
                yield shortened
    uploaded = [posixpath.normpath(name_before_upload(name)) for name in by_url]
    if uploaded != [posixpath.normpath(name) for name in by_url] and len(set(uploaded)) == distinct:
        yield uploaded


def _nearby_root(file: Path, keys: Sequence[str], otherwise: str) -> Path | None:
    """As `locate_images`, for one spelling; None when the images are nowhere."""
    if _holds_any(file.parent, keys):
        return file.parent
    found: Mapping[Path, Path] = {}
    for nearby in _below_and_beside(file):
        found = found or {path.resolve(): path for path in nearby if _holds_any(path, keys)}
    if len(found) > 1:
        named = {real: path for real, path in found.items() if path.name in file.stem}
        found = named or _most_complete(found, keys)
    if len(found) > 1:
        one, other, *_ = sorted(map(str, found))
        raise InputError(
            f"{file}: its images may be those in {one} or in {other}; put the file into the folder where their "
            f"names begin, or {otherwise}"
        )
    return next(iter(found.values()), None)


def _may_be_of_others(image: Path, file: Path) -> bool:
    """Whether images beside a file's folder may belong to another dataset: it is no folder for annotations only."""
    folder = file.absolute().parent
    is_below = any(Path(os.path.abspath(image)).is_relative_to(place) for place in (folder, folder.resolve()))
    return not is_below and folder.resolve().name.lower() not in FOR_ANNOTATIONS


def _most_complete(found: Mapping[Path, Path], keys: Sequence[str]) -> Mapping[Path, Path]:
    """The one of these folders that has every image that any of them has, if only one does; else all of them."""
    held = {real: {key for key in keys[:LOOKED_FOR] if _holds_any(path, [key])} for real, path in found.items()}
    everything = set().union(*held.values())
    whole = [real for real, held_there in held.items() if held_there == everything]
    return {real: found[real] for real in whole} if len(whole) == 1 else found


def _below_and_beside(file: Path) -> Iterator[list[Path]]:
    """Folders near a file: what lies below its own folder is nearer than what lies beside it."""
    above = file.parent.resolve().parent  # `..` of a relative path would leave its name out
    yield [*folders_in(file.parent), *folders_in(file.parent / "images")]
    yield [*folders_in(above), *folders_in(above / "images"), above]


def folders_near(file: Path) -> list[Path]:
    """The folders in which the images of a COCO file are searched for."""
    return [file.parent, *itertools.chain(*_below_and_beside(file))]


def _holds_any(folder: Path, keys: Sequence[str]) -> bool:
    return any(os.path.isfile(folder / one) for key in keys[:LOOKED_FOR] for one in spellings(key))


def _unique_keys(file: Path, names: Iterable[str]) -> list[str]:
    keys = [posixpath.normpath(name) for name in names]
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise InputError(f"{file}: names {twice} twice; name each image once")
    return keys
