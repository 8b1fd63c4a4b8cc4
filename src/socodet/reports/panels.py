"""What a report draws on images: proposals, detections, the views of a sample, objects, similarity maps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from socodet.reports.theme import object_colour
from socodet.runtime.counted import counted
from socodet.views.sample import Sample

LEVELS = ("P2", "P3", "P4", "P5")
FEW = 24
"""More boxes than these are drawn with thin lines."""
MARGIN = 1.25
"""Side of the square crop around an object, relative to the object's longer side."""
EMPTY = 127
"""Grey value of the part of a crop that lies outside the image."""


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Panel:
    """An image and what is drawn on it. Boxes are xyxy in pixels of the image."""

    title: str
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    """(N, 4)."""
    colours: tuple[str, ...] = ()
    """One per box, #rrggbb."""
    labels: tuple[str, ...] = ()
    """One per box, or none at all."""
    windows: tuple[tuple[tuple[float, float, float, float], str], ...] = ()
    """Regions drawn as dashed outlines, xyxy, each with its name."""
    line: float = 3.0
    """Width of the boxes' lines in pixels of the figure."""
    heat: NDArray[np.float32] | None = None
    """(h, w) values drawn as colours over the whole image, which is then shown in grey."""
    heat_range: tuple[float, float] = (0.0, 1.0)
    """The values of the darkest and the brightest colour."""
    mark: tuple[float, float] | None = None
    """A point to mark with a cross: x, y in pixels of the image."""
    alt: str = ""
    """What the panel shows, for screen readers."""


def proposal_panel(title: str, image: NDArray[np.uint8], boxes: NDArray[np.float32], most: int | None = None) -> Panel:
    """An image (H, W, 3) with its proposals (N, 4), xyxy in pixels, small boxes over large ones.

    most: draw at most this many, evenly spaced from the largest to the smallest, since proposals have no scores.
    """
    shown = boxes[_large_first(boxes)]
    if most is not None and len(boxes) > most:
        shown = shown[np.linspace(0, len(boxes) - 1, most).round().astype(int)]
    few = f"{len(shown)} of " if len(shown) < len(boxes) else ""
    return Panel(
        title=f"{title} · {few}{counted(len(boxes), 'proposal')}",
        image=image,
        boxes=shown,
        colours=tuple(object_colour(k) for k in range(len(shown))),
        line=_line_width(shown),
        alt=f"{title} with {few or 'its '}{counted(len(boxes), 'object proposal')} drawn as boxes",
    )


def labelled_panel(
    title: str, image: NDArray[np.uint8], boxes: NDArray[np.float32], colours: Sequence[str], labels: Sequence[str]
) -> Panel:
    """An image (H, W, 3) with labelled boxes (N, 4), xyxy in pixels, each in its colour, #rrggbb."""
    order = _large_first(boxes)
    return Panel(
        title=title,
        image=image,
        boxes=boxes[order],
        colours=tuple(colours[k] for k in order),
        labels=tuple(labels[k] for k in order),
        line=_line_width(boxes),
        alt=f"{title}: {', '.join(labels) or 'no box'}",
    )


def sample_panels(title: str, image: NDArray[np.uint8], sample: Sample) -> list[Panel]:
    """The source image with the chosen proposals and the views' windows, followed by each view.

    An object has the same colour in all panels, and its box in a view is labelled with its pyramid level. A proposal
    that was chosen twice counts as one object.
    """
    colours = _object_colours(sample.proposals)
    size = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    panels = [
        Panel(
            title=title,
            image=image,
            boxes=sample.proposals,
            colours=colours,
            windows=_window_outlines(sample.windows, size),
            alt=f"{title}: {counted(len(set(colours)), 'chosen proposal')} and the windows of its views",
        )
    ]
    for v, pixels in enumerate(sample.pixels):
        levels = tuple(LEVELS[level] for level in sample.levels[v])
        mirrored = " · mirrored" if sample.flipped[v] else ""
        panels.append(
            Panel(
                title=f"V{v + 1} · {pixels.shape[-1]} px{mirrored}",
                image=np.ascontiguousarray(pixels.transpose(1, 2, 0)),
                boxes=sample.boxes[v],
                colours=colours[sample.partners[v] :][: len(sample.boxes[v])],
                labels=levels,
                alt=f"view V{v + 1} of {title}: the same objects, on levels {', '.join(levels)}",
            )
        )
    return panels


