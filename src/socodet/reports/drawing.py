"""Boxes on pictures: proposals on an image, and an object in one colour through all views of a sample."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from socodet.reports.theme import DPI, LIGHT, POINTS, blank_figure, object_colour
from socodet.views.sample import Sample

LEVELS = ("P2", "P3", "P4", "P5")
HALO = "#0b0e11"
TITLE_HEIGHT = 24  # pixels
GAP = 10
LABEL_SIZE = (30, 24)  # of two letters, with some air
LETTER = 9  # width of one
FEW = 24  # more boxes than these are drawn thin


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Panel:
    """One picture and what is drawn on it. Boxes are xyxy in pixels of the picture."""

    title: str
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    """(N, 4)."""
    colours: tuple[str, ...] = ()
    """One a box, #rrggbb."""
    labels: tuple[str, ...] = ()
    """One a box, or none at all."""
    windows: tuple[tuple[tuple[float, float, float, float], str], ...] = ()
    """Regions drawn as dashed outlines, each with its name."""
    line: float = 3.0
    """Width of a box's line, pixels of the figure."""
    heat: NDArray[np.float32] | None = None
    """(h, w) values laid over the whole picture as colours; the picture then loses its own."""
    heat_range: tuple[float, float] = (0.0, 1.0)
    """The values drawn darkest and brightest."""
    mark: tuple[float, float] | None = None
    """A point marked by a cross: x, y in pixels of the picture."""
    alt: str = ""
    """What the picture shows, for those who cannot see it."""


