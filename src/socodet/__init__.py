"""Pretrain object detectors without labels: object-level contrastive learning (SoCo, NeurIPS 2021).

    import socodet

    socodet.propose("images/", "proposals.parquet")
    socodet.pretrain("images/", "tiny", "runs/first")
    socodet.export_run("runs/first", "first.pth")
    detector = socodet.build_detector("runs/first", num_classes=21)
    socodet.load_pretrained(detector, "first.pth")

Each name is the function behind the command of that name.
"""

import importlib
from typing import TYPE_CHECKING, Any

from socodet._version import __version__

if TYPE_CHECKING:
    from socodet.deployment.export_detector import export_detector as export_detector
    from socodet.detection.build import build_detector as build_detector
    from socodet.detection.convert import convert as convert
    from socodet.detection.datasets import ReadingSettings as ReadingSettings
    from socodet.errors import InputError as InputError
    from socodet.export import export_run as export_run
    from socodet.finetuning.detector import TrainedDetector as TrainedDetector
    from socodet.finetuning.detector import load_detector as load_detector
    from socodet.finetuning.head_scale import match_head_scale as match_head_scale
    from socodet.images.reading import PixelSettings as PixelSettings
    from socodet.images.reading import read_images_as as read_images_as
    from socodet.prediction.predict import PredictResult as PredictResult
    from socodet.prediction.predict import predict as predict
    from socodet.pretraining.pretrain import PretrainResult as PretrainResult
    from socodet.pretraining.pretrain import pretrain as pretrain
    from socodet.pretraining.recipes import Recipe as Recipe
    from socodet.pretraining.recipes import recipe as recipe
    from socodet.proposals.make_table import propose as propose
    from socodet.reports.demo import demo as demo
    from socodet.reports.inspect import inspect as inspect
    from socodet.weights.load import load_pretrained as load_pretrained
    from socodet.weights.report import LoadReport as LoadReport


# Imported at first use: `import socodet` and `socodet --help` then cost no torch.
_ORIGINS = {
    "InputError": "socodet.errors",
    "LoadReport": "socodet.weights.report",
    "PixelSettings": "socodet.images.reading",
    "PredictResult": "socodet.prediction.predict",
    "PretrainResult": "socodet.pretraining.pretrain",
    "ReadingSettings": "socodet.detection.datasets",
    "Recipe": "socodet.pretraining.recipes",
    "TrainedDetector": "socodet.finetuning.detector",
    "build_detector": "socodet.detection.build",
    "convert": "socodet.detection.convert",
    "demo": "socodet.reports.demo",
    "export_detector": "socodet.deployment.export_detector",
    "export_run": "socodet.export",
    "inspect": "socodet.reports.inspect",
    "load_detector": "socodet.finetuning.detector",
    "load_pretrained": "socodet.weights.load",
    "match_head_scale": "socodet.finetuning.head_scale",
    "predict": "socodet.prediction.predict",
    "pretrain": "socodet.pretraining.pretrain",
    "propose": "socodet.proposals.make_table",
    "read_images_as": "socodet.images.reading",
    "recipe": "socodet.pretraining.recipes",
}
__all__ = ["__version__", *_ORIGINS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _ORIGINS:
        raise AttributeError(f"module 'socodet' has no attribute {name!r}")
    return getattr(importlib.import_module(_ORIGINS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ORIGINS])
