"""Reads values in annotation files as tools write them: numbers as text, 1.0 for 1, flags as words, ids as either."""

import math
from collections.abc import Container
from typing import Any

LARGEST = 1e9
"""Largest valid size or coordinate."""
LONGEST_ID = 20
"""Maximum number of digits of a numeric id."""
_FLAGS = dict.fromkeys(("", "0", "0.0", "false", "f", "no", "n", "none", "null"), False)
_FLAGS |= dict.fromkeys(("1", "1.0", "true", "t", "yes", "y"), True)


def is_text(value: str) -> bool:
    """Whether UTF-8 can hold the text: no bytes of other encodings, and no half of a surrogate pair (from JSON)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def number(value: Any) -> float:
    """A number, written as a number or as text; NaN for anything else, and beyond `LARGEST`."""
    if type(value) is float or type(value) is int:  # nearly always, and a large dataset has millions
        return float(value) if abs(value) < LARGEST else math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return found if abs(found) < LARGEST else math.nan


def pixel_count(value: Any) -> int:
    """A positive whole number, as read by `number`; 0 for anything else."""
    found = number(value)
    return int(found) if found >= 1 and found.is_integer() else 0


def flag(value: Any) -> bool | None:
    """Whether a flag is set: 0 or 1, true or false, or a word for either; None for anything else.

    A missing, null or empty flag is not set.
    """
    if value is None:
        return False
    return _FLAGS.get(str(value).strip().lower())  # also for True, 1 and 1.0


def as_id(value: Any) -> int | str | None:
    """An id from a file, with whole numbers as int; None for anything that is neither a whole number nor text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) and value != "" else None


def matching_id(value: Any, known: Container[int | str]) -> int | str | None:
    """The id among `known` that `value` refers to, where a number may be written as text, and text as a number."""
    if type(value) is int and value in known:  # nearly always
        return value
    found = as_id(value)
    if found is None or found in known:
        return found
    other: int | str | None = str(found)
    if isinstance(found, str):
        number_of = number(found)
        long = found.isdecimal() and len(found) <= LONGEST_ID
        other = int(found) if long else int(number_of) if number_of.is_integer() else None
    return other if other is not None and other in known else None
