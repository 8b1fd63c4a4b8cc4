"""Parses flags: a command is a function whose signature defines its flags and whose docstring is its help."""

import contextlib
import functools
import inspect
import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import tyro

from socodet.commands.flags import MARKERS, Flag, flags_of, with_flag_name
from socodet.errors import InputError, suggest_names
from socodet.images.reading import PixelSettings, read_images_as
from socodet.runtime.extensions import is_extension
from socodet.runtime.notices import notice

SHORTEST_BROKEN = 10
"""Length of the shortest word that a very narrow terminal breaks."""
HELP = {"-h", "--help", "--help-all"}
Flat = tyro.conf.arg(name="")
"""Marks settings whose fields become flags without a prefix."""

OLD_NAMES = {
    "ablate": {"--images": "IMAGES", "--seed": "--seeds"},
    "demo": {"--images": "IMAGES"},
    "pretrain": {"--probe-dataset": "--probe-data"},
    "probe": {
        "--dataset": "--data",
        "--train-pictures": "--max-train-images",
        "--val-pictures": "--max-val-images",
    },
}
"""Renamed flags by command, old name to new name; a name without dashes is a positional argument."""


def with_current_flag_names(command: str, argv: Sequence[str], flags: Callable[[], Sequence[Flag]]) -> list[str]:
    """The command line with old flag names replaced by today's; notes each replacement."""
    found = list(argv)
    for old, new in sorted(OLD_NAMES.get(command, {}).items(), key=lambda names: not names[1].startswith("--")):
        values = values_of(old, argv)
        if not values:
            continue
        notice(f"note: {old} is now {new}")
        if new.startswith("--"):
            found = [re.sub(rf"^{old}(?==|$)", new, word) for word in found]
        else:
            positional, typed = split_positional(without(old, found), flags())
            found = [*positional, values[-1], *typed]
    return found


def parse(
    function: Callable[..., Any], command: str, argv: Sequence[str], defaults: Mapping[str, Any]
) -> functools.partial[Any]:
    """The function with its arguments from the flags, not yet called; `defaults` replace those of its signature.

    InputError for flags that cannot be parsed.
    """

    @functools.wraps(function)
    def deferred(*args: Any, **kwargs: Any) -> functools.partial[Any]:
        return functools.partial(function, *args, **kwargs)

    def read(arguments: Sequence[str]) -> functools.partial[Any]:
        called: functools.partial[Any] = tyro.cli(
            functools.partial(deferred, **defaults),
            args=list(arguments),
            prog=f"socodet {command}",
            config=MARKERS,
            add_help=False,
        )
        return called

    flags = functools.partial(flags_of, functools.partial(function, **defaults))
    problem = io.StringIO()
    try:
        with contextlib.redirect_stderr(problem):
            return read(argv)
    except SystemExit:
        said = _rejoined_words(_one_line(problem.getvalue()), argv)
        unknown = _surplus_argument(argv, flags()) if said.startswith("Unrecognized") else None
        what = _misspelt(argv, flags()) or unknown or _reworded(said, flags())
        raise InputError(f"{command}: {what} (see socodet {command} --help)") from None
    except ValueError as error:  # from the settings' own checks
        what = _misspelt(argv, flags()) or with_flag_name(str(error), flags())
        raise InputError(f"{command}: {what} (see socodet {command} --help)") from None


def _misspelt(argv: Sequence[str], flags: Sequence[Flag]) -> str | None:
    """The error for the first unknown flag or choice, because the parser would first complain about missing ones."""
    known = {name: flag for flag in flags for name in flag.names}
    for argument, following in zip_longest(argv, argv[1:], fillvalue=""):
        name, equals, given = argument.partition("=")
        name = name.replace("_", "-")
        if not re.fullmatch(r"--?[a-zA-Z][\w.-]*", name):
            continue
        if name not in known:
            instead = suggest_names(name, known)
            return f"{name}: no such flag" + (f"; {instead}" if instead.startswith("did") else "")
        if equals and known[name].values == 0:
            return f"{name}: takes no value; leave out ={given}"
        value, choices = given if equals else following, known[name].choices
        if choices and value not in choices and not value.startswith("-") and not is_extension(value):
            return f"{name} {value}: no such choice; {suggest_names(value, choices)}"
    return None


def _reworded(problem: str, flags: Sequence[Flag]) -> str:
    """The parser's message about a missing argument or invalid number, without Python's terms and the flags' help."""
    if problem.startswith("Missing from"):
        missing = [flag.names[0] if flag.names else flag.shown for flag in flags if flag.required]
        words = set(re.split(r"[\s,]+", problem))
        return f"missing: {', '.join(name for name in missing if name in words)}"
    return _invalid_number(problem, flags) or _closest_choice(problem)


