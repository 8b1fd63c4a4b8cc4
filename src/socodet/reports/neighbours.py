"""Which objects of other pictures does a network find most alike? Nearest neighbours, and how they are drawn."""

import numpy as np
from numpy.typing import NDArray

from socodet.reports.drawing import Panel

ROOM = 1.25
"""Side of the square shown around an object, over the longer side of the object."""
EMPTY = 127
"""Gray of what would lie outside the picture."""


def nearest_elsewhere(
    features: NDArray[np.float32], image_of: NDArray[np.int64], query: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The objects most similar to one of them, the nearest of each other picture, falling; and their cosines.

    features: (N, D) unit length. image_of: (N,) the picture of each object. Returns up to `count` row numbers: fewer
    where there are fewer other pictures. At a tie the first comes first.
    """
    cosines = features @ features[query]
    found: list[int] = []
    seen = {int(image_of[query])}
    for row in np.argsort(-cosines, kind="stable").tolist():
        if len(found) == count:
            break
        if int(image_of[row]) not in seen:
            seen.add(int(image_of[row]))
            found.append(row)
    rows = np.array(found, np.int64)
    return rows, cosines[rows]


def object_panel(image: NDArray[np.uint8], box: NDArray[np.float32], colour: str, *, title: str, alt: str) -> Panel:
    """A square cut around one object of a picture (H, W, 3), the object's box (4,) xyxy drawn on it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(edge) for edge in box)
    side = max(2, round(max(x2 - x1, y2 - y1) * ROOM))
    left, top = (_begin(low, high, side, limit) for low, high, limit in ((x1, x2, width), (y1, y2, height)))
    cut = np.full((side, side, 3), EMPTY, np.uint8)
    shown = image[max(top, 0) : top + side, max(left, 0) : left + side]
    down, across = max(-top, 0), max(-left, 0)
    cut[down : down + shown.shape[0], across : across + shown.shape[1]] = shown
    corner = np.array([left, top, left, top], np.float32)
    return Panel(title, cut, (box - corner).reshape(1, 4), (colour,), line=2.0, alt=alt)


def _begin(low: float, high: float, side: int, limit: int) -> int:
    """Where the cut begins along one axis: centred on the object, moved into the picture where it fits there."""
    begin = round((low + high - side) / 2)
    return (limit - side) // 2 if side > limit else min(max(begin, 0), limit - side)
