"""Colour operations, against torchvision's functional API with the same parameters."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from numpy.typing import NDArray

from socodet.views.geometry import WHOLE
from socodet.views.photometric import UNCHANGED, Photometric
from socodet.views.rendering import render, show_window


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """(3, 64, 64) uint8: random colours, including greys, black, white and pure colours."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)
    pixels[:, :4] = rng.integers(0, 256, (1, 4, 64), dtype=np.uint8)
    pixels[:, 4:8] = rng.choice(np.array([0, 255], np.uint8), (3, 4, 64))
    return torch.from_numpy(pixels)


def _rendered(image: torch.Tensor, **changes: object) -> torch.Tensor:
    photometric = Photometric(**{**vars(UNCHANGED), "jittered": True, **changes})  # type: ignore[arg-type]
    return torch.from_numpy(render(show_window(image.numpy().transpose(1, 2, 0), WHOLE, 64), photometric, False))


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> int:
    return int((ours.int() - theirs.int()).abs().max())


@pytest.mark.parametrize("factor", [0.0, 0.6, 0.93, 1.0, 1.4, 2.0])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_brightness_contrast_and_saturation_match_torchvision(image: torch.Tensor, name: str, factor: float) -> None:
    theirs = getattr(tv, f"adjust_{name}")(image, factor)
    assert _difference(_rendered(image, **{name: factor}), theirs) <= 1


@pytest.mark.parametrize("turn", [-0.5, -0.1, -0.03, 0.0, 0.03, 0.1, 0.25, 0.5])
def test_hue_matches_torchvision(image: torch.Tensor, turn: float) -> None:
    assert _difference(_rendered(image, hue=turn), tv.adjust_hue(image, turn)) <= 1


@pytest.mark.parametrize("size", [8, 13, 17, 31])
def test_contrast_of_sizes_that_do_not_fill_a_vector(size: int) -> None:
    pixels = torch.from_numpy(np.random.default_rng(size).integers(0, 120, (3, size, size), np.uint8))
    pixels[:, :, -1] = 255  # padding would repeat this column
    canvas = show_window(pixels.numpy().transpose(1, 2, 0), WHOLE, size)
    ours = torch.from_numpy(
        render(canvas, Photometric(**{**vars(UNCHANGED), "jittered": True, "contrast": 0.3}), False)
    )
    assert _difference(ours, tv.adjust_contrast(pixels, 0.3)) <= 1


def test_grayscale_matches_torchvision(image: torch.Tensor) -> None:
    assert _difference(_rendered(image, grayscale=True), tv.rgb_to_grayscale(image, 3)) <= 1


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_every_order_of_operations_matches_torchvision(image: torch.Tensor, order: tuple[int, ...]) -> None:
    """All four together, against torchvision on floats, which does not round in between."""
    steps = [
        lambda x: tv.adjust_brightness(x, 1.3),
        lambda x: tv.adjust_contrast(x, 1.25),
        lambda x: tv.adjust_saturation(x, 0.85),
        lambda x: tv.adjust_hue(x, -0.08),
    ]
    theirs = image.double() / 255
    for step in order:
        theirs = steps[step](theirs)
    ours = _rendered(image, order=order, brightness=1.3, contrast=1.25, saturation=0.85, hue=-0.08)
    distance: NDArray[np.float64] = np.abs(ours.numpy() - theirs.numpy() * 255)
    assert distance.max() <= 0.51  # rounding is half a level
