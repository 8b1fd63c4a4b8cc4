"""Colour spaces against scikit-image's."""

import numpy as np
import pytest
from skimage.color import rgb2hsv, rgb2lab

from socodet.proposals.selective_search.color_spaces import convert


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """Planes (3, 40, 50): random colours, grays, black and white."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (3, 40, 50)).astype(np.float32)
    pixels[:, 0] = np.linspace(0, 255, 50)
    return pixels


def test_hsv_matches_scikit_image(rgb: np.ndarray) -> None:
    expected = np.moveaxis(rgb2hsv(np.moveaxis(rgb.astype(np.float64), 0, 2) / 255), 2, 0) * 255
    np.testing.assert_allclose(convert(rgb, "hsv"), expected, atol=1e-3)
    np.testing.assert_array_equal(convert(rgb, "hue"), convert(rgb, "hsv")[:1])


def test_lab_matches_scikit_image(rgb: np.ndarray) -> None:
    lightness, a, b = np.moveaxis(rgb2lab(np.moveaxis(rgb.astype(np.float64), 0, 2) / 255), 2, 0)
    expected = np.stack((lightness * 2.55, a + 128, b + 128))
    np.testing.assert_allclose(convert(rgb, "lab"), expected, atol=0.25)


def test_normalised_rgb_and_intensity(rgb: np.ndarray) -> None:
    total = rgb.sum(axis=0)
    shares = np.where(total > 0, rgb[:2] / np.maximum(total, 1e-9), 1 / 3)
    expected = np.concatenate((255 * shares, total[None] / 3))
    np.testing.assert_allclose(convert(rgb, "rgi"), expected, rtol=1e-5)
    np.testing.assert_array_equal(convert(rgb, "intensity"), convert(rgb, "rgi")[2:])