def object_panel(image: NDArray[np.uint8], box: NDArray[np.float32], colour: str, *, title: str, alt: str) -> Panel:
    """A square crop around one object of an image (H, W, 3), with the object's box (4,), xyxy in pixels."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(edge) for edge in box)
    side = max(2, round(max(x2 - x1, y2 - y1) * MARGIN))
    left, top = (_begin(low, high, side, limit) for low, high, limit in ((x1, x2, width), (y1, y2, height)))
    crop = np.full((side, side, 3), EMPTY, np.uint8)
    shown = image[max(top, 0) : top + side, max(left, 0) : left + side]
    down, across = max(-top, 0), max(-left, 0)
    crop[down : down + shown.shape[0], across : across + shown.shape[1]] = shown
    corner = np.array([left, top, left, top], np.float32)
    return Panel(title, crop, (box - corner).reshape(1, 4), (colour,), line=2.0, alt=alt)


def similarity_panels(
    query_image: NDArray[np.uint8],
    query_box: NDArray[np.float32],
    view_image: NDArray[np.uint8],
    view_box: NDArray[np.float32],
    similarity: NDArray[np.float32],
    *,
    title: str = "another view",
) -> tuple[Panel, Panel]:
    """An object in one view, and another view overlaid with the object's similarity map.

    query_image: (H, W, 3) and view_image: (H', W', 3) RGB. query_box and view_box: (4,) xyxy, the object in each.
    similarity: (h, w) cosines between the object's features and those at each location of a grid over view_image. A
    cross marks the maximum. Each map has its own colour range.
    """
    height, width = view_image.shape[:2]
    row, column = np.unravel_index(int(similarity.argmax()), similarity.shape)
    peak = ((column + 0.5) * width / similarity.shape[1], (row + 0.5) * height / similarity.shape[0])
    x1, y1, x2, y2 = view_box
    where = "inside" if x1 <= peak[0] <= x2 and y1 <= peak[1] <= y2 else "outside"
    colours = (object_colour(0),)
    asked = Panel(
        title="the object",
        image=query_image,
        boxes=query_box.reshape(1, 4),
        colours=colours,
        alt="an object, marked by a box, in its own view",
    )
    found = Panel(
        title=f"{title}: {where}",
        image=view_image,
        boxes=view_box.reshape(1, 4),
        colours=colours,
        heat=similarity,
        heat_range=(float(similarity.min()), float(similarity.max())),
        mark=peak,
        alt=f"{title}: the most similar place lies {where} the object's box, cosine {similarity.max():.2f}",
    )
    return asked, found


def _begin(low: float, high: float, side: int, limit: int) -> int:
    """Where the crop begins along one axis: centred on the object, shifted into the image if it fits."""
    begin = round((low + high - side) / 2)
    return (limit - side) // 2 if side > limit else min(max(begin, 0), limit - side)


def _large_first(boxes: NDArray[np.float32]) -> list[int]:
    order: list[int] = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable").tolist()
    return order


def _line_width(boxes: NDArray[np.float32]) -> float:
    return 2.0 if len(boxes) <= FEW else 1.2


def _object_colours(proposals: NDArray[np.float32]) -> tuple[str, ...]:
    seen: dict[bytes, str] = {}
    return tuple(seen.setdefault(box.tobytes(), object_colour(len(seen))) for box in proposals)


def _window_outlines(
    windows: NDArray[np.float32], size: NDArray[np.float32]
) -> tuple[tuple[tuple[float, float, float, float], str], ...]:
    """Windows in pixels of the image, with the names of the views that share them; whole images are left out."""
    names: dict[tuple[float, ...], list[str]] = {}
    for v, window in enumerate(windows):
        names.setdefault(tuple(float(edge) for edge in window * size), []).append(f"V{v + 1}")
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    return tuple(((w[0], w[1], w[2], w[3]), " ".join(views)) for w, views in names.items() if w != whole)
