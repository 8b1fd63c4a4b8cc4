"""Anchors of feature pyramids."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator


class StridedAnchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors, those of each level exactly its stride apart, as in Detectron2 and MMDetection.

    torchvision divides the image's side by the level's, which is less than the stride if the level before has an odd
    side: P6 of 800 pixels has 13 cells, and its anchors would lie 61 pixels apart where its cells are 64 apart.
    """

    def __init__(
        self, sizes: Sequence[tuple[int, ...]], ratios: Sequence[tuple[float, ...]], strides: Sequence[int]
    ) -> None:
        super().__init__(tuple(sizes), tuple(ratios))
        self.strides = tuple(strides)

    def grid_anchors(self, grid_sizes: list[list[int]], strides: list[list[Tensor]]) -> list[Tensor]:
        """For each level (H·W·A, 4), from its height and width; torchvision's strides are not used."""
        anchors: list[Tensor] = super().grid_anchors(grid_sizes, [[stride, stride] for stride in self.strides])
        return anchors
