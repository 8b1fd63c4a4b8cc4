"""The feature pyramid, computed only as far as the boxes need it, and RoIAlign on it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import FeaturePyramidNetwork

from socodet.models.backbones import STRIDES
from socodet.models.blocks import convolve_together
from socodet.models.roi_align import roi_align
from socodet.views.batch import RoIs


def pyramid_levels(
    fpn: FeaturePyramidNetwork, features: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """`pyramids` of one view."""
    return pyramids(fpn, [features], [needed])[0]


def pyramids(
    fpn: FeaturePyramidNetwork, features: Sequence[Sequence[Tensor]], needed: Sequence[Sequence[bool]]
) -> list[list[Tensor | None]]:
    """Each view's levels for which `needed` is true, finest first, and None for the others.

    Equals torchvision's own forward on the needed levels. The output convolution of any other level is
    not run, nor the lateral convolution of a level finer than all needed ones; their batch norms then keep their
    running statistics. Synchronised norms exchange statistics once for all lateral convolutions, once for all outputs.

    Shapes: `features[view][level]` is (B, C_l, H_l, W_l), finest first; an output is (B, C, H_l, W_l).
    """
    finest = [list(flags).index(True) for flags in needed]
    laterals = [(v, level) for v, maps in enumerate(features) for level in reversed(range(finest[v], len(maps)))]
    merged = _run(fpn.inner_blocks, {place: features[place[0]][place[1]] for place in laterals})
    for v, level in laterals:  # from the coarsest on
        if (v, level + 1) in merged:
            coarser = interpolate(merged[v, level + 1], size=merged[v, level].shape[-2:], mode="nearest")
            merged[v, level] = merged[v, level] + coarser
    wanted = [(v, level) for v, level in laterals if needed[v][level]]
    outputs = _run(fpn.layer_blocks, {place: merged[place] for place in wanted})
    return [[outputs.get((v, level)) for level in range(len(maps))] for v, maps in enumerate(features)]


def _run(blocks: nn.ModuleList, maps: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    """Maps by (view, level), each through the block of its level."""
    outputs = convolve_together([blocks[level] for _, level in maps], list(maps.values()))  # type: ignore[misc]
    return dict(zip(maps, outputs, strict=True))


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
            pooled.append(roi_align(features, boxes, pooled_size, scale))
        start += count
    return torch.cat(pooled)[rois.order]
