"""Areas of shapes that labelling tools draw, and the objects that one or more of them form."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.entries import Entry
from socodet.detection.datasets.masks import RLE, as_rle, box_outline, joined_masks, mask_area

CORNERS = 64
"""Number of corners of the outline of an ellipse."""
BROKEN = "broken mask"
"""Placeholder for a mask that cannot be read, so that it is counted."""


class Area(NamedTuple):
    """A shape that is an object or a part of one."""

    box: NDArray[np.float64]
    """(4,) xyxy"""
    area: float
    outline: NDArray[np.float64] | None = None
    """(2·P,); None for a rectangle, whose outline is its box, and for a mask."""
    mask: RLE | str | None = None


def outlined(points: NDArray[np.float64]) -> Area:
    """The area within an outline of (P, 2) points."""
    x, y = points.T
    covered = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    return Area(bounds(points), float(covered), points.reshape(-1))


def bounds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The xyxy box around (P, 2) points."""
    return np.concatenate([points.min(0), points.max(0)])


def ellipse(x: float, y: float, wide: float, high: float, turned: float) -> NDArray[np.float64]:
    """(P, 2) points of an ellipse from its centre, its radii and its clockwise rotation in radians."""
    angles = 2 * np.pi / CORNERS * np.arange(CORNERS)
    upright = np.array([wide * np.cos(angles), high * np.sin(angles)])
    outline: NDArray[np.float64] = (rotation(turned) @ upright).T + np.array([x, y])
    return outline


def rotation(turned: float) -> NDArray[np.float64]:
    """(2, 2): turns points clockwise by this angle in radians, since y points down in images."""
    return np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])


def joined_entry(areas: Sequence[Area], entry_id: str, width: int, height: int) -> Entry:
    """An object of one or more areas as an entry of COCO's `annotations`, except that its box is given as corners.

    Width and height are those of the image; 0 if they are unusable, for areas without masks.
    """
    boxes = np.array([area.box for area in areas])
    entry = {"id": entry_id, "bbox": [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]}
    if all(area.outline is None and area.mask is None for area in areas):
        return entry
    if any(area.mask is BROKEN for area in areas):
        return entry | {"segmentation": BROKEN}
    outlines = [
        box_outline(area.box.tolist())[0] if area.outline is None else area.outline for area in areas if not area.mask
    ]
    masks = [area.mask for area in areas if isinstance(area.mask, dict)]
    if not masks:
        covered = areas[0].area if len(areas) == 1 else mask_area(as_rle(outlines, height, width)) if height else None
        return entry | {"segmentation": [outline.tolist() for outline in outlines], "area": covered or None}
    rle = joined_masks([*masks, *([as_rle(outlines, height, width)] if outlines else [])])
    return entry | {"segmentation": rle, "area": mask_area(rle) or None}
