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

if TYPE_CHECKING:
    from socodet.demonstration import demo as demo
    from socodet.detection.build import build_detector as build_detector
    from socodet.detection.head_scale import match_head_scale as match_head_scale
    from socodet.detection.transfer import LoadReport as LoadReport
    from socodet.detection.transfer import load_pretrained as load_pretrained
    from socodet.errors import InputError as InputError
    from socodet.export import export_run as export_run
    from socodet.inspection import inspect as inspect
    from socodet.pretraining import PretrainResult as PretrainResult
    from socodet.pretraining import pretrain as pretrain
    from socodet.proposals import propose as propose
    from socodet.recipes import Recipe as Recipe
    from socodet.recipes import recipe as recipe

__version__ = "0.1.0"

# Imported at first use: `import socodet` and `socodet --help` then cost no torch.
_ORIGINS = {
    "InputError": "socodet.errors",
    "LoadReport": "socodet.detection.transfer",
    "PretrainResult": "socodet.pretraining",
    "Recipe": "socodet.recipes",
    "build_detector": "socodet.detection.build",
    "demo": "socodet.demonstration",
    "export_run": "socodet.export",
    "inspect": "socodet.inspection",
    "load_pretrained": "socodet.detection.transfer",
    "match_head_scale": "socodet.detection.head_scale",
    "pretrain": "socodet.pretraining",
    "propose": "socodet.proposals",
    "recipe": "socodet.recipes",
}
__all__ = ["__version__", *_ORIGINS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _ORIGINS:
        raise AttributeError(f"module 'socodet' has no attribute {name!r}")
    return getattr(importlib.import_module(_ORIGINS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ORIGINS])
