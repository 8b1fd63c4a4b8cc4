"""The segmentation against a slow reference, and against scikit-image where ties and diagonals do not matter."""

import numpy as np
import pytest
from skimage.segmentation import felzenszwalb

from socodet.proposals.selective_search.segmentation import BIN_WEIGHTS, Segmentation, segment, sort_edges


def bins_by_hand(squares: np.ndarray) -> np.ndarray:
    """256 bins per octave, linear within it, from 2**-14 upwards."""
    mantissa, exponent = np.frexp(np.maximum(squares.astype(np.float64), 2.0**-30))
    return np.clip((exponent - 1 + 14) * 256 + np.floor((2 * mantissa - 1) * 256), 0, 8191).astype(int)


def reference_edges(planes: np.ndarray) -> list[tuple[int, int, int]]:
    """Bin and both pixels of every edge; lightest first, ties in reading order, right before down."""
    _, height, width = planes.shape
    edges = []
    for y in range(height):
        for x in range(width):
            for dx, dy in ((1, 0), (0, 1)):
                if x + dx < width and y + dy < height:
                    square = np.float32(0)
                    for plane in planes:
                        difference = plane[y + dy, x + dx] - plane[y, x]
                        square += difference * difference
                    key = int(bins_by_hand(np.array([square]))[0])
                    edges.append((key, y * width + x, (y + dy) * width + x + dx))
    return sorted(edges, key=lambda edge: edge[0])


def reference_segment(planes: np.ndarray, k: float, min_size: float) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Algorithm 1 of Felzenszwalb and Huttenlocher (2004), with a set of pixels for each region."""
    _, height, width = planes.shape
    region = {pixel: frozenset([pixel]) for pixel in range(height * width)}
    inner = {region[pixel]: np.float32(0) for pixel in region}
    edges = reference_edges(planes)
    for key, a, b in edges:
        one, other, weight = region[a], region[b], BIN_WEIGHTS[key]
        if one != other and all(weight <= inner[r] + np.float32(k) / np.float32(len(r)) for r in (one, other)):
            merged = one | other
            inner[merged] = weight
            region.update(dict.fromkeys(merged, merged))
    for _, a, b in edges:
        one, other = region[a], region[b]
        if one != other and min(len(one), len(other)) < min_size:
            merged = one | other
            region.update(dict.fromkeys(merged, merged))
    names: dict[frozenset[int], int] = {}
    labels = [names.setdefault(region[pixel], len(names)) for pixel in range(height * width)]
    pairs = {tuple(sorted((labels[a], labels[b]))) for _, a, b in edges if labels[a] != labels[b]}
    return np.array(labels).reshape(height, width), pairs


def segment_planes(planes: np.ndarray, k: float, min_size: float) -> Segmentation:
    return segment(sort_edges(planes), *planes.shape[1:], k, min_size)


@pytest.mark.parametrize("levels", [3, 256])
def test_segmentation_equals_the_slow_reference(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(25):
        height, width = rng.integers(1, 14, 2)
        channels = rng.choice([1, 3])
        planes = rng.integers(0, levels, (channels, height, width)).astype(np.float32)
        planes += rng.choice([0, 0.3]) * rng.random(planes.shape, np.float32)
        k, min_size = rng.choice([1, 20, 200]), rng.choice([0, 2, 6])
        labels, pairs = reference_segment(planes, k, min_size)
        fast = segment_planes(planes, k, min_size)
        np.testing.assert_array_equal(fast.labels, labels)
        assert fast.regions == labels.max() + 1
        assert {tuple(pair) for pair in fast.pairs.tolist()} == pairs
        assert len(fast.pairs) == len(pairs)


@pytest.mark.parametrize(("k", "min_size"), [(30, 1), (300, 20), (3000, 60)])
def test_segmentation_equals_scikit_image_on_stripes(k: float, min_size: int) -> None:
    # On stripes, scikit-image's additional diagonal edges have the same weights as the horizontal ones.
    rng = np.random.default_rng(0)
    for _ in range(10):
        stripes = rng.permutation(256)[: rng.integers(2, 60)].astype(np.uint8)
        image = np.repeat(np.repeat(stripes[None, :], 7, axis=0), rng.integers(1, 4), axis=1)
        theirs = felzenszwalb(image, scale=k, sigma=0, min_size=min_size)
        ours = segment_planes(image[None].astype(np.float32), k, min_size)
        assert ours.regions == theirs.max() + 1
        assert len(np.unique(ours.labels * (theirs.max() + 1) + theirs)) == ours.regions


def test_a_smooth_ramp_is_one_region_and_a_step_is_two() -> None:
    ramp = np.broadcast_to(np.linspace(0, 80, 40, dtype=np.float32), (1, 30, 40)).copy()
    assert segment_planes(ramp, 100, 20).regions == 1
    ramp[:, :, 25:] += 90
    step = segment_planes(ramp, 100, 20)
    np.testing.assert_array_equal(step.labels, np.broadcast_to(np.arange(40) >= 25, (30, 40)))
    assert step.pairs.tolist() == [[0, 1]]


def test_bin_weights_are_accurate_to_a_tenth_of_a_percent() -> None:
    differences = np.geomspace(0.02, 440, 3000).astype(np.float32)
    weights = BIN_WEIGHTS[bins_by_hand(differences**2)]
    assert np.abs(weights / differences - 1).max() < 1 / 900
