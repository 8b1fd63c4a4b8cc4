"""Steps of a detector that can be traced into an ONNX graph for any number of images of any size."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import _topk_min
from torchvision.ops import batched_nms

from socodet.detection.detectors.transform import DetectorTransform

STEP = 32
"""Sides are padded to multiples of this, as in torchvision's transform."""
IMPOSSIBLE = -1.0
"""A score below every real score."""


class SelectBoxes(torch.autograd.Function):
    """ONNX's NonMaxSuppression: boxes (B, K, 4), scores (B, C, K) → (N, 3) image, class and box."""

    @classmethod
    def of_classes(
        cls, boxes: Tensor, scores: Tensor, labels: Tensor, classes: int, iou: float, least_score: float
    ) -> Tensor:
        """For boxes with one class each, labels (B, K); only boxes of the same class suppress each other."""
        own = labels[:, None] == torch.arange(classes, device=labels.device)[:, None]
        of_class = torch.where(own, scores[:, None], torch.full_like(scores[:, None], IMPOSSIBLE))
        return cast(Tensor, cls.apply(boxes, of_class, iou, least_score))

    @staticmethod
    def forward(_ctx: Any, boxes: Tensor, scores: Tensor, iou: float, least_score: float) -> Tensor:
        """Runs in torch during tracing; the values are discarded."""
        image, label, box = torch.nonzero(scores > least_score).unbind(1)
        groups = image * scores.shape[1] + label
        kept = batched_nms(boxes[image, box], scores[image, label, box], groups, iou)
        return torch.stack([image, label, box], dim=1)[kept]

    @staticmethod
    def symbolic(graph: Any, boxes: Any, scores: Any, iou: float, least_score: float) -> Any:
        """The graph node."""
        limits = [torch.tensor([sys.maxsize]), torch.tensor([iou]), torch.tensor([least_score])]
        return graph.op("NonMaxSuppression", boxes, scores, *(graph.op("Constant", value_t=one) for one in limits))


class _TracedTransform(DetectorTransform):
    """The same transform with tensors only, so that sizes do not become constants of the graph."""

    def __init__(self, original: DetectorTransform) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(original.__dict__)

    def resize(self, image: Tensor, target: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any] | None]:
        """An image (3, H, W) scaled to the detector's size."""
        return scaled_images(self, image), target


def scaled_images(transform: DetectorTransform, images: Tensor) -> Tensor:
    """Images (…, H, W) scaled to the detector's size."""
    sides = torch._shape_as_tensor(images)[-2:]
    scale = torch.minimum(transform.min_size[-1] / sides.min().double(), transform.max_size / sides.max().double())
    size = (sides.double() * scale).round().clamp(min=1).long()
    rows, columns = (interpolation(sides[axis], size[axis]) for axis in (0, 1))
    return rows @ images @ columns.T


def interpolation(before: Tensor, after: Tensor) -> Tensor:
    """(after, before) weights of an axis's old pixels in each new one, as in torch's antialiased bilinear resizing.

    The weights are a triangle around the new pixel's centre, as wide as two new or two old pixels, whichever is wider.
    onnxruntime's own antialiased Resize gives other values (1.32).
    """
    scale = before.float() / after.float()
    new, old = (torch.arange(cast(int, side)) + 0.5 for side in (after, before))  # tensors, so that a trace follows
    distance = old[None] - (new * scale)[:, None]
    weights = (1 - distance.abs() / scale.clamp(min=1)).clamp(min=0)
    normalised: Tensor = weights / weights.sum(1, keepdim=True)
    return normalised


def prepare_images(transform: DetectorTransform, images_bhw3: Tensor) -> tuple[Tensor, tuple[int, int], Tensor]:
    """The backbone's input (B, 3, H, W), the images' height and width in it, and the scale (4,) of boxes back."""
    images = images_bhw3.permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(v, device=images.device)[:, None, None] for v in (transform.image_mean, transform.image_std)
    )
    scaled = scaled_images(transform, (images - mean) / std)
    height, width = scaled.shape[-2:]
    padded = nn.functional.pad(scaled, (0, (STEP - width % STEP) % STEP, 0, (STEP - height % STEP) % STEP))
    before, after = (torch._shape_as_tensor(one)[-2:].flip(0).float() for one in (images, scaled))
    return padded, (height, width), (before / after).repeat(2)


def top_boxes_per_image(image_n: Tensor, scores_n: Tensor, images: int, limit: int) -> Tensor:
    """Indices of the `limit` highest-scoring boxes of each image, image by image, highest score first."""
    falling = scores_n.double() - 2 * image_n  # scores are at most 1
    order = falling.topk(_topk_min(falling, sys.maxsize, 0))[1]
    kept = torch.nonzero(ranks(image_n[order], images) < limit).squeeze(1)
    return order[kept]


def ranks(image_n: Tensor, images: int) -> Tensor:
    """(N,) the index of each box within its image; the boxes of an image are contiguous."""
    first = counts(image_n, images).cumsum(0) - counts(image_n, images)
    return torch.arange(0, image_n.shape[0], device=image_n.device) - first[image_n]


def counts(image_n: Tensor, images: int) -> Tensor:
    """(images,) number of boxes in each image."""
    return (image_n[:, None] == torch.arange(0, images, device=image_n.device)).long().sum(0)


@contextmanager
def make_traceable(network: nn.Module) -> Iterator[None]:
    """Replaces the network's transform, if it has one, by a traceable one."""
    original = getattr(network, "transform", None)
    if not isinstance(original, DetectorTransform):
        yield
        return
    network.transform = _TracedTransform(original)
    try:
        yield
    finally:
        network.transform = original
