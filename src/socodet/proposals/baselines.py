"""Boxes that ignore the image: random ones (Table 5c of the paper), and a grid."""

import numpy as np
from numpy.typing import NDArray

from socodet.proposals.settings import ProposalSettings

RANDOM_BOXES = 32
GRID_SCALES = 4
GRID_ASPECTS = (1 / 2, 1.0, 2.0)


def random_boxes(
    width: int, height: int, settings: ProposalSettings, rng: np.random.Generator, count: int = RANDOM_BOXES
) -> NDArray[np.float32]:
    """`count` boxes inside an image, (N, 4) xyxy; fewer, or none, if hardly any of the shapes fit.

    The square root of the area is uniform in [min_scale, max_scale] of the image's, the log of the aspect ratio uniform
    between those of 1 / max_aspect and max_aspect, and the position uniform. Boxes that do not fit are drawn again.
    """
    draws = 20 * count
    side = rng.uniform(settings.min_scale, settings.max_scale, draws) * np.sqrt(width * height)
    aspect = np.exp(rng.uniform(-np.log(settings.max_aspect), np.log(settings.max_aspect), draws))
    w, h = side * np.sqrt(aspect), side / np.sqrt(aspect)
    x, y = rng.uniform(size=draws) * (width - w), rng.uniform(size=draws) * (height - h)
    fits = np.flatnonzero((w <= width) & (h <= height))[:count]
    boxes = np.stack((x, y, x + w, y + h), axis=1)[fits]
    return boxes.astype(np.float32)


def grid_boxes(width: int, height: int, settings: ProposalSettings) -> NDArray[np.float32]:
    """Boxes of four sizes and three shapes, evenly spaced; neighbours are half a box apart.

    (N, 4) xyxy in pixels of an image of `width` and `height`.
    """
    boxes = []
    step = (settings.max_scale - settings.min_scale) / GRID_SCALES
    for scale in settings.min_scale + step * (np.arange(GRID_SCALES) + 0.5):
        for aspect in GRID_ASPECTS:
            w = scale * np.sqrt(width * height * aspect)
            h = scale * np.sqrt(width * height / aspect)
            if w > width or h > height:
                continue
            across = int(np.ceil((width - w) / (w / 2))) + 1
            down = int(np.ceil((height - h) / (h / 2))) + 1
            boxes += [
                (x, y, x + w, y + h)
                for y in np.linspace(0, height - h, down)
                for x in np.linspace(0, width - w, across)
            ]
    return np.array(boxes, np.float32).reshape(-1, 4)
