"""Cutout on objects: squares of a view, each on a box, filled with the mean colour (DeVries & Taylor 2017)."""

import numpy as np
from numpy.typing import NDArray

from socodet.views.settings import ViewSettings

MEAN_COLOR = np.array([124, 116, 104], np.uint8)
"""RGB of the mean that normalisation subtracts, rounded: filled pixels become zero on the device."""


def draw_cutouts(boxes: NDArray[np.float32], settings: ViewSettings, rng: np.random.Generator) -> NDArray[np.int64]:
    """(N, 4) squares, xyxy in whole pixels of the view, right and bottom exclusive; they may reach beyond it.

    boxes: (K, 4) xyxy in pixels of the finished view. Each gets a square with probability
    `settings.cutout_probability`: its area is a share of the box's, its centre a pixel of the box, its side odd.
    """
    u = rng.random((len(boxes), 4))
    corner, sides = boxes[:, :2].astype(np.float64), (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    low, high = settings.cutout_area
    half = np.rint(np.sqrt((low + (high - low) * u[:, 1]) * sides.prod(axis=1))) // 2
    centre = np.floor(corner + sides * u[:, 2:])
    squares = np.concatenate([centre - half[:, None], centre + half[:, None] + 1], axis=1)
    return squares[u[:, 0] < settings.cutout_probability].astype(np.int64)


def paint_over(pixels: NDArray[np.uint8], squares: NDArray[np.int64]) -> None:
    """Fills the squares (N, 4) of a finished view (3, S, S) with the mean colour, in place."""
    for x1, y1, x2, y2 in np.maximum(squares, 0).tolist():
        pixels[:, y1:y2, x1:x2] = MEAN_COLOR[:, None, None]
