"""What every command does with its flags and its words."""

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from socodet.errors import InputError

T = TypeVar("T")
Flat = tyro.conf.arg(name="")
"""A field of these settings is a flag of its own name."""
LISTED = 10


def call(function: Callable[..., T], command: str, argv: Sequence[str]) -> T:
    """Parses the flags a function's signature makes and calls it; what does not parse is one InputError."""

    @functools.wraps(function)
    def deferred(*args: Any, **kwargs: Any) -> Callable[[], T]:
        return functools.partial(function, *args, **kwargs)

    problem = io.StringIO()
    try:
        with contextlib.redirect_stderr(problem):
            parsed: Callable[[], T] = tyro.cli(
                deferred, args=list(argv), prog=f"socodet {command}", config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as ended:
        if not ended.code:
            raise
        raise InputError(f"{command}: {_one_line(problem.getvalue())}; see socodet {command} --help") from None
    except ValueError as error:  # a field's own check, in the settings of a room
        raise InputError(f"{command}: {error}; see socodet {command} --help") from None
    return parsed()


def _one_line(box: str) -> str:
    """The message in the parser's box, without its frame (Unicode or ASCII), its help and its line breaks."""
    words: list[str] = []
    for line in box.strip().splitlines()[1:]:
        text = line.strip().strip("│|").strip()
        if text and set(text) <= set("─-╰╯"):  # a rule: below the title without Unicode, below the message
            if words:
                break
        elif text:
            words.append(text)
    return " ".join(" ".join(words).split()).rstrip(".")


def value_of(flag: str, argv: Sequence[str]) -> str | None:
    """The value of a flag, the last where it stands twice, as the parser takes it."""
    value = None
    for index, argument in enumerate(argv):
        if argument == flag and index + 1 < len(argv):
            value = argv[index + 1]
        elif argument.startswith(flag + "="):
            value = argument.removeprefix(flag + "=")
    return value


def goes_on(argv: Sequence[str]) -> str:
    """How to go on with what was interrupted, to be added to a sentence."""
    without = ", without --overwrite," if "--overwrite" in argv else ""
    return f"; the same command{without} goes on from here"


def exit_if_stopped(stopped_by: str | None) -> None:
    """Ends the command, in every process, with the code of the signal that stopped the run; scripts look at it."""
    if stopped_by not in (None, "max_steps"):
        raise SystemExit(130 if stopped_by == "SIGINT" else 143)


def printable(text: str) -> str:
    """A file name on one line, whatever it holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def list_unreadable(unreadable: Sequence[tuple[str, str]]) -> None:
    """Says on stderr which images were left out, and why: (key, reason) each."""
    if not unreadable:
        return
    print(f"{len(unreadable)} images could not be read and were left out:", file=sys.stderr)
    for key, why in unreadable[:LISTED]:
        print(f"  {printable(key)}: {why}", file=sys.stderr)
    if len(unreadable) > LISTED:
        print(f"  and {len(unreadable) - LISTED} more", file=sys.stderr)
