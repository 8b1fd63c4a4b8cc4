"""The detectors by name, and their networks."""

import torch
from torch import nn

from socodet.detection.detectors.detector import Detector
from socodet.detection.detectors.fcos import FCOSFPN
from socodet.detection.detectors.names import ALIASES
from socodet.detection.detectors.rcnn_c4 import FasterRCNNC4, MaskRCNNC4
from socodet.detection.detectors.rcnn_fpn import FasterRCNNFPN, MaskRCNNFPN
from socodet.detection.detectors.retinanet import RetinaNetFPN
from socodet.detection.detectors.rt_detr import RTDETRDetector
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.torchvision_detector import TorchvisionDetector
from socodet.errors import SettingError, suggest_names
from socodet.models.settings import ModelSettings
from socodet.runtime.extensions import is_extension, resolve_extension

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for detector in (
        MaskRCNNFPN(),
        MaskRCNNC4(),
        FasterRCNNC4(),
        FasterRCNNFPN(),
        RetinaNetFPN(),
        FCOSFPN(),
        RTDETRDetector(),
    )
}
"""Detectors by name. `ModelSettings` sets the backbone and the widths."""


def detector_named(name: str) -> Detector:
    """The detector with this name or alias, or the user's own by `module:name`. SettingError for an unknown name."""
    if is_extension(name):
        own = resolve_extension(name, Detector)  # type: ignore[type-abstract]
        own.name = name
        return own
    known = DETECTORS.get(ALIASES.get(name, name))
    if known is None:
        raise SettingError(f"detector {name!r}: unknown; {suggest_names(name, (*DETECTORS, *ALIASES))}")
    return known


def builds_as(detector: Detector, *known: type[TorchvisionDetector]) -> bool:
    """Whether the detector builds its network like one of these; a user's subclass may build a different one."""
    own = type(detector)
    parts = ("build", "assemble", "norm_layer")
    return any(issubclass(own, one) and all(getattr(own, p) == getattr(one, p) for p in parts) for one in known)


def new_detector(
    name: str, model: ModelSettings, num_classes: int, *, inference: InferenceSettings | None = None, seed: int = 0
) -> nn.Module:
    """A randomly initialised network of a detector, the same for the same seed. `Detector` says how to call it.

    `num_classes` includes the background, so it is at least 2. SettingError for an unknown name or fewer classes.
    """
    if num_classes < 2:
        raise SettingError(f"num_classes must be at least 2 (the background and one class), not {num_classes}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = detector_named(name).build(model, num_classes, inference or InferenceSettings())
    if not isinstance(network, nn.Module):
        raise SettingError(f"detector {name}: its build must return a torch.nn.Module, not a {type(network).__name__}")
    return network
