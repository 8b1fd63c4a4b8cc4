"""The image that is segmented: shrunk to the work size and smoothed."""

import math

import numpy as np
from numpy.typing import NDArray

from socodet.runtime.kernel_cache import njit


def work_shape(height: int, width: int, work_size: int) -> tuple[int, int]:
    """Height and width with the longest side scaled down to `work_size`; smaller images stay as they are."""
    longest = max(height, width)
    if longest <= work_size:
        return height, width
    return max(1, round(height * work_size / longest)), max(1, round(width * work_size / longest))


def shrink(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """`image` (H, W, 3) uint8 as planes (3, height, width) float32 0..255.

    Each pixel is the mean of the source area that it covers, so nothing aliases.
    """
    planes: NDArray[np.float32] = _area_mean(np.require(image, np.uint8, ("C", "W")), height, width)
    return planes


def smooth(planes: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur of planes (C, h, w), mirrored at the borders; a mirrored image gives the same bits, mirrored."""
    radius = math.ceil(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    taps /= taps[0] + 2 * taps[1:].sum()
    smoothed: NDArray[np.float32] = _gaussian(planes, taps.astype(np.float32))
    return smoothed


@njit(nogil=True, cache=True)
def _spans(source, target):  # type: ignore[no-untyped-def]
    """First and last source cell of each target cell, and the shares of these two that it covers."""
    first = np.empty(target, np.int64)
    last = np.empty(target, np.int64)
    first_share = np.empty(target, np.float32)
    last_share = np.empty(target, np.float32)
    for i in range(target):
        # In units of 1/target of a source cell, everything is an integer.
        start, end = i * source, (i + 1) * source
        first[i] = start // target
        last[i] = (end - 1) // target
        first_share[i] = ((first[i] + 1) * target - start) / target
        last_share[i] = (end - last[i] * target) / target
    return first, last, first_share, last_share


@njit(nogil=True, cache=True)
def _area_mean(image, height, width):  # type: ignore[no-untyped-def]
    H, W, _ = image.shape
    out = np.empty((3, height, width), np.float32)
    if height == H and width == W:
        for y in range(H):
            for x in range(W):
                for c in range(3):
                    out[c, y, x] = image[y, x, c]
        return out
    flat = image.reshape(H, W * 3)
    row = np.empty(W * 3, np.float32)
    top, bottom, top_share, bottom_share = _spans(H, height)
    left, right, left_share, right_share = _spans(W, width)
    scale = np.float32(height / H * width / W)
    for y in range(height):
        share = top_share[y]
        for i in range(W * 3):
            row[i] = share * np.float32(flat[top[y], i])
        for source_y in range(top[y] + 1, bottom[y] + 1):
            share = bottom_share[y] if source_y == bottom[y] else np.float32(1)
            for i in range(W * 3):
                row[i] += share * np.float32(flat[source_y, i])
        for x in range(width):
            share = left_share[x]
            a = 3 * left[x]
            red, green, blue = share * row[a], share * row[a + 1], share * row[a + 2]
            for source_x in range(left[x] + 1, right[x] + 1):
                share = right_share[x] if source_x == right[x] else np.float32(1)
                a = 3 * source_x
                red += share * row[a]
                green += share * row[a + 1]
                blue += share * row[a + 2]
            out[0, y, x] = red * scale
            out[1, y, x] = green * scale
            out[2, y, x] = blue * scale
    return out


@njit(nogil=True, cache=True)
def _mirrored(i, n):  # type: ignore[no-untyped-def]
    """Index of `i` in a row of `n` that is mirrored at both ends, repeatedly: c b a | a b c | c b a."""
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i


@njit(nogil=True, cache=True)
def _gaussian(planes, taps):  # type: ignore[no-untyped-def]
    channels, height, width = planes.shape
    radius = taps.size - 1
    out = np.empty_like(planes)
    row = np.empty(width + 2 * radius, np.float32)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                row[radius + x] = taps[0] * planes[c, y, x]
            for t in range(1, radius + 1):
                above, below = planes[c, _mirrored(y - t, height)], planes[c, _mirrored(y + t, height)]
                for x in range(width):
                    row[radius + x] += taps[t] * (above[x] + below[x])
            for t in range(1, radius + 1):
                row[radius - t] = row[radius + _mirrored(-t, width)]
                row[radius + width - 1 + t] = row[radius + _mirrored(width - 1 + t, width)]
            target = out[c, y]
            for x in range(width):
                target[x] = taps[0] * row[radius + x]
            for t in range(1, radius + 1):
                for x in range(width):
                    target[x] += taps[t] * (row[radius + x - t] + row[radius + x + t])
    return out
