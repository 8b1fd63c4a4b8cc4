"""What commands print alike, and how a stopped one ends."""

import sys
from collections.abc import Sequence

from socodet.runtime.notices import printable

LISTED = 10


def resume_hint(overwrite: bool) -> str:
    """How to resume what was interrupted, to be added to a sentence."""
    return f"; the same command{', without --overwrite,' if overwrite else ''} goes on from here"


def exit_if_stopped(stopped_by: str | None) -> None:
    """Ends the command, in every process, with the code of the signal that stopped the run, for scripts to see."""
    if stopped_by not in (None, "max_steps"):
        raise SystemExit(130 if stopped_by == "SIGINT" else 143)


def print_some(title: str, lines: Sequence[str]) -> None:
    """Prints the first of many lines to stderr, below a title; nothing if there are none."""
    if lines:
        more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
        shown = [f"  {printable(line)}" for line in [*lines[:LISTED], *more]]
        print("\n".join([title, *shown]), file=sys.stderr)


def list_unreadable(unreadable: Sequence[tuple[str, str]]) -> None:
    """Lists on stderr the images that were left out, and why: (key, reason) each."""
    lines = [f"{key}: {why}" for key, why in unreadable]
    print_some(f"{len(lines)} images could not be read and were left out:", lines)
