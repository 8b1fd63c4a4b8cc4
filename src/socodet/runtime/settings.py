"""The base of all settings: frozen dataclasses whose fields hold only values of their annotated types and ranges."""

import dataclasses
import math
import types
from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from socodet.errors import ArgumentError, SettingError, suggest_names
from socodet.runtime.extensions import Extension, check_trusted


@dataclasses.dataclass(frozen=True, repr=False)
class Range:
    """Which numbers a field may hold, in its annotation: `Annotated[int, Range(1)]` is 1 or more."""

    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: Any) -> bool:
        return bool(self.at_least <= value <= self.at_most and self.above < value < self.below)

    def __repr__(self) -> str:
        if -math.inf < self.at_least and self.at_most < math.inf:
            return f"between {self.at_least} and {self.at_most}"
        limits = ((name.replace("_", " "), value) for name, value in dataclasses.asdict(self).items())
        return " and ".join(f"{name} {value}" for name, value in limits if math.isfinite(value))


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, below=2**63)]
REGISTER = "to name a class or function of your own, give socodet.register(it)"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all settings. At construction, SettingError names a field whose value its annotation rules out.

    A subclass with rules of its own checks them in a `__post_init__` that calls this one first.
    """

    def __new__(cls, *_values: object, **named: object) -> Self:
        """ArgumentError for a name that is not a field."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in named:
            if name not in names:
                raise ArgumentError(f"{cls.__name__}: {name}: no such setting; {suggest_names(name, names)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _stored(getattr(self, field.name), hints[field.name]))
            wrong = problem(field.name, getattr(self, field.name), hints[field.name])
            if wrong:
                raise SettingError(wrong)
            check_trusted(getattr(self, field.name))

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise SettingError(f"{name} must be {rule}, not {getattr(self, name)}")


def _stored(value: Any, hint: Any) -> Any:
    """A value in the form that a field stores: Python's numbers, tuples, and a Path if it holds a path."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str) and hint in (Path, Path | None):
        return Path(value)
    if isinstance(value, list | range) and any(get_origin(part) is tuple for part in (hint, *get_args(hint))):
        return _as_tuple(value)
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple | range) else value


def problem(name: str, value: object, hint: Any) -> str | None:
    """Why the field of that name cannot hold a value, by its annotation; None if it can."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        rules = (rule for rule in parts[1:] if isinstance(rule, Container))
        outside = (f"{name} must be {rule}, not {value}" for rule in rules if value not in rule)
        return problem(name, value, parts[0]) or next(outside, None)
    if origin in (Union, types.UnionType):
        wrong = [problem(name, value, part) for part in parts]
        if None in wrong or not callable(value) or Extension not in parts:
            return None if None in wrong else wrong[0]
        return f"{wrong[0]}; {REGISTER}"
    if origin is tuple and isinstance(value, tuple):
        items = parts[:1] * len(value) if parts[-1] is ... else parts
        if len(value) == len(items):
            inner = (
                problem(f"{name}.{i}", item, part) for i, (item, part) in enumerate(zip(value, items, strict=True))
            )
            return next(filter(None, inner), None)
    elif origin is Literal:
        if any(value == part and type(value) is type(part) for part in parts):
            return None
        closest = suggest_names(value, map(str, parts)) if isinstance(value, str) else ""
        return f"{name} must be {_expected(hint)}, not {value!r}" + f"; {closest}" * closest.startswith("did")
    elif hint is Any or (isinstance(value, bool) and hint is bool):
        return None
    elif isinstance(value, int | float if hint is float else origin or hint) and not isinstance(value, bool):
        return f"{name} must be finite, not {value}" if isinstance(value, float) and not math.isfinite(value) else None
    return f"{name} must be {_expected(hint)}, not {value!r}"


def _expected(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        return "a tuple" if parts[-1] is ... else f"a tuple of {len(parts)}"
    return _SCALARS.get(hint) or f"of type {(origin or hint).__name__}"


_SCALARS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "none"}


def is_scalar(hint: Any) -> bool:
    """Whether the annotation consists only of numbers, text, true or false, none, and choices of them."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return is_scalar(parts[0])
    if origin in (Union, types.UnionType):
        return all(map(is_scalar, parts))
    return hint in _SCALARS or origin is Literal
