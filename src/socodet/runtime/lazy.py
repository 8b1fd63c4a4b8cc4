"""Names of a package that are imported when they are first used, so that importing the package costs no torch."""

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from types import FunctionType
from typing import Any

from socodet.runtime.settings import Settings


def with_fields(settings: type[Settings]) -> str:
    """A settings class's docstring, and below it each field with its default and the text under it in the code."""
    from docstring_parser import parse_from_object

    about = {one.arg_name: one.description or "" for one in parse_from_object(settings).params}
    lines = [inspect.getdoc(settings) or "", ""]
    for field in fields(settings):
        default = "" if field.default is MISSING else f" = {field.default!r}"
        lines += [f"{field.name}{default}", textwrap.indent(inspect.cleandoc(about.get(field.name, "")), "    "), ""]
    return "\n".join(lines).rstrip()


def lazily(package: str, origins: Mapping[str, str], *, check_arguments: bool = False) -> Callable[[str], Any]:
    """A package's `__getattr__`: each name comes from its module, given as `module` or `module:name there`.

    check_arguments: functions judge their arguments first, as `arguments.checked` says.
    """

    def find(name: str) -> Any:
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, there = origins[name].partition(":")
        value = getattr(importlib.import_module(module), there or name)
        if check_arguments and isinstance(value, FunctionType):
            from socodet.runtime.arguments import checked

            value = checked(value, package, name)
        if isinstance(value, type) and issubclass(value, Settings):
            value.__doc__ = with_fields(value)
        setattr(sys.modules[package], name, value)
        return value

    return find
