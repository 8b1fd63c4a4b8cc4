"""Pictures into a detector and its answers back: scaling, normalisation, padding."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from socodet.detection.detectors.settings import InferenceSettings
from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD


class DetectorTransform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's transform, but for how pictures are scaled: with antialiasing, as training's samples are.

    In training mode pictures come scaled already and only are normalised and padded.
    """

    def __init__(self, inference: InferenceSettings) -> None:
        super().__init__(inference.short_side, inference.max_side, list(IMAGENET_MEAN), list(IMAGENET_STD))

    def resize(self, image: Tensor, target: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any] | None]:
        """A picture (3, H, W) at the size it is looked at; a training picture and its target as they are."""
        if self.training:
            return image, target
        size = scaled_size((image.shape[-2], image.shape[-1]), self.min_size[-1], self.max_size)
        return scale_picture(image, size), target


def scaled_size(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `short_side`, or less where the longer one would exceed `max_side`."""
    scale = min(short_side / min(size), max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scale_picture(picture_3hw: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W), uint8 or floating point, at another (height, width): bilinear, with antialiasing where it shrinks."""
    if picture_3hw.shape[-2:] == torch.Size(size):
        return picture_3hw
    return interpolate(picture_3hw[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
