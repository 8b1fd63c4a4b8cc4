"""Shrinking against means over repeated pixels; smoothing against SciPy's Gaussian."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from socodet.proposals.selective_search.work_image import shrink, smooth, work_shape


def test_work_shape_shrinks_the_longest_side_and_never_enlarges() -> None:
    assert work_shape(375, 500, 256) == (192, 256)
    assert work_shape(4000, 1000, 256) == (256, 64)
    assert work_shape(100, 256, 256) == (100, 256)
    assert work_shape(1, 5000, 256) == (1, 256)


@pytest.mark.parametrize("shape", [(12, 10, 5, 7), (9, 9, 9, 9), (7, 3, 1, 1), (20, 1, 6, 1), (11, 13, 11, 4)])
def test_shrink_is_the_mean_of_the_covered_area(shape: tuple[int, int, int, int]) -> None:
    H, W, h, w = shape
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    repeated = np.repeat(np.repeat(image, h, axis=0), w, axis=1).astype(np.float64)
    expected = repeated.reshape(h, H, w, W, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(shrink(image, h, w), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(30, 40), (1, 17), (5, 1), (1, 1), (2, 3)])
def test_smooth_is_scipys_gaussian(shape: tuple[int, int]) -> None:
    planes = np.random.default_rng(1).uniform(0, 255, (3, *shape)).astype(np.float32)
    expected = [gaussian_filter(plane.astype(np.float64), 0.8, mode="reflect", radius=3) for plane in planes]
    np.testing.assert_allclose(smooth(planes, 0.8), expected, rtol=1e-5)


def test_smoothing_commutes_with_mirroring_bit_for_bit() -> None:
    planes = np.random.default_rng(2).uniform(0, 255, (3, 20, 31)).astype(np.float32)
    smoothed = smooth(planes, 0.8)
    np.testing.assert_array_equal(smooth(np.ascontiguousarray(planes[:, :, ::-1]), 0.8), smoothed[:, :, ::-1])
    np.testing.assert_array_equal(smooth(np.ascontiguousarray(planes[:, ::-1]), 0.8), smoothed[:, ::-1])
