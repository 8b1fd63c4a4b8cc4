"""Anchors of feature pyramids."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator


class StridedAnchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors, but spaced exactly by each level's stride, as in Detectron2 and MMDetection.

    torchvision divides the image's side by the level's, which gives less than the stride if the previous level has an
    odd side: P6 of 800 pixels has 13 cells, 64 pixels apart, but its anchors would be 61 apart.
    """

    def __init__(
        self, sizes: Sequence[tuple[int, ...]], ratios: Sequence[tuple[float, ...]], strides: Sequence[int]
    ) -> None:
        super().__init__(tuple(sizes), tuple(ratios))
        self.strides = tuple(strides)

    def grid_anchors(self, grid_sizes: list[list[int]], strides: list[list[Tensor]]) -> list[Tensor]:
        """The anchors of each level, (H·W·A, 4), from its height and width; torchvision's strides are ignored."""
        anchors: list[Tensor] = super().grid_anchors(grid_sizes, [[stride, stride] for stride in self.strides])
        return anchors
