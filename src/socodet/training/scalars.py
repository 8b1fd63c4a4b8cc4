"""The numbers of a log line, for what draws them as curves."""

from collections.abc import Mapping
from typing import Any


def scalars_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Its numbers by name, an item of a list as `name/index`; what is no number is left out."""
    numbers: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, int | float):
            numbers[name] = value
        elif isinstance(value, list):
            numbers |= {f"{name}/{index}": item for index, item in enumerate(value) if isinstance(item, int | float)}
    return numbers
