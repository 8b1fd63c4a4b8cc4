"""Pretrained weights as files for other frameworks, one module per framework."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from socodet.errors import InputError
from socodet.exporting.card import model_card
from socodet.exporting.detectron2 import detectron2_files
from socodet.exporting.files import FrameworkFiles, check_output
from socodet.exporting.mmdetection import mmdetection_files
from socodet.exporting.modules import PretrainedModules, pretrained_modules
from socodet.exporting.timm import timm_files
from socodet.exporting.torchvision import torchvision_files
from socodet.exporting.transformers import TransformersModel, transformers_files
from socodet.runtime.shown import Shown

Format = Literal["torchvision", "detectron2", "mmdetection", "timm", "transformers"]
BN_IMAGES = 128
_FRAMEWORKS: dict[str, Callable[[PretrainedModules, Path], FrameworkFiles]] = {
    "torchvision": torchvision_files,
    "detectron2": detectron2_files,
    "mmdetection": mmdetection_files,
    "timm": timm_files,
}


@dataclass(frozen=True)
class Exported(Shown):
    """The file of weights and its model card."""

    weights: Path
    card: Path
    unfinished: str | None
    """How far an unfinished run got, such as `30 of 100 steps`; None if it is finished."""

    def __str__(self) -> str:
        return f"{self.weights}: written; the card says what it is and how to load it: {self.card}"


def export_run(
    source: str | Path,
    output: str | Path,
    *,
    format: Format = "torchvision",
    model: TransformersModel | None = None,
    images: str | Path | None = None,
    bn_images: int = BN_IMAGES,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Exported:
    """Writes pretrained modules to the file `output` under a framework's tensor names; see `deployment.export`."""
    frameworks = _FRAMEWORKS
    if format == "transformers":
        if model is None:
            raise InputError(f"--format transformers: choose one with --model {'|'.join(get_args(TransformersModel))}")
        files_of = partial(
            transformers_files, model=model, images=images, bn_images=bn_images, show_progress=show_progress
        )
        frameworks = {**_FRAMEWORKS, format: files_of}
    elif model is not None or images is not None or bn_images != BN_IMAGES:
        raise InputError(
            f"--model, --images and --bn-images: only for --format transformers, not {format}; leave them out"
        )
    if images is not None and bn_images == 0:
        raise InputError(
            "--images: none are read with --bn-images 0, which keeps the statistics; leave out one of the flags"
        )
    path, card = check_output(output, format, _FRAMEWORKS, overwrite=overwrite)
    modules = pretrained_modules(source)
    files = frameworks[format](modules, path)
    text, unfinished = model_card(source, modules, files, format)
    files.write(card, text, overwrite=overwrite)
    return Exported(path, card, unfinished)
