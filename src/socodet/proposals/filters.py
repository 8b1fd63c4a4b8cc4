"""Which boxes are kept: the paper's filter by size and shape (section 3.2), and no near duplicates."""

import numpy as np
from numpy.typing import NDArray

from socodet.proposals.settings import ProposalSettings
from socodet.runtime.kernel_cache import njit


def object_sized(boxes: NDArray[np.float32], width: int, height: int, settings: ProposalSettings) -> NDArray[np.bool_]:
    """Which of boxes (N, 4), xyxy in pixels of an image, pass the filter of section 3.2: (N,).

    1 / max_aspect <= w / h <= max_aspect, and min_scale <= sqrt(w h) / sqrt(width height) <= max_scale.
    """
    w = boxes[:, 2].astype(np.float64) - boxes[:, 0]
    h = boxes[:, 3].astype(np.float64) - boxes[:, 1]
    share = w * h / (width * height)
    shaped = (w <= settings.max_aspect * h) & (h <= settings.max_aspect * w)
    good: NDArray[np.bool_] = shaped & (share >= settings.min_scale**2) & (share <= settings.max_scale**2)
    return good


def distinct(boxes: NDArray[np.float32], max_overlap: float) -> NDArray[np.float32]:
    """Those of boxes (N, 4) whose IoU with every earlier kept box is at most `max_overlap`."""
    kept: NDArray[np.bool_] = _distinct(boxes, max_overlap)
    return boxes[kept]


@njit(nogil=True, cache=True)
def _distinct(boxes, max_overlap):  # type: ignore[no-untyped-def]
    kept = np.zeros(len(boxes), np.bool_)
    chosen = np.empty(boxes.shape, np.float64)
    areas = np.empty(len(boxes), np.float64)
    count = 0
    for i in range(len(boxes)):
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        area = np.float64(x2 - x1) * (y2 - y1)
        duplicate = False
        for j in range(count):
            width = min(x2, chosen[j, 2]) - max(x1, chosen[j, 0])
            height = min(y2, chosen[j, 3]) - max(y1, chosen[j, 1])
            if width > 0 and height > 0:
                inside = width * height
                if inside > max_overlap * (area + areas[j] - inside) or (
                    x1 == chosen[j, 0] and y1 == chosen[j, 1] and x2 == chosen[j, 2] and y2 == chosen[j, 3]
                ):
                    duplicate = True
                    break
        if not duplicate:
            chosen[count, 0], chosen[count, 1], chosen[count, 2], chosen[count, 3] = x1, y1, x2, y2
            areas[count] = area
            count += 1
            kept[i] = True
    return kept
