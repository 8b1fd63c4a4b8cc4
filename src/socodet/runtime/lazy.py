"""Names of a package that are imported when they are first used, so that importing it does not import torch."""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from importlib.util import resolve_name
from types import FunctionType
from typing import Any, get_type_hints

from socodet.runtime.settings import Settings

_WITH_FIELDS: set[type[Settings]] = set()
"""Settings classes whose docstrings already list their fields."""


def with_fields(settings: type[Settings]) -> str:
    """A settings class's docstring, followed by each field with its default and its docstring.

    Flags are written as arguments. A field without a docstring that holds settings gets the first line of theirs.
    """
    from docstring_parser import parse_from_object

    from socodet.runtime.arguments import in_python

    about: dict[str, str] = {}
    for cls in reversed([one for one in settings.__mro__ if one is not Settings and issubclass(one, Settings)]):
        about |= {one.arg_name: one.description for one in parse_from_object(cls).params if one.description}
    hints = get_type_hints(settings)
    lines = [inspect.getdoc(settings) or "", ""]
    for field in fields(settings):
        default = "" if field.default is MISSING else f" = {field.default!r}"
        held = hints[field.name]
        if field.name not in about and isinstance(held, type) and issubclass(held, Settings):
            what = (inspect.getdoc(held) or "").partition("\n")[0].partition("; `socodet ")[0].rstrip(".")
            about[field.name] = f"{held.__name__}: {what}."
        text = in_python(inspect.cleandoc(about.get(field.name, "")))
        lines += [f"{field.name}{default}", textwrap.indent(text, "    "), ""]
    return "\n".join(lines).rstrip()


def lazy_names(package: str) -> Mapping[str, tuple[str, str]]:
    """The names that a package imports under `if TYPE_CHECKING:`, each with its module and its name there.

    ImportError if the package has no source file to read that block from.
    """
    try:
        source = inspect.getsource(sys.modules[package])  # by the loader, or from the file where a loader gives none
    except OSError:
        raise ImportError(
            f"{package}: its source file is missing; install the package again, with its .py files"
        ) from None
    return {
        alias.asname or alias.name: (resolve_name("." * line.level + (line.module or ""), package), alias.name)
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }


def lazy_getattr(package: str, *, check_arguments: bool = False) -> Callable[[str], Any]:
    """A package's `__getattr__`: each name of its `if TYPE_CHECKING:` block comes from its module when asked for.

    check_arguments: functions check their arguments first, as `arguments.checked` says.
    """
    origins = lazy_names(package)

    def find(name: str) -> Any:
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, there = origins[name]
        value = getattr(importlib.import_module(module), there)
        if check_arguments and isinstance(value, FunctionType):
            from socodet.runtime.arguments import checked

            value = checked(value, package, name)
        if isinstance(value, type) and issubclass(value, Settings) and value not in _WITH_FIELDS:
            value.__doc__ = with_fields(value)
            _WITH_FIELDS.add(value)
        setattr(sys.modules[package], name, value)
        return value

    return find
