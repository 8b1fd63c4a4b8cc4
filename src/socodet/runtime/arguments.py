"""Checks arguments of the public functions against their annotations before anything is done."""

import collections.abc
import functools
import inspect
import logging
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from socodet.errors import ArgumentError, InputError, suggest_names
from socodet.runtime.log import LOGGER
from socodet.runtime.settings import Settings

_WORDS = {types.NoneType: "None", bool: "True or False", int: "a whole number", float: "a number", str: "text"}
_IMAGES = (
    "a folder of images, .tar shards, a COCO file, or a text file with an image path per line, by its path; a list "
    "of image files; or an ImageSource"
)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def checked(function: Callable[..., Any], module: str, name: str) -> Callable[..., Any]:
    """The function under its public name; ArgumentError for arguments that its signature rules out.

    Checked are numbers, text, paths, choices, instances of classes and protocols, and sequences of these; any other
    annotation accepts everything. Another package's path object becomes a `Path`.
    """
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not hints:
            hints.update(get_type_hints(function, include_extras=True))
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            unknown = [one for one in kwargs if one not in signature.parameters]
            raise ArgumentError(f"{name}: {_unknown_keyword(unknown[0], hints) if unknown else error}") from None
        for argument, value in given.arguments.items():
            if signature.parameters[argument].kind in _VARIADIC:
                continue
            choices = list(_choices(hints.get(argument, Any)))
            if not _fits(value, choices):
                raise ArgumentError(f"{name}: {_wrong(argument, value, choices)}")
            if Path in choices and isinstance(value, os.PathLike) and not isinstance(value, Path):
                given.arguments[argument] = Path(value)
        with _python_messages():
            return function(*given.args, **given.kwargs)

    call.__module__, call.__name__, call.__qualname__ = module, name, name  # where pickle finds it
    return call


@contextmanager
def _python_messages() -> Iterator[None]:
    """In this context, errors raised and lines logged name arguments in place of flags."""
    outermost = _rewrite not in LOGGER.filters
    LOGGER.addFilter(_rewrite)
    try:
        yield
    except InputError as error:
        error.args = (in_python(str(error)),)
        raise
    finally:
        if outermost:
            LOGGER.removeFilter(_rewrite)


def _rewrite(record: logging.LogRecord) -> bool:
    """A filter for the logger; it lets every line through."""
    record.msg, record.args = in_python(record.getMessage()), ()
    return True


def in_python(message: str) -> str:
    """A message with the command line's flags written as arguments: `--val-share 0.2` becomes val_share=0.2.

    Flags of a whole command, as in `socodet finetune --init`, stay; so does --import, which is not an argument.
    """

    def argument(flag: re.Match[str]) -> str:
        command, passed, name, value = flag.groups()
        if command or name == "import":
            return flag[0]
        name = name.replace("-", "_")
        return f"{passed}{name}=True" if passed else f"{name}={value.strip()}" if value else name

    flag = r"(?<![\w./-])(pass )?--([a-z][\w.-]*\w)( [\d.]*\d(?!\w|\.\d))?"
    return re.sub(
        rf"(`socodet [^`]*`|\bsocodet [a-z-]+(?: [A-Z]+)?(?: --[a-z][\w-]*(?: \w+)?)+)|{flag}", argument, message
    )


def _choices(hint: Any) -> Iterator[Any]:
    """The alternatives of an annotation."""
    if get_origin(hint) is Annotated:
        yield from _choices(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _choices(part)
    else:
        yield hint


def _fits(value: Any, choices: Iterable[Any]) -> bool:
    return any(_is_one(value, choice) for choice in choices)


def _is_one(value: Any, hint: Any) -> bool:
    """Whether a value fits an annotation without alternatives; True for an annotation that is not checked."""
    if get_origin(hint) is Literal:
        return any(type(value) is type(part) and value == part for part in get_args(hint))
    if get_origin(hint) is Mapping:
        return isinstance(value, Mapping)
    if _is_sequence(hint):
        return _is_listed(value) and all(_fits(one, _choices(get_args(hint)[0])) for one in value)
    if hint is Any or get_origin(hint) is not None or not isinstance(hint, type):
        return True
    if hint is bool:
        return type(value).__name__ in ("bool", "bool_") or (isinstance(value, int) and value in (0, 1))
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, os.PathLike)
    if _is_protocol(hint):
        return not isinstance(value, type) and all(hasattr(value, name) for name in _members(hint))
    return isinstance(value, hint)