def proposal_panel(title: str, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Panel:
    """Proposals (N, 4), xyxy in pixels of the image (H, W, 3), on that image, small ones over large ones."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Panel(
        title=f"{title} · {_count(len(boxes), 'proposal')}",
        image=image,
        boxes=boxes[np.argsort(-areas, kind="stable")],
        colours=tuple(object_colour(k) for k in range(len(boxes))),
        line=2.0 if len(boxes) <= FEW else 1.2,
        alt=f"{title} with its {_count(len(boxes), 'object proposal')} drawn as boxes",
    )


def labelled_panel(
    title: str, image: NDArray[np.uint8], boxes: NDArray[np.float32], kinds: Sequence[int], labels: Sequence[str]
) -> Panel:
    """Boxes (N, 4), xyxy in pixels of the image, each in its kind's colour and with its label, small over large."""
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable").tolist()
    return Panel(
        title=title,
        image=image,
        boxes=boxes[order],
        colours=tuple(object_colour(kinds[k]) for k in order),
        labels=tuple(labels[k] for k in order),
        line=2.0 if len(boxes) <= FEW else 1.2,
        alt=f"{title}: {', '.join(labels) or 'no box'}",
    )


def sample_panels(title: str, image: NDArray[np.uint8], sample: Sample) -> list[Panel]:
    """The source image with the chosen proposals and each view's window, then the views in their order.

    Object k has one colour in all of them; in a view its box is labelled with its pyramid level. A proposal
    that was drawn twice is one object.
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
            alt=f"{title}: {_count(len(set(colours)), 'chosen proposal')} and the windows of its views",
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


def panel_figure(panel: Panel, height: int = 240, zoom: float = 1.0) -> Figure:
    """A panel alone, without its title; lines and letters are sized for a picture `height` pixels high.

    The figure has `zoom` times as many, for screens with small pixels.
    """
    scale = height / panel.image.shape[0]
    pixels = [max(1, round(edge * scale * zoom)) for edge in (panel.image.shape[1], panel.image.shape[0])]
    figure = blank_figure(*pixels, dpi=round(DPI * zoom))
    draw_panel(figure.add_axes((0, 0, 1, 1)), panel, scale)
    return figure


def sheet_figure(rows: Sequence[Sequence[Panel]], side: int = 320) -> Figure:
    """All panels on one white sheet, a row of panels under another, titles above them."""
    scales = [[side / max(panel.image.shape[:2]) for panel in row] for row in rows]
    heights = [
        round(max(panel.image.shape[0] * scale for panel, scale in zip(row, of_row, strict=True)))
        for row, of_row in zip(rows, scales, strict=True)
    ]
    width = GAP + max(len(row) for row in rows) * (side + GAP)
    height = GAP + sum(heights) + len(rows) * (TITLE_HEIGHT + GAP)
    sheet = blank_figure(width, height, background="white")
    top = GAP
    for row, of_row, row_height in zip(rows, scales, heights, strict=True):
        for column, (panel, scale) in enumerate(zip(row, of_row, strict=True)):
            left, w, h = (
                GAP + column * (side + GAP),
                panel.image.shape[1] * scale,
                panel.image.shape[0] * scale,
            )
            bottom = height - top - TITLE_HEIGHT - h
            axes = sheet.add_axes((left / width, bottom / height, w / width, h / height))
            draw_panel(axes, panel, scale)
            where = left / width, (height - top - TITLE_HEIGHT / 2) / height
            title = _shortened(panel.title, side // 8)
            sheet.text(*where, title, color=LIGHT.ink, size=13 * POINTS, va="center", parse_math=False)
        top += TITLE_HEIGHT + row_height + GAP
    return sheet


def draw_panel(axes: Axes, panel: Panel, scale: float) -> None:
    """Draws a panel into axes that cover `scale` pixels of the figure for each pixel of the picture."""
    height, width = panel.image.shape[:2]
    everywhere = (0, width, height, 0)  # so that pixel i spans [i, i + 1], as boxes count
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    if panel.heat is None:
        axes.imshow(panel.image, extent=everywhere, aspect="auto", interpolation="hanning")
    else:
        gray = panel.image.mean(axis=2)
        axes.imshow(gray, extent=everywhere, aspect="auto", cmap="gray", vmin=0, vmax=255)
        _lay_heat(axes, panel.heat, panel.heat_range, everywhere)
    for window, name in panel.windows:
        _draw_window(axes, window, name, scale)
    for box, colour in zip(panel.boxes, panel.colours, strict=True):
        _draw_box(axes, box, colour, panel.line, scale)
    _draw_labels(axes, panel, scale)
    if panel.mark is not None:
        for colour, thick in ((HALO, 5), ("white", 2.5)):
            style: dict[str, Any] = {
                "color": colour,
                "markeredgewidth": thick * POINTS,
                "markersize": 14 * POINTS,
            }
            axes.plot(*panel.mark, marker="x", **style)
    if panel.heat is not None:
        _draw_scale(axes, panel.heat_range)


def _lay_heat(
    axes: Axes, heat: NDArray[np.float32], limits: tuple[float, float], extent: tuple[int, int, int, int]
) -> None:
    low, high = limits
    axes.imshow(
        heat,
        extent=extent,
        aspect="auto",
        cmap="inferno",
        vmin=low,
        vmax=high,
        alpha=0.65,
        interpolation="bilinear",
    )


def _draw_scale(axes: Axes, limits: tuple[float, float]) -> None:
    """A small scale of the heat's colours in the lower right corner."""
    bar = axes.inset_axes((0.56, 0.035, 0.4, 0.03))
    bar.imshow(np.linspace(0, 1, 128)[None], aspect="auto", cmap="inferno", extent=(0, 1, 0, 1))
    bar.set_axis_off()
    for x, value, side in ((0, limits[0], "left"), (1, limits[1], "right")):
        text = bar.text(x, 1.4, f"{value:.2f}", color="white", size=13 * POINTS, ha=side, va="bottom")
        text.set_path_effects([withStroke(linewidth=3 * POINTS, foreground=HALO)])


def _draw_box(axes: Axes, box: NDArray[np.float32], colour: str, line: float, scale: float) -> None:
    """The line lies inside the box, so that nothing of it is lost at the picture's border."""
    inset = line / 2 / scale
    x1, y1, x2, y2 = (float(edge) for edge in box)
    width, height = max(x2 - x1 - 2 * inset, 0), max(y2 - y1 - 2 * inset, 0)
    for edge, thick in ((HALO, line + 2), (colour, line)):
        shape = Rectangle((x1 + inset, y1 + inset), width, height, fill=False, edgecolor=edge)
        shape.set(linewidth=thick * POINTS, joinstyle="miter")
        axes.add_patch(shape)


def _draw_window(axes: Axes, window: tuple[float, float, float, float], name: str, scale: float) -> None:
    x1, y1, x2, y2 = window
    inset = 2 / scale
    for colour, style in ((HALO, "-"), ("white", (0, (4, 3)))):
        corner, width, height = (x1 + inset, y1 + inset), x2 - x1 - 2 * inset, y2 - y1 - 2 * inset
        shape = Rectangle(corner, width, height, fill=False, edgecolor=colour, linestyle=style)
        shape.set_linewidth(2 * POINTS)
        axes.add_patch(shape)
    at = (x2 - 4 / scale, y2 - 4 / scale)
    axes.text(*at, name, ha="right", va="bottom", bbox=_tag("white"), color=HALO, size=12 * POINTS)


def _draw_labels(axes: Axes, panel: Panel, scale: float) -> None:
    """A label in a corner of its box, the first of the four where none lies yet; equal boxes share one.

    A long one that would leave the picture at a side is moved in.
    """
    if not panel.labels:
        return
    taken: list[tuple[float, float, float]] = []
    picture = panel.image.shape[1]
    edges = [tuple(box) for box in panel.boxes.tolist()]
    for (x1, y1, x2, y2), colour, label in dict.fromkeys(zip(edges, panel.colours, panel.labels, strict=True)):
        width = LABEL_SIZE[0] + LETTER * max(0, len(label) - 2)
        across, down = width / 2 / scale, LABEL_SIZE[1] / 2 / scale
        centres = [(x1 + across, y1 + down), (x2 - across, y1 + down)]
        centres += [(x2 - across, y2 - down), (x1 + across, y2 - down)]
        spots = [(max(across, min(x, picture - across)), y, width) for x, y in centres]
        x, y, _ = spot = next((s for s in spots if all(_apart(s, other, scale) for other in taken)), spots[0])
        taken.append(spot)
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "weight": "bold", "color": HALO}
        axes.text(x, y, label, bbox=_tag(colour), size=13 * POINTS, **style)


