"""The flags of a command as its parser sees them, for its help, for suggestions and for configuration files."""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from typing import Any

import tyro

from socodet.errors import InputError, SettingError

MARKERS = (tyro.conf.PositionalMetavarFromFieldName,)
"""Parser options for turning a command's signature into flags."""

MOST_CHOICES = 7
"""Up to this many choices are shown as the placeholder; more are listed after the flag's description."""


@dataclass(frozen=True)
class Flag:
    """A flag, or a positional argument."""

    names: tuple[str, ...]
    """Names as written on the command line; none for a positional argument."""
    path: tuple[str, ...]
    """Where its value is in the command's arguments: the parameter, then fields and indices."""
    metavar: str
    help: str
    required: bool
    default: Any
    choices: tuple[str, ...] = ()
    values: float = 1
    """Number of words that follow it; infinity for any number."""
    repeated: bool = False
    """Whether the flag is repeated for each value."""

    @property
    def name(self) -> str:
        """The name that help and configuration files use, without dashes."""
        return self.names[0].removeprefix("--") if self.names else self.path[0].replace("_", "-")

    @property
    def shown(self) -> str:
        """The flag with a placeholder for its value."""
        placeholder = self.metavar if len(self.choices) < MOST_CHOICES else "NAME"
        return " ".join(
            filter(None, [self.names[-1 if self.default is True else 0] if self.names else "", placeholder])
        )


def flags_of(function: Callable[..., Any]) -> list[Flag]:
    """The flags of a function in the order of its signature; the values of a `functools.partial` become defaults."""
    tyro.cli(_nothing, args=[])  # clears tyro's cache, since docstrings change (`runtime.lazy`)
    with warnings.catch_warnings():  # the only public access to the parser, which is only inspected here, never run
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(function, config=MARKERS, add_help=False)
    defaults = {name: one.default for name, one in signature(function).parameters.items()}
    if isinstance(function, partial):
        defaults |= function.keywords
    found = []
    for action in parser._actions:
        path = tuple(action.dest.replace("-", "_").split("."))
        default = value_at(path, defaults)
        number = str(action.nargs)
        flag = Flag(
            names=tuple(action.option_strings),
            path=path,
            metavar=_plain(action.metavar or ""),
            help=_without_default(action.help or ""),
            required=bool(action.required),
            default=None if default is Parameter.empty else default,
            choices=tuple(_choices(action.metavar or "")),
            values=int(number) if number.isdigit() else math.inf,
            repeated=type(action).__name__ == "_AppendAction",
        )
        found.append(flag)
    return found


def _nothing() -> None:
    """A command without flags."""


def value_at(path: tuple[str, ...], arguments: dict[str, Any]) -> Any:
    """The value of a flag in a command's arguments; `Parameter.empty` if its settings must be given as a whole."""
    value = arguments[path[0]]
    for name in path[1:]:
        if value is Parameter.empty:
            return value
        value = value[int(name)] if name.isdigit() else getattr(value, name)
    return value


def _choices(metavar: str) -> list[str]:
    """The choices in `{a,b}`, `{None}|{a,b}` and `{a,b}|STR`; none without a comma."""
    return [name for group in re.findall(r"\{([^{}]+,[^{}]+)\}", metavar) for name in group.split(",")]


def _plain(metavar: str) -> str:
    """The placeholder without its optional parts: `{None}|INT` becomes INT, `{[INT [INT ...]]}` becomes INT ..."""
    text = re.sub(r"\{None\}\||\|\{None\}|(?<=\{)None,", "", metavar)
    text = re.sub(r"\}\|STR$", ",MODULE:NAME}", text)
    text = re.sub(r"\{?\[?(\w+) \[\w+ \.\.\.\]\]?\}?", r"\1 ...", text)
    return re.sub(r"\bSTR\b", "TEXT", text).removeprefix("[").removesuffix("]")


def _without_default(text: str) -> str:
    text = " ".join(text.replace("%%", "%").split())
    return re.sub(r"\s*\((required|repeatable.*|optional|unset by default|default: .*)\)$", "", text)


def with_flag_name(problem: str, flags: Sequence[Flag]) -> str:
    """A message that begins with the name of a setting, with the flag that sets it, if only one does."""
    setting, must, rest = problem.partition(" must ")
    found = [flag.names[0] for flag in flags if flag.names and flag.path[-1] == setting]
    return f"{found[0]}{must}{rest}" if len(found) == 1 else problem


@contextmanager
def name_flags_in_errors(command: str, function: Callable[..., Any]) -> Iterator[None]:
    """Errors of settings that a command checks only when it runs name the flag, as those of its parser do."""
    try:
        yield
    except SettingError as error:
        raise InputError(f"{command}: {with_flag_name(str(error), flags_of(function))}") from error
