"""Blur against a float64 Gaussian; solarize and flip against torchvision."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from scipy import ndimage

from socodet.views.geometry import WHOLE
from socodet.views.photometric import UNCHANGED, Photometric
from socodet.views.rendering import render, show_window


def _planes(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (3, size, size)).astype(np.float32)


def _finished(planes: np.ndarray, flipped: bool = False, **changes: object) -> np.ndarray:
    photometric = Photometric(**{**vars(UNCHANGED), **changes})  # type: ignore[arg-type]
    return render(show_window(planes.astype(np.uint8).transpose(1, 2, 0), WHOLE, planes.shape[1]), photometric, flipped)


@pytest.mark.parametrize(
    ("size", "sigma"),
    [(8, 0.3), (8, 1.5), (101, 0.1), (101, 0.3), (101, 0.7), (101, 1.0), (101, 1.37), (101, 5.0), (224, 2.0)],
)
@pytest.mark.parametrize("kind", ["noise", "corner"])
def test_blur_matches_a_float64_gaussian(size: int, sigma: float, kind: str) -> None:
    planes = _planes(size)
    if kind == "corner":
        planes[:] = 0
        planes[:, : size // 2, : size // 2] = 255
    expected = ndimage.gaussian_filter(planes.astype(np.float64), sigma, mode="mirror", truncate=8, axes=(1, 2))
    ours = _finished(planes, blur_sigma=sigma)
    assert np.abs(ours - expected).max() < 1  # rounding is half a level


@pytest.mark.parametrize("threshold", [0, 1, 128, 200, 255])
def test_solarize_matches_torchvision(threshold: int) -> None:
    image = torch.from_numpy(_planes(64)).to(torch.uint8)
    ours = _finished(_planes(64), solarize_threshold=threshold)
    assert (ours == tv.solarize(image, threshold).numpy()).all()


@pytest.mark.parametrize("sigma", [None, 1.0])
@pytest.mark.parametrize("size", [8, 13, 16, 17, 31])
def test_flip_matches_torchvision(size: int, sigma: float | None) -> None:
    planes = _planes(size)
    straight = torch.from_numpy(_finished(planes, blur_sigma=sigma))
    assert sigma or (straight.numpy() == planes).all()
    assert (_finished(planes, True, blur_sigma=sigma) == tv.hflip(straight).numpy()).all()


def test_no_operation_changes_nothing() -> None:
    assert (_finished(_planes(40)) == _planes(40)).all()


def test_blur_comes_before_solarize() -> None:
    planes = _planes(48)
    blurred = ndimage.gaussian_filter(planes.astype(np.float64), 1.5, mode="mirror", truncate=8, axes=(1, 2))
    expected = np.where(blurred >= 128, 255 - blurred, blurred)
    ours = _finished(planes, blur_sigma=1.5, solarize_threshold=128)
    assert np.abs(ours - expected).max() < 1.1  # a value just below the threshold may be solarized or not
