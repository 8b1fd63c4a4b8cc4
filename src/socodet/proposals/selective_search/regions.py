"""Features of each region: size, box, and histograms (Uijlings et al. 2013, section 3.2)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.runtime.kernel_cache import njit

COLOR_BINS = 25
DIRECTIONS = 8
STRENGTHS = 10
TEXTURE_BINS = DIRECTIONS * STRENGTHS
BINS = COLOR_BINS + TEXTURE_BINS
"""Bins per channel."""


class Regions(NamedTuple):
    """The R regions of a segmentation."""

    sizes: NDArray[np.int32]
    """(R,) pixels."""
    boxes: NDArray[np.int32]
    """(R, 4) xyxy, exclusive right and bottom."""
    counts: NDArray[np.int32]
    """(R, C * BINS) pixels in each bin: the colour bins of all C channels, then the texture bins."""


def pixel_bins(planes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bins of each pixel of planes (C, h, w) 0..255: (2 C, h, w), all channels' colour bins, then their texture bins.

    Colour: 25 equal bins. Texture: the gradient's nearest of 8 directions, and 10 bins of its length.
    """
    bins: NDArray[np.uint8] = _pixel_bins(planes)
    return bins


def describe(labels: NDArray[np.int32], count: int, bins: NDArray[np.uint8]) -> Regions:
    """Sizes, boxes and histograms of the `count` regions of `labels` (h, w)."""
    return Regions(*_describe(labels, count, bins))


@njit(nogil=True, cache=True)
def _pixel_bins(planes):  # type: ignore[no-untyped-def]
    channels, height, width = planes.shape
    bins = np.empty((2 * channels, height, width), np.uint8)
    dx = np.empty(width, np.float32)
    dy = np.empty(width, np.float32)
    half = np.float32(0.5)
    for c in range(channels):
        for y in range(height):
            above, here, below = planes[c, max(y - 1, 0)], planes[c, y], planes[c, min(y + 1, height - 1)]
            color, texture = bins[c, y], bins[channels + c, y]
            for x in range(width):
                color[x] = _color(here[x])
                dy[x] = half * (below[x] - above[x])
            dx[0] = half * (here[min(1, width - 1)] - here[0])
            dx[width - 1] = half * (here[width - 1] - here[max(width - 2, 0)])
            for x in range(width - 2):
                dx[x + 1] = half * (here[x + 2] - here[x])
            for x in range(width):
                texture[x] = _direction(dx[x], dy[x]) * STRENGTHS + _strength(dx[x], dy[x])
    return bins


@njit(nogil=True, cache=True, inline="always")
def _color(value):  # type: ignore[no-untyped-def]
    return min(max(np.int32(value * np.float32(COLOR_BINS / 256)), np.int32(0)), np.int32(COLOR_BINS - 1))


@njit(nogil=True, cache=True, inline="always")
def _direction(dx, dy):  # type: ignore[no-untyped-def]
    """The nearest of 8 directions, 0 along x and 2 along y; without branches, so that it vectorises."""
    tangent = np.float32(0.41421356)  # of half the 45 degrees between directions
    level = np.int32(abs(dy) <= tangent * abs(dx))
    upright = np.int32(abs(dx) <= tangent * abs(dy)) & (1 - level)
    slanted = 1 - level - upright
    left, up = np.int32(dx < 0), np.int32(dy < 0)
    # Slanted: 1 (right, down), 3 (left, down), 5 (left, up), 7 (right, up).
    return level * 4 * left + upright * (2 + 4 * up) + slanted * (1 + 2 * left + 6 * up - 4 * left * up)


@njit(nogil=True, cache=True, inline="always")
def _strength(dx, dy):  # type: ignore[no-untyped-def]
    """The bin of the length; bins widen with it, because most gradients are short."""
    length = np.sqrt(dx * dx + dy * dy)
    return min(np.int32(np.sqrt(length * np.float32(1.6))), np.int32(STRENGTHS - 1))


@njit(nogil=True, cache=True)
def _describe(labels, count, bins):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    columns = bins.shape[0]
    channels = columns // 2
    first = np.empty(columns, np.int64)
    for c in range(channels):
        first[c] = c * COLOR_BINS
        first[channels + c] = channels * COLOR_BINS + c * TEXTURE_BINS
    sizes = np.zeros(count, np.int32)
    boxes = np.zeros((count, 4), np.int32)
    counts = np.zeros((count, channels * BINS), np.int32)
    for y in range(height):
        start = 0
        while start < width:
            region = labels[y, start]
            end = start + 1
            while end < width and labels[y, end] == region:
                end += 1
            for j in range(columns):
                here = bins[j, y, start:end]
                row = counts[region, first[j] :]
                for x in range(here.size):
                    row[here[x]] += 1
            if sizes[region] == 0:
                boxes[region, 0] = start
                boxes[region, 1] = y
            boxes[region, 0] = min(boxes[region, 0], start)
            boxes[region, 2] = max(boxes[region, 2], end)
            boxes[region, 3] = y + 1
            sizes[region] += end - start
            start = end
    return sizes, boxes, counts
