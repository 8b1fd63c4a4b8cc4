"""RoIAlign as in pretraining, for torchvision's region heads."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from socodet.models.roi_align import roi_align


def roi_pooling(
    strides: dict[str, int], output_size: int, pooling: Literal["aligned", "torchvision"]
) -> MultiScaleRoIAlign:
    """RoIAlign on feature maps with these strides: `AlignedRoIAlign`, or torchvision's own."""
    if pooling == "torchvision":
        return MultiScaleRoIAlign(list(strides), output_size, sampling_ratio=2)
    return AlignedRoIAlign(strides, output_size)


class AlignedRoIAlign(MultiScaleRoIAlign):  # type: ignore[misc]
    """Half-pixel aligned RoIAlign with as many samples per cell as the box needs; each box is pooled from one level.

    torchvision's own pools with `aligned=False` and a fixed number of samples. Levels follow feature pyramids (Lin et
    al. 2017, Eq. 1): k = ⌊4 + log2(√area / 224)⌋, clamped to P2 to P5; a single level takes all boxes.

    `strides` names each level's stride and its feature map, finest first: {"0": 4, "1": 8, …}.
    """

    def __init__(self, strides: dict[str, int], output_size: int) -> None:
        super().__init__(list(strides), output_size, sampling_ratio=0)
        self._strides = strides

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Maps (B, C, H_l, W_l) and B tensors (N_i, 4) xyxy in pixels → (ΣN_i, C, size, size), in the boxes' order."""
        image = torch.cat([torch.full_like(b[:, :1], index) for index, b in enumerate(boxes)])
        return self.pooled(x, torch.cat([image, torch.cat(boxes)], dim=1))

    def pooled(self, x: dict[str, Tensor], rois: Tensor) -> Tensor:
        """The same for boxes (N, 5): image index, and xyxy in pixels."""
        levels = self.box_levels(rois[:, 1:])
        size: tuple[int, int] = self.output_size
        first = x[self.featmap_names[0]]
        pooled = first.new_zeros((rois.shape[0], first.shape[1], *size))  # tracing does not support len()
        for level, (name, stride) in enumerate(self._strides.items()):
            here = (levels == level).nonzero().squeeze(1)
            cells = roi_align(x[name], rois[here], size, 1 / stride)
            pooled = pooled.index_copy(0, here, cells.to(pooled.dtype))
        return pooled

    def box_levels(self, boxes_n4: Tensor) -> Tensor:
        """(N,) for each box, the index in `strides` of its pyramid level."""
        area = (boxes_n4[:, 2] - boxes_n4[:, 0]) * (boxes_n4[:, 3] - boxes_n4[:, 1])
        # the small term keeps a box of exactly 112 or 224 pixels on the upper level, as in torchvision and Detectron2
        level = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8)).clamp(2, 5).long() - 2
        return level.clamp(max=len(self._strides) - 1) if len(self._strides) > 1 else torch.zeros_like(level)