def _surplus_argument(argv: Sequence[str], flags: Sequence[Flag]) -> str | None:
    """The error for a surplus argument, which is neither a flag nor a positional argument; None without one."""
    positional, _ = split_positional(argv, flags)
    taken = [flag for flag in flags if not flag.names]
    if len(positional) <= len(taken) or any(flag.values > 1 for flag in taken):
        return None
    what = f"{positional[len(taken)]}: is one argument too many, after {' '.join(positional[: len(taken)])}"
    what += f"; besides flags it takes {' '.join(flag.shown for flag in taken) or 'none'}"
    run = next((word for word in positional if (Path(word) / "run.json").is_file()), None)
    if taken and taken[-1].shown == "IMAGES" and all(Path(word).is_file() for word in positional[len(taken) - 1 :]):
        what += " (for several images, give their folder, or a pattern in quotes, as in '*.jpg')"
    if run is not None and any("--init" in flag.names for flag in flags):
        what += f" (to start from the run {run}, give --init {run})"
    return what


def _invalid_number(problem: str, flags: Sequence[Flag]) -> str | None:
    """The error for an invalid value of a flag that takes numbers; None for other problems."""
    found = re.match(r"Error parsing (\S+): (.*)", problem)
    flag = next((flag for flag in flags if found is not None and found[1] in flag.names), None)
    if found is None or flag is None or not re.fullmatch(r"(INT|FLOAT)( INT| FLOAT| \.\.\.)*", flag.metavar):
        return None
    kind, what = (int, "whole number") if flag.metavar.startswith("INT") else (float, "number")
    words = re.search(r"\['.*?'\]", found[2])  # a list for several values; a single one is quoted
    wrong = [word for word in re.findall("'(.*?)'", words[0] if words else found[2]) if not _is_number(word, kind)]
    if not wrong:
        return None
    return f"{found[1]}: takes {f'{what}s' if ' ' in flag.metavar else f'a {what}'}, not {wrong[0]!r}"


def _is_number(word: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True


def _closest_choice(problem: str) -> str:
    """The parser's message about a value that is not one of the choices, with the closest choice."""
    found = re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)$", problem)
    if found is None:
        return problem
    value, flag, choices = found.groups()
    known = re.findall(r"'([^']+)'", choices)
    shown = f"{flag} {value}" if flag.startswith("-") else value
    return f"{shown}: no such choice; {suggest_names(value, known)}"


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


def _rejoined_words(message: str, argv: Sequence[str]) -> str:
    """The message with the command line's words as typed, because the parser's box breaks words wider than itself."""
    for word in argv:
        letters = [re.escape(letter) for letter in word if not letter.isspace()]
        if len(letters) >= SHORTEST_BROKEN:
            message = re.sub(r"\s*".join(letters), lambda _, word=word: word, message)  # type: ignore[misc]
    return message


def values_of(flag: str, argv: Sequence[str]) -> list[str]:
    """The values of a flag before anything is parsed, for defaults that depend on it; the last one wins."""
    pairs = zip(argv, [*argv[1:], None], strict=False)
    given = (a.removeprefix(f"{flag}=") if a.startswith(f"{flag}=") else b if a == flag else None for a, b in pairs)
    return [value for value in given if value is not None]


def split_positional(argv: Sequence[str], flags: Sequence[Flag]) -> tuple[list[str], list[str]]:
    """The positional arguments of a command line, and the flags with their values."""
    values = {name: flag.values for flag in flags for name in flag.names}
    positional: list[str] = []
    rest: list[str] = []
    left: float = 0
    for word in argv:
        if word.startswith("--"):
            name, equals, _ = word.replace("_", "-").partition("=")
            left = 0 if equals else values.get(name, 1)
        elif left <= 0:
            positional.append(word)
            continue
        else:
            left -= 1
        rest.append(word)
    return positional, rest


def without(flag: str, argv: Sequence[str]) -> list[str]:
    """The command line without a flag that has one value."""
    after = [False, *(word == flag for word in argv)]
    return [
        word
        for word, is_value in zip(argv, after, strict=False)
        if not is_value and word != flag and not word.startswith(f"{flag}=")
    ]


def reads_images(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of `PixelSettings` to a command, whose images are then read accordingly."""

    @functools.wraps(command)
    def reading_so(*args: Any, pixels: PixelSettings = PixelSettings(), **kwargs: Any) -> Any:
        with read_images_as(pixels):
            return command(*args, **kwargs)

    flags = inspect.Parameter(
        "pixels",
        inspect.Parameter.KEYWORD_ONLY,
        default=PixelSettings(),
        annotation=Annotated[PixelSettings, Flat],
    )
    own = inspect.signature(command)
    reading_so.__signature__ = own.replace(parameters=[*own.parameters.values(), flags])  # type: ignore[attr-defined]
    reading_so.__annotations__ = {**command.__annotations__, "pixels": flags.annotation}
    del reading_so.__wrapped__  # otherwise tyro would read the flags of the wrapped function
    return reading_so
