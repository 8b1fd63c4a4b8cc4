"""Flags to arguments: a command is a function whose signature is its flags and whose docstring is its help."""

import contextlib
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from socodet.errors import InputError

Flat = tyro.conf.arg(name="")
"""Marks settings whose fields are flags of their own names, without a prefix."""


def parse(
    function: Callable[..., None], command: str, argv: Sequence[str], defaults: Mapping[str, Any]
) -> functools.partial[None]:
    """The function with the arguments that the flags give it, not yet called; `defaults` replaces its signature's.

    InputError, of one line, for flags that cannot be parsed.
    """

    @functools.wraps(function)
    def deferred(*args: Any, **kwargs: Any) -> functools.partial[None]:
        return functools.partial(function, *args, **kwargs)

    problem = io.StringIO()
    try:
        with contextlib.redirect_stderr(problem):
            parsed: functools.partial[None] = tyro.cli(
                functools.partial(deferred, **defaults),
                args=list(argv),
                prog=f"socodet {command}",
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as ended:
        if not ended.code:
            raise
        raise InputError(f"{command}: {_one_line(problem.getvalue())}; see socodet {command} --help") from None
    except ValueError as error:  # from the settings' own checks
        raise InputError(f"{command}: {error}; see socodet {command} --help") from None
    return parsed


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


def values_of(flag: str, argv: Sequence[str]) -> list[str]:
    """The values of a flag before anything is parsed, for the defaults that depend on it; the last one is in force."""
    pairs = zip(argv, [*argv[1:], None], strict=True)
    given = (a.removeprefix(f"{flag}=") if a.startswith(f"{flag}=") else b if a == flag else None for a, b in pairs)
    return [value for value in given if value is not None]
