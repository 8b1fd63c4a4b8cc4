"""The grouping against a slow reference that compares every pair of regions at every step."""

import numpy as np
import pytest

from socodet.proposals.selective_search.grouping import Hierarchy, Mix, group
from socodet.proposals.selective_search.regions import Regions, describe, pixel_bins
from socodet.proposals.selective_search.segmentation import segment, sort_edges

MIXES = [Mix(1, 1, 1, 1), Mix(0, 1, 1, 1), Mix(0, 0, 0, 1), Mix(0, 0, 1, 0), Mix(1, 0, 0, 0)]


def touching(labels: np.ndarray) -> set[tuple[int, int]]:
    right = zip(labels[:, :-1].ravel().tolist(), labels[:, 1:].ravel().tolist(), strict=True)
    down = zip(labels[:-1].ravel().tolist(), labels[1:].ravel().tolist(), strict=True)
    return {(min(a, b), max(a, b)) for pair in (right, down) for a, b in pair if a != b}


def reference_similarity(a: dict, b: dict, mix: Mix, pixels: int) -> float:
    """Section 3.2 of Uijlings et al., with histogram shares in integer multiples of 1/65536."""
    total = 0.0
    for weight, part in ((mix.color, "color"), (mix.texture, "texture")):
        shares = [np.floor(r[part] * (65536 / r[part].sum())) for r in (a, b)]
        total += weight * (np.minimum(*shares).sum() / 65536)
    size = a["size"] + b["size"]
    box = np.concatenate((np.minimum(a["box"], b["box"])[:2], np.maximum(a["box"], b["box"])[2:]))
    fill = (box[2] - box[0]) * (box[3] - box[1]) - size
    return total + mix.size * (1 - size / pixels) + mix.fill * (1 - fill / pixels)


def reference_group(labels: np.ndarray, regions: Regions, mix: Mix) -> Hierarchy:
    labels = labels.copy()
    channels = regions.counts.shape[1] // 105
    known = [
        {"size": size, "box": box, "color": counts[: channels * 25], "texture": counts[channels * 25 :]}
        for size, box, counts in zip(regions.sizes.astype(int), regions.boxes, regions.counts, strict=True)
    ]
    children = []
    while pairs := sorted(touching(labels)):
        scores = [reference_similarity(known[a], known[b], mix, labels.size) for a, b in pairs]
        a, b = pairs[int(np.argmax(scores))]  # the first of the largest
        labels[(labels == a) | (labels == b)] = len(known)
        box = np.concatenate(
            (
                np.minimum(known[a]["box"], known[b]["box"])[:2],
                np.maximum(known[a]["box"], known[b]["box"])[2:],
            )
        )
        known.append({"box": box} | {part: known[a][part] + known[b][part] for part in ("size", "color", "texture")})
        children.append((a, b))
    return Hierarchy(np.array([r["box"] for r in known]), np.array(children, int).reshape(-1, 2))


@pytest.mark.parametrize("mix", MIXES)
def test_grouping_equals_the_slow_reference(mix: Mix) -> None:
    rng = np.random.default_rng(3)
    for trial in range(8):
        height, width = rng.integers(1, 13, 2)
        channels = rng.choice([1, 3])
        levels = rng.choice([2, 4, 256])  # few colours, so that many similarities tie
        planes = (rng.integers(0, levels, (channels, height, width)) * (255 / (levels - 1))).astype(np.float32)
        if trial % 2:
            planes = np.repeat(np.repeat(planes, 2, axis=1), 2, axis=2)
        labels, count, pairs = segment(sort_edges(planes), *planes.shape[1:], rng.choice([5, 100]), 2)
        regions = describe(labels, count, pixel_bins(planes))
        fast, slow = group(regions, pairs, mix, labels.size), reference_group(labels, regions, mix)
        np.testing.assert_array_equal(fast.children, slow.children)
        np.testing.assert_array_equal(fast.boxes, slow.boxes)


def test_similar_regions_are_merged_first() -> None:
    # Four stripes of equal height, dark, dark, light, light: same size and fill, different colour.
    planes = np.repeat(np.array([20, 40, 200, 220], np.float32), 10)[None, :, None] * np.ones((3, 1, 40), np.float32)
    labels = np.repeat(np.arange(4, dtype=np.int32), 10)[:, None] * np.ones((1, 40), np.int32)
    regions = describe(labels, 4, pixel_bins(np.round(planes / 100) * 100))
    pairs = np.array([[1, 2], [0, 1], [2, 3]], np.int32)
    hierarchy = group(regions, pairs, Mix(1, 0, 0, 0), labels.size)
    assert hierarchy.children.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert hierarchy.boxes[4:].tolist() == [[0, 0, 40, 20], [0, 20, 40, 40], [0, 0, 40, 40]]


def test_size_favours_small_regions_and_fill_favours_enclosed_ones() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[:, 11] = 1  # 12 pixels along the side of region 0
    labels[2:6, 2:6] = 2  # a hole of 16 pixels in it
    regions = describe(labels, 3, pixel_bins(np.zeros((1, 12, 12), np.float32)))
    pairs = np.array(sorted(touching(labels)), np.int32)
    assert group(regions, pairs, Mix(0, 0, 1, 0), 144).children[0].tolist() == [0, 1]
    assert group(regions, pairs, Mix(0, 0, 0, 1), 144).children[0].tolist() == [0, 2]
