"""Files that a pattern matches, as in the shell."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from braceexpand import braceexpand

from socodet.errors import InputError
from socodet.images.folder import holds_results, is_of_system
from socodet.images.lists import names_in
from socodet.images.suffixes import Skipped

EVERY_FOLDER = "**"


def is_pattern(path: str) -> bool:
    """Whether a path contains any of `* ? [ {`."""
    return any(sign in path for sign in "*?[{")


def files_matching(pattern: str) -> list[Path]:
    """The files of a pattern: `{000..146}` counts, `{a,b}` chooses, `* ? [ab]` match, all as in the shell.

    `**` matches folders in folders, but none with socodet's results, which a note counts. Folders of the system that it
    does not name, and links back to a folder that they are in, are left out. InputError when nothing or a folder
    matches, a file that braces name is missing, or a brace is not closed.
    """
    try:
        names = list(braceexpand(pattern, escape=False))
    except ValueError:
        raise InputError(f"{pattern}: has a brace without its pair; check the pattern") from None
    paths: list[Path] = []
    skipped = Skipped()
    for expanded in names:
        matches = sorted(_matches(expanded, pattern, skipped))
        if not matches and not os.path.isfile(expanded):
            skipped.report_results(pattern)
            brackets = "; in a pattern, [[] stands for [" if "[" in expanded else ""
            raise InputError(f"{pattern}: no file {expanded}; check the pattern{brackets}")
        paths += map(Path, matches or [expanded])
    skipped.report_results(pattern)
    return list(dict.fromkeys(paths))


def _matches(expanded: str, pattern: str, skipped: Skipped) -> Iterator[str]:
    """The files that a pattern without braces matches, without those in folders that are left out."""
    beginning = os.path.dirname(re.split(r"[*?\[]", expanded)[0])
    around: dict[str, frozenset[str] | None] = {beginning: frozenset({os.path.realpath(beginning)})}

    def enter(folder: str) -> frozenset[str] | None:
        """The real paths of a folder and of those that it is in, from `beginning` on; None if it is left out."""
        if folder not in around:
            above, name = os.path.split(folder)
            outer, real = enter(above), os.path.realpath(folder)
            if outer is None or real in outer or (is_of_system(name) and name not in expanded):
                around[folder] = None
            elif EVERY_FOLDER in expanded and holds_results(folder, set(names_in(Path(folder)))):
                around[folder] = None
                skipped.results.append(folder)
            else:
                around[folder] = outer | {real}
        return around[folder]

    for match in glob.iglob(expanded, recursive=True):
        try:
            mode = os.stat(match).st_mode
        except OSError:  # a link to nothing, or a file that was deleted since
            continue
        is_folder = S_ISDIR(mode)
        if not is_folder and not S_ISREG(mode):  # reading a pipe would wait forever
            continue
        if enter(match.rstrip("/") if is_folder else os.path.dirname(match)) is None:
            continue
        if is_folder:
            raise InputError(f"{pattern}: matches the folder {match}; give a folder, or a pattern of files as in *.jpg")
        yield match
