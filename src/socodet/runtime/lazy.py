"""Names of a package that are imported when they are first used, so that importing the package costs no torch."""

import importlib
import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any


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
        setattr(sys.modules[package], name, value)
        return value

    return find
