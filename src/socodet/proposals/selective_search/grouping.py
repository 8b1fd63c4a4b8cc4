"""Hierarchical grouping (Uijlings et al. 2013, section 3): the most similar neighbours become one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.proposals.selective_search.regions import BINS, COLOR_BINS, Regions
from socodet.runtime.kernel_cache import njit

SHARE_ONE = 1 << 16
"""Histogram shares are integers, in units of 1/65536: sums are exact in any order, and ties are exact."""


class Mix(NamedTuple):
    """Weights of the four similarities; the original's are 0 or 1."""

    color: float
    texture: float
    size: float
    fill: float


class Hierarchy(NamedTuple):
    """Every region of the hierarchy: the segmentation's R, then one per merge, the last the whole image."""

    boxes: NDArray[np.int32]
    """(2 R - 1, 4) xyxy, exclusive right and bottom."""
    children: NDArray[np.int32]
    """(R - 1, 2) the two regions that became region R + i."""


def group(regions: Regions, pairs: NDArray[np.int32], mix: Mix, pixels: int) -> Hierarchy:
    """Merges the most similar pair of touching regions until one is left.

    `pairs` (P, 2) are the touching regions, smaller number first; `pixels` is the size of the image. Ties go to the
    pair with the smallest first number, then the smallest second.
    """
    channels = regions.counts.shape[1] // BINS
    if not (mix.color or mix.texture):
        regions = regions._replace(counts=np.empty((len(regions.sizes), 0), np.int32))  # not needed
    return Hierarchy(*_group(*regions, channels, channels * COLOR_BINS, pairs, np.array(mix, np.float64), pixels))


@njit(nogil=True, cache=True)
def _before(similarity, pair, i, j):  # type: ignore[no-untyped-def]
    """Whether heap entry i goes before entry j."""
    if similarity[i] != similarity[j]:
        return similarity[i] > similarity[j]
    return pair[i] < pair[j]


@njit(nogil=True, cache=True)
def _swap(similarity, pair, i, j):  # type: ignore[no-untyped-def]
    similarity[i], similarity[j] = similarity[j], similarity[i]
    pair[i], pair[j] = pair[j], pair[i]


