"""Resampled windows, against PIL, which has the same filter."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from socodet.views.geometry import WHOLE
from socodet.views.rendering import resize, show_window
from socodet.views.resampling import resample_window, whole_vectors, working_floats


def _noisy_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """An image with smooth colours, hard edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1)
    edges = ((x // 7 + y // 5) % 2)[..., None] * 80
    image: NDArray[np.uint8] = np.clip(smooth - 40 + edges + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(
        np.uint8
    )
    return image


def _rounded(canvas: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.floor(canvas[:, :, : len(canvas)].transpose(0, 2, 1) + 0.5).astype(np.int64)


@pytest.mark.parametrize(
    ("height", "width", "size", "window"),
    [
        (375, 500, 224, (0.0, 0.0, 1.0, 1.0)),
        (375, 500, 224, (0.1234, 0.05, 0.9876, 0.8321)),
        (375, 500, 112, (0.3, 0.2, 0.95, 1.0)),
        (90, 60, 224, (0.0, 0.0, 1.0, 1.0)),  # enlarged
        (90, 60, 224, (0.2, 0.3, 0.8, 0.71)),
        (300, 60, 128, (0.0, 0.1, 0.77, 1.0)),  # reduced in one direction, enlarged in the other
        (1501, 2003, 96, (0.01, 0.02, 0.99, 0.97)),
        (224, 224, 224, (0.0, 0.0, 1.0, 1.0)),
        (1, 1, 32, (0.1, 0.2, 0.9, 0.8)),
        (1, 300, 64, (0.1, 0.2, 0.9, 0.8)),
        (300, 1, 64, (0.0, 0.0, 1.0, 1.0)),
        (3, 2, 48, (0.4, 0.1, 0.99, 0.9)),
    ],
)
def test_window_matches_pil(height: int, width: int, size: int, window: tuple[float, float, float, float]) -> None:
    image = _noisy_image(height, width)
    box = tuple(np.multiply(window, (width, height, width, height)))
    pil = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    ours = show_window(image, np.array(window), size)
    assert np.abs(_rounded(ours) - np.asarray(pil, np.int64)).max() <= 1


@pytest.mark.parametrize(("size", "smaller"), [(224, 112), (224, 96), (96, 48), (16, 8), (64, 64), (48, 80), (200, 13)])
def test_previous_view_matches_pil(size: int, smaller: int) -> None:
    image = _noisy_image(size, size)
    pil = Image.fromarray(image).resize((smaller, smaller), Image.Resampling.BILINEAR)
    canvas = show_window(image, WHOLE, size)  # unchanged, at its own size
    assert np.abs(_rounded(resize(canvas, smaller)) - np.asarray(pil, np.int64)).max() <= 1


def test_read_only_and_strided_images_give_the_same_window() -> None:
    image, window = _noisy_image(60, 80), np.array([0.1, 0.1, 0.9, 0.9])
    expected = show_window(image, window, 32).copy()
    locked = image.copy()
    locked.setflags(write=False)
    assert (show_window(locked, window, 32) == expected).all()
    assert (show_window(np.asfortranarray(image), window, 32) == expected).all()


def test_constant_image_stays_constant() -> None:
    canvas = show_window(np.full((37, 53, 3), 255, np.uint8), np.array([0.1, 0.2, 0.7, 0.9]), 60)
    assert np.abs(canvas[:, :, :60] - 255).max() < 1e-3


@pytest.mark.parametrize("size", [8, 13, 16, 17, 31, 100])
def test_resampling_ignores_old_memory_and_stays_within_its_buffers(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(40):
        height, width = rng.integers(1, 120, 2)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        x0, y0 = rng.uniform(0, 0.9, 2)
        x1, y1 = rng.uniform(x0 + 0.01, 1), rng.uniform(y0 + 0.01, 1)
        count, columns = working_floats(int(width), size), whole_vectors(size)
        work, memory = np.full(count + 64, np.nan, np.float32), np.full(size * 3 * columns + 64, np.nan, np.float32)
        canvas = memory[32:-32].reshape(size, 3, columns)
        resample_window(
            image.reshape(-1), width, x0 * width, y0 * height, x1 * width, y1 * height, canvas, work[32 : 32 + count]
        )
        for ends in (work[:32], work[-32:], memory[:32], memory[-32:]):
            assert np.isnan(ends).all()
        assert np.isfinite(canvas).all()
        box = (x0 * width, y0 * height, x1 * width, y1 * height)
        pil = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
        assert np.abs(_rounded(canvas) - np.asarray(pil, np.int64)).max() <= 1
