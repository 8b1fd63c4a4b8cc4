"""Pretrained weights as files for other frameworks, a module a framework."""

from pathlib import Path
from typing import Literal

from socodet.errors import InputError
from socodet.export.torchvision import detector_weights, write_weights

Format = Literal["torchvision"]


def export_run(run: str | Path, output: str | Path, *, format: Format = "torchvision", overwrite: bool = False) -> Path:
    """Writes a run's backbone, FPN and box head to the file `output` in a framework's own names.

    InputError when `run` is not a run or has no checkpoint yet, when `output` exists and `overwrite` is false,
    or when its suffix is not one of the format's.
    """
    path = Path(output)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file for --output")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; give another --output or pass --overwrite")
    write_weights(detector_weights(run), path)
    return path