@njit(nogil=True, cache=True)
def _sift_up(similarity, pair, i):  # type: ignore[no-untyped-def]
    while i > 0 and _before(similarity, pair, i, (i - 1) // 2):
        _swap(similarity, pair, i, (i - 1) // 2)
        i = (i - 1) // 2


@njit(nogil=True, cache=True)
def _sift_down(similarity, pair, filled):  # type: ignore[no-untyped-def]
    i = np.int64(0)
    while True:
        child = 2 * i + 1
        if child >= filled:
            return
        if child + 1 < filled and _before(similarity, pair, child + 1, child):
            child += 1
        if not _before(similarity, pair, child, i):
            return
        _swap(similarity, pair, i, child)
        i = child


@njit(nogil=True, cache=True)
def _shares(counts, size, channels, out):  # type: ignore[no-untyped-def]
    """Fixed-point histograms; the bins of colour sum to one, as do those of texture."""
    scale = SHARE_ONE / (size * channels)
    for i in range(counts.size):
        out[i] = np.int32(counts[i] * scale)


@njit(nogil=True, cache=True)
def _overlap(one, other):  # type: ignore[no-untyped-def]
    """Intersection of two histograms, as a share (equations 1 and 3 of section 3.2)."""
    total = np.int32(0)
    for i in range(one.size):
        total = np.int32(total + min(one[i], other[i]))
    return total / SHARE_ONE


@njit(nogil=True, cache=True)
def _similarity(mix, pixels, colors, size_a, size_b, box_a, box_b, shares_a, shares_b):  # type: ignore[no-untyped-def]
    total = 0.0
    if mix[0] != 0:
        total += mix[0] * _overlap(shares_a[:colors], shares_b[:colors])
    if mix[1] != 0:
        total += mix[1] * _overlap(shares_a[colors:], shares_b[colors:])
    size = size_a + size_b
    width = max(box_a[2], box_b[2]) - min(box_a[0], box_b[0])
    height = max(box_a[3], box_b[3]) - min(box_a[1], box_b[1])
    total += mix[2] * (1 - size / pixels)
    total += mix[3] * (1 - (width * height - size) / pixels)
    return total


@njit(nogil=True, cache=True)
def _doubled(values):  # type: ignore[no-untyped-def]
    longer = np.empty(2 * values.size, values.dtype)
    for i in range(values.size):
        longer[i] = values[i]
    return longer


@njit(nogil=True, cache=True)
def _group(first_sizes, first_boxes, first_counts, channels, colors, pairs, mix, pixels):  # type: ignore[no-untyped-def]
    count, columns = first_counts.shape
    total = 2 * count - 1
    sizes = np.empty(total, np.int64)
    boxes = np.empty((total, 4), np.int32)
    for region in range(count):  # loops compile in a fraction of the time that assignments of slices take
        sizes[region] = first_sizes[region]
        for i in range(4):
            boxes[region, i] = first_boxes[region, i]
    children = np.empty((count - 1, 2), np.int32)
    # A merged region takes over the histogram row of its first child.
    counts = first_counts.copy()
    shares = np.empty((count, columns), np.int32)
    for region in range(count):
        _shares(counts[region], sizes[region], channels, shares[region])
    row = np.arange(total)
    successor = np.arange(total).astype(np.int32)  # the region that a region was merged into

    # Neighbours: a linked list per region, of the regions that existed when it was made; reading it follows their
    # successors. Merging two regions joins their lists, so the links never need more memory.
    links = 2 * len(pairs)
    neighbor = np.empty(links, np.int32)
    following = np.empty(links, np.int32)
    head = np.full(total, -1, np.int32)
    capacity = max(16, 4 * len(pairs))
    similarity = np.empty(capacity, np.float64)
    pair = np.empty(capacity, np.int64)  # the first region, then the second in the low 32 bits
    filled = np.int64(0)  # a literal 0 would compile the called function once more
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        neighbor[2 * i], following[2 * i], head[a] = b, head[a], 2 * i
        neighbor[2 * i + 1], following[2 * i + 1], head[b] = a, head[b], 2 * i + 1
        similarity[filled] = _similarity(
            mix, pixels, colors, sizes[a], sizes[b], boxes[a], boxes[b], shares[a], shares[b]
        )
        pair[filled] = np.int64(a) << 32 | b
        _sift_up(similarity, pair, filled)
        filled += 1

    seen = np.full(total, -1, np.int32)
    for region in range(count, total):
        while True:  # entries of merged regions stay in the heap until popped
            a, b = np.uint32(pair[0] >> 32), np.uint32(pair[0] & 0xFFFFFFFF)
            filled -= 1
            similarity[0], pair[0] = similarity[filled], pair[filled]
            _sift_down(similarity, pair, filled)
            if successor[a] == a and successor[b] == b:
                break
        children[region - count, 0], children[region - count, 1] = a, b
        successor[a] = successor[b] = region
        sizes[region] = sizes[a] + sizes[b]
        for i in range(2):
            boxes[region, i] = min(boxes[a, i], boxes[b, i])
            boxes[region, 2 + i] = max(boxes[a, 2 + i], boxes[b, 2 + i])
        row[region] = row[a]
        mine, gone = counts[row[a]], counts[row[b]]
        for i in range(columns):
            mine[i] += gone[i]
        _shares(mine, sizes[region], channels, shares[row[region]])

        kept = np.int32(-1)
        for part in (a, b):
            link = head[part]
            while link >= 0:
                after = following[link]
                other = neighbor[link]
                while successor[other] != other:
                    successor[other] = successor[successor[other]]
                    other = successor[other]
                if other != region and seen[other] != region:
                    seen[other] = region
                    neighbor[link], following[link], kept = other, kept, link
                    if filled == similarity.size:
                        similarity, pair = _doubled(similarity), _doubled(pair)
                    similarity[filled] = _similarity(
                        mix,
                        pixels,
                        colors,
                        sizes[region],
                        sizes[other],
                        boxes[region],
                        boxes[other],
                        shares[row[region]],
                        shares[row[other]],
                    )
                    pair[filled] = np.int64(other) << 32 | region
                    _sift_up(similarity, pair, filled)
                    filled += 1
                link = after
        head[region] = kept
    return boxes, children