def _is_sequence(hint: Any) -> bool:
    return get_origin(hint) is collections.abc.Sequence


def _is_listed(value: Any) -> bool:
    return not isinstance(value, str | bytes | Mapping) and hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _is_protocol(hint: type) -> bool:
    return bool(getattr(hint, "_is_protocol", False))


def _members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


def _wrong(argument: str, value: Any, choices: list[Any]) -> str:
    """What is wrong with a value that fits none of the choices."""
    for choice in filter(_is_sequence, choices):
        inner = list(_choices(get_args(choice)[0]))
        if _is_listed(value):
            place, item = next((place, item) for place, item in enumerate(value) if not _fits(item, inner))
            return _wrong(f"{argument}[{place}]", item, inner)
        if _fits(value, inner):
            return f"{argument} must be a list; write {argument}=[...]"
    line = f"{argument} must be {' or '.join(_words(choices))}, not {_shown(value)}"
    known = [one for choice in choices if get_origin(choice) is Literal for one in get_args(choice)]
    if isinstance(value, str) and (instead := suggest_names(value, map(str, known))).startswith("did"):
        return f"{line}; {instead}"
    if hasattr(value, "state_dict") and any(get_origin(choice) is Mapping for choice in choices):
        return f"{line}; give its state_dict()"
    settings = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, Settings)]
    if settings and (isinstance(value, Mapping) or any(value is one for one in settings)):
        return f"{line}; write {_made(settings[0], 'name=value, ...')}"
    return line


def _words(choices: list[Any]) -> Iterator[str]:
    """What may be given, in words."""
    protocols = {choice.__name__ for choice in choices if isinstance(choice, type) and _is_protocol(choice)}
    for choice in choices:
        if "ImageSource" in protocols and (choice in (str, Path) or _is_sequence(choice)):
            continue
        if choice is str and Path in choices:
            continue
        if get_origin(choice) is Literal:
            yield f"one of {', '.join(map(str, get_args(choice)))}"
        elif _is_sequence(choice):
            yield f"a list, each {' or '.join(_words(list(_choices(get_args(choice)[0]))))}"
        elif get_origin(choice) is Mapping:
            yield "a dict"
        elif choice is Path:
            yield "a path"
        elif choice.__name__ == "ImageSource":
            yield _IMAGES
        elif _is_protocol(choice):
            yield f"an object with {' and '.join(_members(choice))}"
        else:
            yield _WORDS.get(choice) or f"of type {choice.__name__}"


def _shown(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, str | int | float):
        return repr(value) if len(repr(value)) < 100 else "a longer text"
    return f"{'an' if type(value).__name__[0] in 'aeiouAEIOU' else 'a'} {type(value).__name__}"


def _unknown_keyword(unknown: str, hints: Mapping[str, Any]) -> str:
    """How to fix a keyword that the function does not have: a field of settings it takes, or the closest one."""
    parameters = {name: hint for name, hint in hints.items() if name != "return"}
    instead = suggest_names(unknown, parameters)
    for name, hint in parameters.items():
        for cls in _choices(hint):
            if not (isinstance(cls, type) and issubclass(cls, Settings)):
                continue
            if unknown in _fields(cls):
                return f"{unknown}: no such argument; it is a setting, write {name}={_made(cls, unknown + '=...')}"
            near = suggest_names(unknown, _fields(cls))
            if near.startswith("did") and not instead.startswith("did"):
                instead = f"{near} It is a setting, write {name}={_made(cls, '...')}"
    return f"{unknown}: no such argument; {instead}"


def _fields(cls: type[Settings]) -> list[str]:
    """The settings' fields; of a recipe, those of its parts."""
    if hasattr(cls, "with_"):
        return [field.name for part in get_type_hints(cls).values() if part is not str for field in fields(part)]
    return [field.name for field in fields(cls)]


def _made(cls: type[Settings], arguments: str) -> str:
    return f"socodet.recipe(NAME).with_({arguments})" if hasattr(cls, "with_") else f"{cls.__name__}({arguments})"
