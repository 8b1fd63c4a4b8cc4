"""The feature pyramid, computed only as far as the boxes need it, and RoIAlign on it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.ops import FeaturePyramidNetwork

from socodet.models.backbones import STRIDES
from socodet.models.roi_align import roi_align
from socodet.views.batch import RoIs


def pyramid_levels(
    fpn: FeaturePyramidNetwork, features: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The pyramid's output for the levels in `needed`, finest first, None for the others.

    Equals torchvision's own forward on the needed levels. The output convolution of any other level is
    not run, nor the lateral convolution of a level finer than all needed ones; their batch norms then keep their
    running statistics.

    Shapes: `features[l]` is (B, C_l, H_l, W_l), finest first; an output is (B, C, H_l, W_l).
    """
    outputs: list[Tensor | None] = [None] * len(features)
    finest = min(level for level, is_needed in enumerate(needed) if is_needed)
    top_down: Tensor | None = None
    for level in range(len(features) - 1, finest - 1, -1):
        merged = fpn.inner_blocks[level](features[level])
        if top_down is not None:
            merged = merged + interpolate(top_down, size=merged.shape[-2:], mode="nearest")
        if needed[level]:
            outputs[level] = fpn.layer_blocks[level](merged)
        top_down = merged
    return outputs


def pool_boxes(levels: Sequence[Tensor | None], rois: RoIs, pooled_size: int) -> Tensor:
    """RoIAlign of every box on its own level only, in (image, box) order.

    Half-pixel aligned, with as many samples per cell as the box needs, as in Detectron2. From a level on which only
    other processes have boxes, an empty list is pooled, so that its gradient is zero here instead of missing.

    Shapes: `levels[l]` (B, C, H_l, W_l) → (B·K, C, pooled_size, pooled_size).
    """
    pooled = []
    start = 0
    for level, count in enumerate(rois.counts):
        features = levels[level]
        if features is not None:
            boxes = rois.rois[start : start + count]
            scale = 1.0 / STRIDES[level]
            pooled.append(roi_align(features, boxes, pooled_size, scale, sampling_ratio=0, aligned=True))
        start += count
    return torch.cat(pooled)[rois.order]
