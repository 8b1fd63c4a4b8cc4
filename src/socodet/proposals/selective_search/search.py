"""Selective search (Uijlings et al. 2013): boxes of regions and of everything that similar neighbours merge into.

The strategies (section 4 there) say which segmentations and groupings to run.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from socodet.proposals.selective_search.color_spaces import ColorSpace, convert
from socodet.proposals.selective_search.grouping import Mix, group
from socodet.proposals.selective_search.regions import describe, pixel_bins
from socodet.proposals.selective_search.segmentation import segment, sort_edges
from socodet.proposals.selective_search.work_image import shrink, smooth, work_shape

SIGMA = 0.8
"""Standard deviation of the smoothing, pixels; smaller where the image is smaller than the reference."""
REFERENCE_SIDE = 500
"""The longest side, pixels, that the smoothing and a strategy's smallest region refer to."""
HUE_WEIGHT = 180 / 255
"""Weight of hue in an edge: 8-bit images store it in units of two degrees."""

# Weights of colour, texture, size and fill. A pixel votes once for its texture; the original counts eight one-sided
# derivatives, most of them near zero and so alike in all regions. At full weight, texture would drown the others here.
ALL = Mix(1, 0.5, 1, 1)
NO_COLOR = Mix(0, 0.5, 1, 1)
FILL = Mix(0, 0, 0, 1)
SIZE = Mix(0, 0, 1, 0)
COMPACT = Mix(0.5, 0.35, 1, 2)
"""For a single grouping: finds more objects than equal weights."""


@dataclass(frozen=True)
class Strategy:
    """Every colour space is segmented with every k, and every segmentation grouped with every mix."""

    spaces: tuple[ColorSpace, ...]
    ks: tuple[float, ...]
    """Scales of observation, the same for images of any size: shrinking makes regions smaller but edges sharper, and of
    the rules tried (k, k times the side, k times the area) this one changes the boxes least."""
    mixes: tuple[Mix, ...]
    min_size: float = 100
    """Smallest region of a segmentation, pixels at the reference side."""


STRATEGIES = {
    "single": Strategy(("hsv",), (150,), (COMPACT,)),
    "fast": Strategy(("hsv", "lab"), (145, 300), (ALL, NO_COLOR, FILL)),
    "quality": Strategy(("hsv", "lab", "rgi", "hue", "intensity"), (50, 100, 150, 300), (ALL, NO_COLOR, FILL, SIZE)),
}


def selective_search(
    image: NDArray[np.uint8], strategy: Strategy = STRATEGIES["single"], work_size: int = 256
) -> NDArray[np.float32]:
    """The boxes of all regions of the hierarchies of an image (H, W, 3) uint8 RGB: (N, 4) float32.

    xyxy in pixels of the image, exclusive right and bottom; for each of the strategy's groupings the segmentation's
    regions, then those they merge into; the last box is the whole image. Boxes may repeat. The image is first scaled
    down to a longest side of `work_size`. The smoothing scales with that side and the smallest region with its area, so
    that an image has much the same regions at any size.
    """
    height, width = image.shape[:2]
    h, w = work_shape(height, width, work_size)
    scale = max(h, w) / REFERENCE_SIDE
    rgb = smooth(shrink(image, h, w), SIGMA * min(1, scale))
    found = []
    for space in strategy.spaces:
        planes = convert(rgb, space)
        if space == strategy.spaces[-1]:
            del rgb  # hundreds of megabytes for a large image, as are the planes
        bins = pixel_bins(planes)
        if space in ("hsv", "hue"):
            planes[0] *= HUE_WEIGHT
        edges = sort_edges(planes)
        del planes
        for k in strategy.ks:
            labels, count, pairs = segment(edges, h, w, k, strategy.min_size * scale**2)
            regions = describe(labels, count, bins)
            found += [group(regions, pairs, mix, h * w).boxes for mix in strategy.mixes]
    boxes: NDArray[np.int32] = np.concatenate(found)
    # Multiplied first: whole pixels of the image stay whole.
    return (boxes * (width, height, width, height) / (w, h, w, h)).astype(np.float32)
