"""Selective search (Uijlings et al. 2013): boxes of regions and of everything that similar neighbours merge into."""

import numpy as np
from numpy.typing import NDArray

from socodet.proposals.selective_search.color_spaces import convert
from socodet.proposals.selective_search.grouping import group
from socodet.proposals.selective_search.regions import describe, pixel_bins
from socodet.proposals.selective_search.segmentation import segment, sort_edges
from socodet.proposals.selective_search.strategies import HUE_WEIGHT, REFERENCE_SIDE, SIGMA, STRATEGIES, Strategy
from socodet.proposals.selective_search.work_image import shrink, smooth, work_shape


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
