"""The class names of a dataset in YOLO's form: in its `data.yaml`, or one per line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from socodet.detection.datasets.annotations import Category
from socodet.detection.datasets.values import number, pixel_count
from socodet.errors import InputError
from socodet.images.lists import read_lines

NOTHING: tuple[Any, ...] = ("", [], "~", "null", "Null", "NULL")
"""YAML's spellings of no value, and an empty list."""


def named_classes(file: Path, facts: Mapping[str, Any]) -> tuple[Category, ...]:
    """The classes in `names`, a list or a map from numbers. InputError if they are unusable, or `nc` does not match."""
    names = facts.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise InputError(f"{file}: has no `names`; give a list of the classes, or their numbers and names")
    ids = [number(str(key)) for key in names]
    if not all(one.is_integer() and one >= 0 for one in ids) or len(set(ids)) < len(ids):
        raise InputError(f"{file}: `names` has a class whose number is not 0, 1, 2, …, or is there twice")
    if not all(isinstance(name, str) and name for name in names.values()):
        raise InputError(f"{file}: `names` has a class without a name")
    count = facts.get("nc")
    if count not in (None, *NOTHING) and pixel_count(count) != len(names):
        raise InputError(f"{file}: `nc` is {count!s:.40} and `names` has {len(names)} classes; correct one of them")
    return tuple(Category(int(one), name) for one, name in sorted(zip(ids, names.values(), strict=True)))


def class_lines(file: Path) -> list[str]:
    """The lines without trailing empty ones; InputError for an empty line in between, which would shift the numbers."""
    names = read_lines(file)
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise InputError(f"{file}: must have the name of a class on each line; remove empty lines")
    return names
