"""The detectors that pretraining is judged by, put together from torchvision's parts, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from socodet.detection.detectors.rcnn_c4 import faster_rcnn_c4, mask_rcnn_c4
from socodet.detection.detectors.rcnn_fpn import faster_rcnn_fpn, mask_rcnn_fpn
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.single_stage import fcos, retinanet
from socodet.detection.detectors.transform import DetectorTransform
from socodet.errors import InputError
from socodet.models.settings import ModelSettings

__all__ = ["DETECTORS", "DetectorKind", "InferenceSettings", "compile_parts", "detector_kind", "new_detector"]


@dataclass(frozen=True)
class DetectorKind:
    """A detector of the table: how it is built, and what it is trained by."""

    build: Callable[[ModelSettings, int, InferenceSettings], nn.Module]
    """From the sizes of its modules, the number of classes with the background, and how it looks at pictures."""
    boxes_only: str | None = None
    """For a detector of masks, the same without them."""
    single_stage: bool = False

    @property
    def has_masks(self) -> bool:
        """Whether it is trained by masks and finds them."""
        return self.boxes_only is not None


DETECTORS: dict[str, DetectorKind] = {
    "mask_rcnn_r50_fpn": DetectorKind(mask_rcnn_fpn, boxes_only="faster_rcnn_r50_fpn"),
    "mask_rcnn_r50_c4": DetectorKind(mask_rcnn_c4, boxes_only="faster_rcnn_r50_c4"),
    "faster_rcnn_r50_c4": DetectorKind(faster_rcnn_c4),
    "faster_rcnn_r50_fpn": DetectorKind(faster_rcnn_fpn),
    "retinanet_r50_fpn": DetectorKind(retinanet, single_stage=True),
    "fcos_r50_fpn": DetectorKind(fcos, single_stage=True),
}
"""By the names of the paper's tables; another backbone than ResNet-50, and other widths, come from `ModelSettings`."""

_OUTPUTS = (
    *("backbone", "rpn.head", "head"),
    *("roi_heads.box_predictor", "roi_heads.mask_predictor"),
)


def detector_kind(name: str) -> DetectorKind:
    """The detector of that name. InputError for an unknown one."""
    if name not in DETECTORS:
        raise InputError(f"detector {name!r}: unknown; choose one of {', '.join(DETECTORS)}")
    return DETECTORS[name]


def new_detector(
    name: str, settings: ModelSettings, num_classes: int, *, inference: InferenceSettings | None = None, seed: int = 0
) -> nn.Module:
    """A randomly initialised detector, the same for the same seed; `num_classes` counts the background.

    Called as torchvision's detectors: pictures as (3, H, W) of RGB in [0, 1], in training mode at the size they are
    to be seen at, with targets. Every box and mask is pooled as in pretraining (`AlignedRoIAlign`). Under autocast
    feature maps and outputs are float32 again, so that coordinates are never rounded to bfloat16.
    """
    inference = inference or InferenceSettings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = detector_kind(name).build(settings, num_classes, inference)
    detector.transform = DetectorTransform(inference)
    for place, module in detector.named_modules():
        if place in _OUTPUTS:
            module.register_forward_hook(_as_float32)
    return detector


def compile_parts(detector: nn.Module, backend: str = "inductor") -> None:
    """Compiles a detector's backbone, and an R-CNN's box head, in place and under their own names.

    Pictures have many sizes: the code is for any of them. What lies between selects boxes, and stays as it is.
    """
    for place, module in detector.named_modules():
        if place in ("backbone.body", "roi_heads.box_head"):
            module.compile(backend=backend, dynamic=True)


def _as_float32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """The same, with every tensor in it float32."""
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {name: _as_float32(_module, _inputs, value) for name, value in output.items()}
    return type(output)(_as_float32(_module, _inputs, value) for value in output)
