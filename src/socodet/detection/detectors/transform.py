"""Prepares images for a detector: scaling, flips, normalisation and padding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.settings import InferenceSettings
from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD

Answer = dict[str, Tensor]
"""boxes (N, 4) xyxy in pixels, scores and labels (N,), and masks if the detector has them."""
Target = dict[str, Tensor]
"""boxes float32 (N, 4) xyxy in pixels, labels int64 (N,), and masks uint8 (N, H, W) if the dataset has them."""


class DetectorTransform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's transform, except that images are scaled with antialiasing, like training samples, boxes without
    area are dropped, and masks are pasted by `paste_masks`.

    In training mode images are already scaled, and are only normalised and padded.
    """

    def __init__(self, inference: InferenceSettings) -> None:
        super().__init__(inference.short_side, inference.max_side, list(IMAGENET_MEAN), list(IMAGENET_STD))

    def resize(self, image: Tensor, target: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any] | None]:
        """An image (3, H, W) scaled to the detector's size; a training image and its target unchanged."""
        if self.training:
            return image, target
        size = scaled_size((image.shape[-2], image.shape[-1]), self.min_size[-1], self.max_size)
        return scale_image(image, size), target

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
        *,
        paste: bool = True,
    ) -> list[dict[str, Tensor]]:
        """Maps boxes and masks to the original images; sizes are (height, width) of the scaled and original images.

        Boxes of RetinaNet and FCOS that lie outside the image have no area once clipped, and are dropped as in
        Detectron2 and MMDetection. Without `paste`, masks stay (N, 1, M, M), as the mask head gives them.
        """
        result = [
            {name: values[boxes_with_area(answer["boxes"])] for name, values in answer.items()} for answer in result
        ]
        small = [answer.pop("masks", None) for answer in result]
        answers: list[dict[str, Tensor]] = super().postprocess(result, image_shapes, original_image_sizes)
        for answer, masks, size in zip(answers, small, original_image_sizes, strict=False):
            if masks is not None:
                answer["masks"] = paste_masks(masks, answer["boxes"], size) if paste else masks
        return answers


def boxes_with_area(boxes_n4: Tensor) -> Tensor:
    """(N,) bool: whether each box has an area."""
    return (boxes_n4[:, 2:] > boxes_n4[:, :2]).all(dim=1)


def scaled_size(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `short_side`, or less if the longer one would exceed `max_side`."""
    scale = min(short_side / min(size), max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scale_image(image_3hw: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales (3, H, W), uint8 or floating point, to (height, width): bilinear, with antialiasing where it shrinks."""
    if image_3hw.shape[-2:] == torch.Size(size):
        return image_3hw
    if size[1] == 1 < size[0]:  # torch's kernel (2.14) returns other values for an image one pixel wide
        return scale_image(image_3hw.transpose(-2, -1), (size[1], size[0])).transpose(-2, -1)
    return interpolate(image_3hw[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]


def paste_masks(masks_n1mm: Tensor, boxes_n4: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) float32: masks (N, 1, M, M), each in its box, xyxy in pixels of an image of `size` (height, width).

    Interpolates bilinearly from cell centres to pixel centres, with 0 outside, as in Detectron2 and MMDetection.
    torchvision's own function truncates box corners to whole pixels and makes masks a pixel larger.
    """
    with torch.autocast(masks_n1mm.device.type, enabled=False):  # half precision would move the outlines
        rows = mask_weights(boxes_n4[:, 1], boxes_n4[:, 3], size[0], masks_n1mm.shape[-2])
        columns = mask_weights(boxes_n4[:, 0], boxes_n4[:, 2], size[1], masks_n1mm.shape[-1])
        pasted: Tensor = rows[:, None] @ masks_n1mm.float() @ columns.transpose(1, 2)[:, None]
        return pasted


def mask_weights(first_n: Tensor, last_n: Tensor, pixels: int, cells: int) -> Tensor:
    """(N, pixels, cells): the weight of each cell of a box's mask in each pixel, along one axis of an image."""
    centres = torch.arange(0, pixels, device=first_n.device) + 0.5
    at = (centres - first_n.float()[:, None]) / (last_n - first_n).float()[:, None] * cells - 0.5
    return (1 - (at[..., None] - torch.arange(0, cells, device=first_n.device)).abs()).clamp(min=0)


def scaled_and_flipped(
    pixels_hw3: NDArray[np.uint8],
    target_at: Callable[[tuple[int, int]], Target],
    settings: ScheduleSettings,
    generator: np.random.Generator,
) -> tuple[Tensor, Target]:
    """A training image, uint8 (3, H, W), at a random size of the schedule, flipped half of the time, and its target."""
    short_side = int(generator.choice(settings.short_sides))
    flip = bool(generator.random() < 0.5)
    size = scaled_size((pixels_hw3.shape[0], pixels_hw3.shape[1]), short_side, settings.max_side)
    image = scale_image(torch.from_numpy(pixels_hw3).permute(2, 0, 1), size).contiguous()
    target = target_at(size)
    return flipped(image, target) if flip else (image, target)


def flipped(image_3hw: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Image, boxes and masks flipped left to right."""
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    width = image_3hw.shape[-1]
    turned = {**target, "boxes": torch.stack([width - x2, y1, width - x1, y2], dim=1)}
    if "masks" in target:
        turned["masks"] = target["masks"].flip(-1)
    return image_3hw.flip(-1), turned
