"""A command must not delete, on --overwrite, what it was given to read."""

import os
from pathlib import Path

from socodet.errors import InputError


def refuse_to_delete(output: str | Path, given: dict[str, str | Path | None]) -> None:
    """InputError if one of the paths `given`, by their flags, is the folder `output` or in it.

    To be called where `output` is going to be overwritten.
    """
    folder = Path(os.path.realpath(output))
    for flag, path in given.items():
        if path is not None and Path(os.path.realpath(path)).is_relative_to(folder):
            raise InputError(
                f"{output}: --overwrite would delete {path}, which is given as {flag}; give another --output"
            )
