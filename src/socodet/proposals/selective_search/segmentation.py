"""Graph-based segmentation of Felzenszwalb and Huttenlocher (2004) on the 4-neighbour grid."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.runtime.kernel_cache import njit

# An edge's bin is the exponent and the first 8 bits of the mantissa of its squared colour difference, a float32 between
# 2**-14 (or less) and 2**18. So every bin is at most 0.4% wide in the square, 0.2% in the difference; bins of equal
# width would put most edges into a few bins and change the regions.
MANTISSA_BITS = 8
BINS = 32 << MANTISSA_BITS
_SHIFT = 23 - MANTISSA_BITS
_BASE = (127 - 14) << MANTISSA_BITS


def _bin_weights() -> NDArray[np.float32]:
    middle = ((np.arange(BINS, dtype=np.int32) + _BASE) << _SHIFT) + (1 << (_SHIFT - 1))
    weights = np.sqrt(middle.view(np.float32))
    weights[0] = 0.0
    return weights


BIN_WEIGHTS = _bin_weights()
"""(BINS,) float32: the difference that stands for all edges of a bin."""


class Edges(NamedTuple):
    """The grid's edges, lightest first. One sort serves every k."""

    order: NDArray[np.uint32]
    """(E,) twice the index of an edge's left or upper pixel, plus 1 if the edge goes down."""
    starts: NDArray[np.int64]
    """(BINS + 1,) where in `order` each bin starts."""


class Segmentation(NamedTuple):
    """A partition of the pixels into connected regions."""

    labels: NDArray[np.int32]
    """(h, w) the region of each pixel, 0..R-1 in reading order."""
    regions: int
    """R."""
    pairs: NDArray[np.int32]
    """(P, 2) the regions that touch, smaller label first, each pair once."""


def sort_edges(planes: NDArray[np.float32]) -> Edges:
    """The edges of planes (C, h, w) by Euclidean distance of colours, by counting; ties in reading order."""
    return Edges(*_sort_edges(planes))


def segment(edges: Edges, height: int, width: int, k: float, min_size: float) -> Segmentation:
    """Regions of at least `min_size` pixels; `k` sets the scale of observation (section 3.1 of the paper)."""
    return Segmentation(*_segment(edges.order, edges.starts, BIN_WEIGHTS, height, width, np.float32(k), min_size))


@njit(nogil=True, cache=True)
def _sort_edges(planes):  # type: ignore[no-untyped-def]
    channels, height, width = planes.shape
    keys = np.empty((height, width, 2), np.uint16)
    squares = np.empty(width, np.float32)
    bits = squares.view(np.int32)
    starts = np.zeros(BINS + 1, np.int64)
    for y in range(height):
        for down in range(2):
            if down and y == height - 1:
                continue
            edges = width if down else width - 1
            for x in range(edges):
                squares[x] = 0
            for c in range(channels):
                here = planes[c, y]
                if down:
                    below = planes[c, y + 1]
                    for x in range(edges):
                        squares[x] += (below[x] - here[x]) * (below[x] - here[x])
                else:
                    for x in range(edges):
                        squares[x] += (here[x + 1] - here[x]) * (here[x + 1] - here[x])
            for x in range(edges):
                key = min(max((bits[x] >> _SHIFT) - _BASE, 0), BINS - 1)
                keys[y, x, down] = key
                starts[key + 1] += 1
    for b in range(BINS):
        starts[b + 1] += starts[b]
    order = np.empty(starts[BINS], np.uint32)
    heads = starts.copy()
    for y in range(height):
        for x in range(width):
            pixel = y * width + x
            if x < width - 1:
                key = keys[y, x, 0]
                order[heads[key]] = 2 * pixel
                heads[key] += 1
            if y < height - 1:
                key = keys[y, x, 1]
                order[heads[key]] = 2 * pixel + 1
                heads[key] += 1
    return order, starts