def _apart(one: tuple[float, float, float], other: tuple[float, float, float], scale: float) -> bool:
    """Whether labels around these points x, y of the picture, so many pixels wide, would not lie over each other."""
    across, down = abs(one[0] - other[0]) * scale, abs(one[1] - other[1]) * scale
    return across > (one[2] + other[2]) / 2 or down > LABEL_SIZE[1]


def _tag(colour: str) -> dict[str, Any]:
    return {"boxstyle": "square,pad=0.18", "facecolor": colour, "edgecolor": "none"}


def _object_colours(proposals: NDArray[np.float32]) -> tuple[str, ...]:
    seen: dict[bytes, str] = {}
    return tuple(seen.setdefault(box.tobytes(), object_colour(len(seen))) for box in proposals)


def _window_outlines(
    windows: NDArray[np.float32], size: NDArray[np.float32]
) -> tuple[tuple[tuple[float, float, float, float], str], ...]:
    """Windows in pixels of the image, with the names of the views that share them; none for whole images."""
    names: dict[tuple[float, ...], list[str]] = {}
    for v, window in enumerate(windows):
        names.setdefault(tuple(float(edge) for edge in window * size), []).append(f"V{v + 1}")
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    return tuple(((w[0], w[1], w[2], w[3]), " ".join(views)) for w, views in names.items() if w != whole)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else "…" + text[1 - letters :]
