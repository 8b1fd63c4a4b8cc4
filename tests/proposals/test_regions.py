"""Region descriptions against scikit-image's region properties and plain histograms."""

import numpy as np
from skimage.measure import regionprops

from socodet.proposals.selective_search.regions import describe, pixel_bins


def test_sizes_and_boxes_match_scikit_image() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 9, (6, 7)), 3, axis=0), 4, axis=1).astype(np.int32)
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    planes = rng.uniform(0, 255, (3, *labels.shape)).astype(np.float32)
    regions = describe(labels, labels.max() + 1, pixel_bins(planes))
    theirs = regionprops(labels + 1)
    assert regions.sizes.tolist() == [region.area for region in theirs]
    assert regions.boxes[:, [1, 0, 3, 2]].tolist() == [list(region.bbox) for region in theirs]


def test_color_counts_are_histograms_of_25_bins() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, (15, 17)).astype(np.int32)
    planes = rng.uniform(0, 255.9, (3, 15, 17)).astype(np.float32)
    counts = describe(labels, 4, pixel_bins(planes)).counts
    for region in range(4):
        for channel in range(3):
            expected, _ = np.histogram(planes[channel][labels == region], 25, (0, 256))
            np.testing.assert_array_equal(counts[region, channel * 25 : (channel + 1) * 25], expected)


def test_texture_is_direction_and_strength_of_the_gradient() -> None:
    rng = np.random.default_rng(2)
    plane = rng.uniform(0, 255, (20, 24)).astype(np.float32)
    padded = np.pad(plane, 1, mode="edge").astype(np.float64)
    dx, dy = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    direction = np.round(np.arctan2(dy, dx) / (np.pi / 4)).astype(int) % 8
    strength = np.minimum(np.sqrt(1.6 * np.hypot(dx, dy)).astype(int), 9)
    np.testing.assert_array_equal(pixel_bins(plane[None])[1], direction * 10 + strength)
    labels = rng.integers(0, 3, plane.shape).astype(np.int32)
    counts = describe(labels, 3, pixel_bins(np.stack([plane, plane.T.reshape(plane.shape), plane]))).counts
    for region in range(3):
        expected = np.bincount((direction * 10 + strength)[labels == region], minlength=80)
        np.testing.assert_array_equal(counts[region, 75:155], expected)
        np.testing.assert_array_equal(counts[region, 235:315], expected)
        assert counts[region, 155:235].sum() == (labels == region).sum()
