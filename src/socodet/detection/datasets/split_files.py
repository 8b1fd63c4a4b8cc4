"""Finds the annotation files of a folder's splits, one for each, by a word in their names or by their folders."""

from collections.abc import Callable, Iterator
from pathlib import Path

from socodet.detection.datasets.folder_listing import OF_MACOS, folder_listings
from socodet.detection.datasets.splits import IMAGE_FOLDERS, SPELLINGS, WHOLE, split_folders, split_in_name
from socodet.runtime.notices import notice

FOLDERS = ("annotations", "data", "labels", *IMAGE_FOLDERS)
"""Folders that may hold such files, besides those of the splits, in any case."""
MOST = 16
"""If a folder has more such files, they are taken to be annotations of single images, or other data."""


def split_files(folder: Path, suffix: str, is_one: Callable[[Path], bool], preferred: str = "") -> dict[str, Path]:
    """Split → file, for the files with this suffix that are annotation files; files of no split are `WHOLE`.

    preferred: the usual name of such a file. If several have a split, the one of this name counts; if none or several
    have it, the result is empty, because it cannot be told which one to read. Files of no split count if no other is
    there.
    """
    found: dict[str, list[Path]] = {}
    for split, file in _candidates(folder, suffix):
        if is_one(file):
            found.setdefault(split, []).append(file)
    for split, files in found.items():
        usual = [file for file in files if file.name == preferred]
        found[split] = usual if len(usual) == 1 else files
    chosen = {split: found[split] for split in SPELLINGS if split in found} or found
    if any(len(files) > 1 for files in chosen.values()):
        return {}
    if WHOLE in found and WHOLE not in chosen:
        notice(
            f"{found[WHOLE][0]}: is not read, as there are files of {' and '.join(chosen)}; to read it, give it itself"
        )
    return {split: files[0] for split, files in chosen.items()}


def _candidates(folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Split and path of the files that may be such files; an image's own annotation file is none."""
    listing = folder_listings()
    split_of = {place: split for split, place in split_folders(folder).items()}
    others = (place for name in FOLDERS if (place := listing.folders(folder).get(name)))
    for place in dict.fromkeys([folder, *others, *split_of]):
        names = sorted(name for name in listing.names(place) if name.lower().endswith(suffix))
        files = [place / name for name in names if not name.startswith(OF_MACOS)]
        if len(files) <= MOST:
            for file in files:
                if listing.image(place, file.stem) is None:
                    yield split_in_name(file) or split_of.get(place, WHOLE), file
