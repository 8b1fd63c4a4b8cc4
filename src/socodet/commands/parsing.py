"""Parses flags: a command is a function whose signature is its flags and whose docstring is its help."""

import contextlib
import functools
import inspect
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import tyro

from socodet.errors import InputError, which_instead
from socodet.images.reading import PixelSettings, read_images_as

Flat = tyro.conf.arg(name="")
"""Marks settings whose fields become flags without a prefix."""


def parse(
    function: Callable[..., None], command: str, argv: Sequence[str], defaults: Mapping[str, Any]
) -> functools.partial[None]:
    """The function with its arguments from the flags, not yet called; `defaults` replace those of its signature.

    InputError, in one line, for flags that cannot be parsed.
    """

    @functools.wraps(function)
    def deferred(*args: Any, **kwargs: Any) -> functools.partial[None]:
        return functools.partial(function, *args, **kwargs)

    def read(arguments: Sequence[str]) -> functools.partial[None]:
        called: functools.partial[None] = tyro.cli(
            functools.partial(deferred, **defaults),
            args=list(arguments),
            prog=f"socodet {command}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        return called

    problem = io.StringIO()
    try:
        with contextlib.redirect_stderr(problem):
            parsed = read(argv)
    except SystemExit as ended:
        if not ended.code:
            raise
        help_text = io.StringIO()
        with contextlib.redirect_stdout(help_text), contextlib.suppress(SystemExit):
            read(["--help"])
        what = _unknown_flag(argv, help_text.getvalue()) or _closest_choice(_one_line(problem.getvalue()))
        raise InputError(f"{command}: {what} (see socodet {command} --help)") from None
    except ValueError as error:  # from the settings' own checks
        raise InputError(f"{command}: {error} (see socodet {command} --help)") from None
    return parsed


def _unknown_flag(argv: Sequence[str], help_text: str) -> str | None:
    """What is wrong with the first flag that the help does not list; a parser would first name what is missing."""
    known = dict.fromkeys(re.findall(r"(?<![\w-])--?[a-zA-Z][\w.-]*", help_text))
    for argument in argv:
        flag = argument.split("=")[0]
        if re.fullmatch(r"--[a-zA-Z][\w.-]*", flag) and flag.replace("_", "-") not in known:
            instead = which_instead(flag, known)
            return f"{flag}: no such flag" + (f"; {instead}" if instead.startswith("did") else "")
    return None


def _closest_choice(problem: str) -> str:
    """The parser's message about a value that is not one of the choices, with the closest one."""
    found = re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)$", problem)
    if found is None:
        return problem
    value, flag, choices = found.groups()
    known = re.findall(r"'([^']+)'", choices)
    return f"{flag} {value}: no such choice; {which_instead(value, known)}"


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
    """The values of a flag before anything is parsed, for defaults that depend on it; the last one wins."""
    pairs = zip(argv, [*argv[1:], None], strict=False)
    given = (a.removeprefix(f"{flag}=") if a.startswith(f"{flag}=") else b if a == flag else None for a, b in pairs)
    return [value for value in given if value is not None]


def reads_images(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the flags of `PixelSettings`, whose images are read as they say."""

    @functools.wraps(command)
    def reading_so(*args: Any, pixels: PixelSettings = PixelSettings(), **kwargs: Any) -> None:
        with read_images_as(pixels):
            command(*args, **kwargs)

    flags = inspect.Parameter(
        "pixels",
        inspect.Parameter.KEYWORD_ONLY,
        default=PixelSettings(),
        annotation=Annotated[PixelSettings, Flat],
    )
    own = inspect.signature(command)
    reading_so.__signature__ = own.replace(parameters=[*own.parameters.values(), flags])  # type: ignore[attr-defined]
    reading_so.__annotations__ = {**command.__annotations__, "pixels": flags.annotation}
    del reading_so.__wrapped__  # tyro would read the flags of what is within
    return reading_so
