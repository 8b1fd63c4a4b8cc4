"""Values in annotation files as tools write them: numbers as text, 1.0 for 1, flags as words, ids of either type."""

import math
from collections.abc import Container
from typing import Any

LARGEST = 1e9
"""No size or coordinate of an image is larger."""
LONGEST_ID = 20
"""Digits of an id that is a number."""
_NO = frozenset({"", "0", "0.0", "false", "f", "no", "n", "none", "null"})
_YES = frozenset({"1", "1.0", "true", "t", "yes", "y"})


def is_text(value: str) -> bool:
    """Whether UTF-8 can hold it: not bytes of other encodings, nor half of a surrogate pair, which JSON can write."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def number(value: Any) -> float:
    """A number, written as one or as text; not-a-number for anything else, and beyond `LARGEST`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return found if abs(found) < LARGEST else math.nan


def pixel_count(value: Any) -> int:
    """A whole number above 0, as `number` reads it; 0 for anything else."""
    found = number(value)
    return int(found) if found >= 1 and found.is_integer() else 0


def flag(value: Any) -> bool | None:
    """Whether a flag is set: 0 or 1, true or false, or a word for either; None for anything else.

    A flag that is missing, null or empty is not set.
    """
    if value is None:
        return False
    word = str(value).strip().lower()  # of True, 1 and 1.0 as well
    return True if word in _YES else False if word in _NO else None


def as_id(value: Any) -> int | str | None:
    """An id as it is in the file, whole numbers as int; None for what is neither a whole number nor text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) and value != "" else None


def matching_id(value: Any, known: Container[int | str]) -> int | str | None:
    """The id among `known` that `value` refers to, as it is or with a number written as text or text as a number."""
    found = as_id(value)
    if found is None or found in known:
        return found
    other: int | str | None = str(found)
    if isinstance(found, str):
        number_of = number(found)
        long = found.isdecimal() and len(found) <= LONGEST_ID
        other = int(found) if long else int(number_of) if number_of.is_integer() else None
    return other if other is not None and other in known else None
