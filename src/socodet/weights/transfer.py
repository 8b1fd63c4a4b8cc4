"""Pretrained weights into a detector, with a word on every module: loaded, fresh, or left over."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from socodet.errors import InputError
from socodet.weights.names import DetectorPlaces, left_over_modules, needed_prefixes, plain_weights

OWN_MODULES = ("extra_blocks", "norm")
"""Parts inside a pretrained module that are never pretrained: P6 and P7, and the norm behind C4's fifth block."""
COUNTER = "num_batches_tracked"
"""Batch norm's counter, which older files of supervised weights lack and nothing here reads."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a detector came from pretraining, and which are still what they were."""

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    left_over: tuple[str, ...] = ()
    """Plain names of pretrained tensors of modules that the detector does not have."""

    @property
    def loaded_modules(self) -> dict[str, int]:
        """Modules with pretrained tensors, and how many."""
        return _modules(self.loaded)

    @property
    def fresh_modules(self) -> dict[str, int]:
        """Modules with tensors left as they were, and how many."""
        return _modules(self.fresh)

    @property
    def left_over_modules(self) -> dict[str, int]:
        """Pretrained modules, in words, that the detector has no place for, and how many tensors they have."""
        return left_over_modules(self.left_over)

    def __str__(self) -> str:
        lines = [f"{self.source}:"]
        parts = [("loaded", self.loaded_modules), ("fresh", self.fresh_modules)]
        if self.left_over:
            parts.append(("left over", self.left_over_modules))
        for what, modules in parts:
            words = ", ".join(f"{module} ({count} tensors)" for module, count in modules.items())
            lines.append(f"  {what:<7} {words or 'nothing'}")
        return "\n".join(lines)


def _modules(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(_module(name.split(".")) for name in names))


def _module(parts: list[str]) -> str:
    return ".".join(parts[: 3 if len(parts) > 2 and parts[2] in OWN_MODULES else 2])


def load_pretrained(detector: nn.Module, source: str | Path, *, show_report: bool = True) -> LoadReport:
    """Loads every pretrained module that a detector of torchvision's parts has a place for.

    The source is a run's folder, an exported file, a checkpoint of the method's public code, or a backbone's state
    dict such as a supervised ResNet's. Into an R-CNN go backbone, FPN and box head; into a single-stage detector
    backbone and FPN, level by level; into an R-CNN on C4 the backbone, whose fifth block is its box head.

    Reports what was loaded, what was left as it was, and what is left over because the detector has no such module.
    A module is loaded whole or not at all. Raises InputError, with the detector untouched, when a pretrained tensor
    of a module that the detector has finds no place there or one of another shape, or when a part of the module, or
    of the backbone, would be left as it was: weights never go missing silently.
    """
    path = Path(source)
    plain = plain_weights(path)
    places = DetectorPlaces(detector)
    weights = {name: value for key, value in plain.items() if (name := places.of(key)) is not None}
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
    needed = needed_prefixes(plain, places)
    left = [name for name in own if name.startswith(needed) and name not in weights]
    if not any(name.endswith(COUNTER) for name in weights):
        left = [name for name in left if not name.endswith(COUNTER)]
    if left:
        raise InputError(
            f"{path}: has no weights for {len(left)} tensors of {type(detector).__name__}'s pretrained modules, first "
            f"{left[0]}: it was pretrained with another backbone; build the detector with socodet.build_detector"
        )
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    left_over = tuple(name for name in plain if places.of(name) is None)
    report = LoadReport(str(path), tuple(weights), tuple(name for name in own if name not in weights), left_over)
    if show_report:
        print(report, file=sys.stderr)
    return report
