"""What a command found, as `--json` prints it."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def as_json(found: Any) -> Any:
    """Plain JSON types: a result's own `as_json`, or its fields.

    Paths are text, numbers that are not finite null, sets sorted lists, and NumPy's values Python's.
    """
    own = getattr(found, "as_json", None)
    if own is not None:
        return as_json(own())
    if dataclasses.is_dataclass(found):
        shown = (field.name for field in dataclasses.fields(found) if field.name != "is_first")
        return {name: as_json(getattr(found, name)) for name in shown}
    if isinstance(found, Mapping):
        return {str(key): as_json(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [as_json(one) for one in found]
    if isinstance(found, set | frozenset):
        return [as_json(one) for one in sorted(found)]
    if hasattr(found, "tolist"):  # NumPy's scalars and arrays
        return as_json(found.tolist())
    if isinstance(found, float) and not math.isfinite(found):
        return None
    return str(found) if isinstance(found, Path) else found
