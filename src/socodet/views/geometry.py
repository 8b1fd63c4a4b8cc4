"""Windows, boxes and levels as pure functions: no pixels, no state; random only by the generator given.

Boxes are xyxy (..., 4) float64 arrays. "Unit" coordinates are shares of the source image's width and height;
since the first view is the whole image made square, they are also V1's coordinates.
"""

import math

import numpy as np
from numpy.typing import NDArray

from socodet.views.settings import JitterAnchor

Boxes = NDArray[np.float64]

WHOLE: Boxes = np.array([0.0, 0.0, 1.0, 1.0])

_CROP_TRIES = 10


def draw_window(scale: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator) -> Boxes:
    """A random crop (4,) in unit coordinates, by the rule of torchvision's RandomResizedCrop.

    The area is drawn uniformly from `scale` and width over height log-uniformly from `aspect`, both again if the window
    does not fit; then the position is drawn uniformly. After ten failures, it is the largest centred window with the
    aspect nearest to 1.
    """
    log_low, log_high = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(_CROP_TRIES):
        u_area, u_aspect, u_x, u_y = rng.random(4).tolist()
        area = scale[0] + (scale[1] - scale[0]) * u_area
        ratio = math.exp(log_low + (log_high - log_low) * u_aspect)
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= 1 and height <= 1:
            x, y = u_x * (1 - width), u_y * (1 - height)
            return np.array([x, y, x + width, y + height])
    ratio = min(max(1.0, aspect[0]), aspect[1])
    width, height = min(ratio, 1.0), min(1 / ratio, 1.0)
    return np.array([1 - width, 1 - height, 1 + width, 1 + height]) / 2


def to_view(boxes: Boxes, window: Boxes, size: NDArray[np.float64] | float) -> Boxes:
    """Boxes in unit coordinates as pixels of a view that shows `window` at `size` x `size`, not clipped.

    boxes: (..., 4). window: (4,) or broadcastable with boxes. size: a number, or broadcastable with boxes.
    """
    corner = window[..., None, :2]
    factor = np.asarray(size)[..., None] / (window[..., None, 2:] - corner)
    points: Boxes = (_points(boxes) - corner) * factor
    return points.reshape(*points.shape[:-2], 4)


def _points(boxes: Boxes) -> Boxes:
    """(..., 2, 2) the corners (x1, y1) and (x2, y2)."""
    return boxes.reshape(*boxes.shape[:-1], 2, 2)


def clip(boxes: Boxes, size: NDArray[np.float64] | float) -> Boxes:
    """Boxes cut to [0, size]."""
    return np.minimum(np.maximum(boxes, 0.0), size)


def flip(boxes: Boxes, size: NDArray[np.float64] | float) -> Boxes:
    """Boxes of a view of width `size` mirrored left to right."""
    mirrored = boxes.copy()
    mirrored[..., 0], mirrored[..., 2] = size - boxes[..., 2], size - boxes[..., 0]
    return mirrored


def areas(boxes: Boxes) -> NDArray[np.float64]:
    """(...,) areas of the boxes."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(boxes: Boxes) -> Boxes:
    """(4,) the region that all boxes (N, 4) share; x2 < x1 or y2 < y1 when there is none."""
    return np.concatenate([boxes[:, :2].max(axis=0), boxes[:, 2:].min(axis=0)])


def visible(boxes: Boxes, size: NDArray[np.float64] | float, min_visible: float, min_side: float) -> NDArray[np.bool_]:
    """(...,) which boxes (pixels of a view, not clipped) the view shows well enough.

    At least `min_visible` of the area lies in the view, and that part's sides are `min_side` or more.
    """
    inside = clip(boxes, size)
    width, height = inside[..., 2] - inside[..., 0], inside[..., 3] - inside[..., 1]
    seen: NDArray[np.bool_] = width * height >= min_visible * areas(boxes)
    return seen & (width >= min_side) & (height >= min_side)


def jitter(boxes: Boxes, r: NDArray[np.float64], anchor: JitterAnchor = "centre") -> Boxes:
    """Box jitter of section 3.2; not clipped.

    With a box in its centre form (x, y, w, h): x + r_x w, y + r_y h, w + r_w w, h + r_h h. With the anchor
    "corner", x and y are those of its top left corner instead.
    boxes: (N, 4) xyxy. r: (N, 4), in that order.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    moved = r[:, :2] * sides
    grown = r[:, 2:] * sides
    if anchor == "centre":
        grown /= 2
        moved_first = moved - grown
    else:
        moved_first = moved
    jittered: Boxes = boxes + np.concatenate([moved_first, moved + grown], axis=1)
    return jittered


def scale_aware_levels(boxes: Boxes, limits: tuple[float, ...]) -> NDArray[np.int64]:
    """(...,) levels by area, section 3.3: 0 (P2) up to limits[0]² pixels, 1 up to limits[1]², and so on."""
    return np.searchsorted(np.square(limits), areas(boxes)).astype(np.int64)


def canonical_levels(boxes: Boxes) -> NDArray[np.int64]:
    """(...,) levels by Eq. 1 of FPN (Lin et al. 2017): floor(4 + log2(√area / 224)), P2 to P5 as 0 to 3."""
    level = np.floor(4 + np.log2(np.sqrt(areas(boxes)) / 224))
    levels: NDArray[np.int64] = np.clip(level, 2, 5).astype(np.int64) - 2
    return levels
