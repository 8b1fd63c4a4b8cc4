"""Whether a value is what the annotation of a settings field says."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "none"}


def is_plain(hint: Any) -> bool:
    """Whether the annotation is of JSON's scalars alone: numbers, text, true or false, none, and choices of them."""
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        return is_plain(parts[0])
    if get_origin(hint) in (Union, types.UnionType):
        return all(map(is_plain, parts))
    return hint in NAMES or get_origin(hint) is Literal


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of the annotated type; an int is a float too, a bool is no number."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return fits(value, parts[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(parts) == 2 and parts[1] is ...:
            return all(fits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(fits, value, parts))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else origin or hint)


def expected(hint: Any) -> str:
    """What an annotation asks for, in words that follow "must be"."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return expected(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(expected, parts))
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        if len(parts) == 2 and parts[1] is ...:
            return f"a tuple, each item {expected(parts[0])}"
        return f"a tuple of {len(parts)}, each {' or '.join(dict.fromkeys(map(expected, parts)))}"
    return NAMES.get(hint) or f"of type {getattr(hint, '__name__', hint)}"
