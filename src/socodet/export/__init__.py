"""Pretrained weights as files for other frameworks, one module per framework."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from socodet.errors import InputError
from socodet.export.card import card_path, model_card
from socodet.export.detectron2 import detectron2_files
from socodet.export.mmdetection import mmdetection_files
from socodet.export.modules import pretrained_modules
from socodet.export.timm import timm_files
from socodet.export.torchvision import torchvision_files
from socodet.runtime.files import write_atomically

Format = Literal["torchvision", "detectron2", "mmdetection", "timm"]
_FRAMEWORKS = {
    "torchvision": torchvision_files,
    "detectron2": detectron2_files,
    "mmdetection": mmdetection_files,
    "timm": timm_files,
}


@dataclass(frozen=True)
class Exported:
    """The file of weights and its model card."""

    weights: Path
    card: Path
    unfinished: str | None
    """The progress of a run that is not finished, such as `30 of 100 steps`."""


def export_run(
    source: str | Path, output: str | Path, *, format: Format = "torchvision", overwrite: bool = False
) -> Path:
    """Writes pretrained modules to the file `output`, under a framework's own names, and returns its path.

    `source` is a run's folder, or a file of weights, such as a checkpoint of the method's public code.

    torchvision  .pth, .pt or .safetensors: backbone, FPN and box head of its R-CNN detectors
    detectron2   .pkl, and a folder of YAML configs
    mmdetection  .pth, a second one for single-stage detectors, and a folder of Python configs
    timm         .pth, .pt or .safetensors: the backbone

    Beside it comes a model card, `NAME-FORMAT.md`; configs are in `NAME-FORMAT/`.
    InputError if `source` is neither or has no checkpoint yet, if a file to be written exists and `overwrite` is false,
    if the format has another suffix, or if the framework has no such network.
    """
    return export_with_card(source, output, format=format, overwrite=overwrite).weights


def export_with_card(
    source: str | Path, output: str | Path, *, format: Format = "torchvision", overwrite: bool = False
) -> Exported:
    """`export_run`, which also says where the card is and whether the run is finished."""
    path = Path(output)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file for --output")
    card_file = card_path(path, format)
    _refuse_to_replace((path, card_file), overwrite)
    modules = pretrained_modules(source)
    files = _FRAMEWORKS[format](modules, path)
    _refuse_to_replace((*files.weights, *files.configs), overwrite)
    card = model_card(source, modules, files, format)
    for config, content in files.configs.items():
        write_atomically(config, content.encode())
    write_atomically(card_file, card.text.encode())
    for weights, data in files.weights.items():
        write_atomically(weights, data)
    return Exported(path, card_file, card.unfinished)


def _refuse_to_replace(paths: tuple[Path, ...], overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists; give another --output or pass --overwrite")
