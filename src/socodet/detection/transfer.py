"""Pretrained weights into a detector, with a word on every module: loaded, or fresh."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from socodet.errors import InputError
from socodet.export.torchvision import detector_weights, read_weights

PRETRAINED = ("backbone.", "roi_heads.box_head.")


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a detector came from pretraining, and which are still what they were."""

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]

    @property
    def loaded_modules(self) -> dict[str, int]:
        """Modules with pretrained tensors, and how many."""
        return _modules(self.loaded)

    @property
    def fresh_modules(self) -> dict[str, int]:
        """Modules with tensors left as they were, and how many."""
        return _modules(self.fresh)

    def __str__(self) -> str:
        loaded, fresh = (
            ", ".join(f"{module} ({count} tensors)" for module, count in modules.items()) or "nothing"
            for modules in (self.loaded_modules, self.fresh_modules)
        )
        return f"{self.source}:\n  loaded  {loaded}\n  fresh   {fresh}"


def _modules(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(".".join(name.split(".")[:2]) for name in names))


def load_pretrained(detector: nn.Module, source: str | Path, *, show_report: bool = True) -> LoadReport:
    """Loads backbone, FPN and box head from an exported file, or from a run's folder, into a torchvision R-CNN.

    Reports what was loaded and what was left as it was. Raises InputError, with the detector untouched, when a
    pretrained tensor has no place in the detector or a place of another shape, or when a part of these modules
    would be left as it was: weights never go missing silently.
    """
    path = Path(source)
    weights = detector_weights(path) if path.is_dir() else read_weights(path)
    own = detector.state_dict()
    homeless = [name for name in weights if name not in own]
    if homeless:
        raise InputError(
            f"{path}: {len(homeless)} of {len(weights)} pretrained tensors have no place in "
            f"{type(detector).__name__}, first {homeless[0]}; build the detector with socodet.build_detector, "
            "or use torchvision's ..._resnet50_fpn_v2 (batch norm in FPN and box head)"
        )
    for name, value in weights.items():
        if own[name].shape != value.shape:
            raise InputError(
                f"{path}: {name} is {tuple(value.shape)} there and {tuple(own[name].shape)} in "
                f"{type(detector).__name__}; build the detector with socodet.build_detector"
            )
    left = [name for name in own if name.startswith(PRETRAINED) and name not in weights]
    if left:
        raise InputError(
            f"{path}: has no weights for {len(left)} tensors of {type(detector).__name__}'s pretrained modules, first "
            f"{left[0]}: it was pretrained with another backbone; build the detector with socodet.build_detector"
        )
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    report = LoadReport(str(path), tuple(weights), tuple(name for name in own if name not in weights))
    if show_report:
        print(report, file=sys.stderr)
    return report
