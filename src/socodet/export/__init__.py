"""Pretrained weights as files for other frameworks, a module a framework."""

from pathlib import Path
from typing import Literal

from socodet.errors import InputError
from socodet.export.card import card_path, model_card
from socodet.export.detectron2 import detectron2_files
from socodet.export.mmdetection import mmdetection_files
from socodet.export.timm import timm_files
from socodet.export.torchvision import torchvision_files
from socodet.runtime.files import write_atomically
from socodet.weights.modules import FrameworkFiles, pretrained_modules

Format = Literal["torchvision", "detectron2", "mmdetection", "timm"]


def export_run(run: str | Path, output: str | Path, *, format: Format = "torchvision", overwrite: bool = False) -> Path:
    """Writes a run's pretrained modules to the file `output`, under a framework's own names.

    torchvision  .pth, .pt or .safetensors: backbone, FPN and box head of its R-CNN detectors
    detectron2   .pkl, and a folder of YAML configs
    mmdetection  .pth, a second one for single-stage detectors, and a folder of Python configs
    timm         .pth, .pt or .safetensors: the backbone

    Beside it comes a model card, `NAME-FORMAT.md`; configs are in `NAME-FORMAT/`.
    InputError when `run` is not a run or has no checkpoint yet, when a file to be written exists and `overwrite`
    is false, when the suffix is not one of the format's, or when the framework has no such network.
    """
    path = Path(output)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file for --output")
    card = card_path(path, format)
    for there in (path, card):
        _refuse_to_replace(there, overwrite)
    files = _framework_files(run, path, format)
    for there in (*files.weights, *files.configs):
        _refuse_to_replace(there, overwrite)
    text = model_card(run, files, format)
    for config, content in files.configs.items():
        write_atomically(config, content.encode())
    write_atomically(card, text.encode())
    for weights, data in files.weights.items():
        write_atomically(weights, data)
    return path


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; give another --output or pass --overwrite")


def _framework_files(run: str | Path, output: Path, format: Format) -> FrameworkFiles:
    if format == "torchvision":
        return torchvision_files(run, output)
    modules = pretrained_modules(run)
    if format == "detectron2":
        return detectron2_files(modules, output)
    if format == "mmdetection":
        return mmdetection_files(modules, output)
    return timm_files(modules, output)