@njit(nogil=True, cache=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    """The first pixel of the region of pixel `i`; halves the path to it."""
    up = parent[i]
    while up != i:
        above = parent[up]
        parent[i] = above
        i = above
        up = parent[i]
    return i


@njit(nogil=True, cache=True)
def _segment(order, starts, weights, height, width, k, min_size):  # type: ignore[no-untyped-def]
    # Unsigned: every index that may be negative costs a comparison.
    pixels = height * width
    one = np.uint32(1)
    ahead = np.array([1, width], np.uint32)
    # The root of a region is its first pixel in reading order: a parent comes before its child.
    parent = np.arange(pixels).astype(np.uint32)
    size = np.ones(pixels, np.int32)
    threshold = np.full(pixels, k, np.float32)  # Int(C) + k / |C|, of the roots
    between = np.empty(order.size, np.uint32)  # refused edges: all that can lie between final regions
    refused = 0
    flatten_at = order.size // 8
    for b in range(weights.size):
        weight = weights[b]
        if starts[b] >= flatten_at:
            # Most later edges lie inside a region; flat trees show that at once.
            flatten_at = starts[b] + order.size // 8
            for pixel in range(pixels):
                parent[pixel] = parent[parent[pixel]]
        for i in range(starts[b], starts[b + 1]):
            edge = order[i]
            p = np.uint32(edge >> one)
            q = np.uint32(p + ahead[edge & one])
            if parent[p] == parent[q]:
                continue
            a, c = _root(parent, parent[p]), _root(parent, parent[q])
            parent[p], parent[q] = a, c
            if a == c:
                continue
            if weight <= threshold[a] and weight <= threshold[c]:
                first, second = min(a, c), max(a, c)
                parent[second] = first
                size[first] += size[second]
                threshold[first] = weight + k / np.float32(size[first])
            else:
                between[refused] = edge
                refused += 1
    for i in range(refused):
        edge = between[i]
        p = np.uint32(edge >> one)
        a, c = _root(parent, p), _root(parent, np.uint32(p + ahead[edge & one]))
        if a != c and (size[a] < min_size or size[c] < min_size):
            first, second = min(a, c), max(a, c)
            parent[second] = first
            size[first] += size[second]

    labels = np.empty(pixels, np.int32)
    regions = np.int64(0)
    for pixel in range(pixels):
        if parent[pixel] == pixel:
            labels[pixel] = regions
            regions += 1
        else:
            labels[pixel] = labels[parent[pixel]]
    return labels.reshape(height, width), regions, _touching(labels, between[:refused], ahead, regions)


@njit(nogil=True, cache=True)
def _touching(labels, edges, ahead, regions):  # type: ignore[no-untyped-def]
    """The distinct pairs of labels that `edges` join, in order of first appearance."""
    slots = 1024
    table = np.full(slots, -1, np.int64)  # open addressing; a pair is one number
    pairs = np.empty((slots // 2, 2), np.int32)
    found = 0
    for i in range(edges.size):
        p = np.uint32(edges[i] >> np.uint32(1))
        one = labels[p]
        other = labels[np.uint32(p + ahead[edges[i] & np.uint32(1)])]
        if one == other:
            continue
        if one > other:
            one, other = other, one
        pair = np.int64(one) * regions + other
        slot = _slot(table, pair)
        if table[slot] == pair:
            continue
        if found == slots // 2:
            slots *= 2
            table = np.full(slots, -1, np.int64)
            longer = np.empty((slots // 2, 2), np.int32)
            for j in range(found):
                longer[j, 0], longer[j, 1] = pairs[j, 0], pairs[j, 1]
                known = np.int64(pairs[j, 0]) * regions + pairs[j, 1]
                table[_slot(table, known)] = known
            pairs = longer
            slot = _slot(table, pair)
        table[slot] = pair
        pairs[found, 0] = one
        pairs[found, 1] = other
        found += 1
    return pairs[:found].copy()


@njit(nogil=True, cache=True)
def _slot(table, pair):  # type: ignore[no-untyped-def]
    """Where `pair` is in the table, or where it would go."""
    slot = ((pair * np.int64(0x9E3779B97F4A7C1)) >> 20) & (table.size - 1)
    while table[slot] >= 0 and table[slot] != pair:
        slot = (slot + 1) & (table.size - 1)
    return slot
