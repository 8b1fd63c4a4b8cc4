"""Draws panels, one per figure or many on one sheet."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from socodet.reports.page import PageImage
from socodet.reports.panels import Panel
from socodet.reports.theme import DPI, HALO, LIGHT, POINTS, blank_figure, to_jpeg

TITLE_HEIGHT = 24  # pixels
GAP = 10
LABEL_SIZE = (30, 24)  # pixels of a label of two letters, with its margin
LETTER = 9  # pixels per further letter
LONGEST = 4096  # pixels of a panel's longer edge


def panel_image(panel: Panel, height: int = 260, zoom: float = 1.6) -> PageImage:
    """A panel for a page, on which it is about `height` pixels high."""
    return PageImage(to_jpeg(panel_figure(panel, height, zoom)), alt=panel.alt, title=panel.title)


def panel_figure(panel: Panel, height: int = 240, zoom: float = 1.0) -> Figure:
    """One panel without its title, with lines and letters sized for a figure `height` pixels high.

    The figure has `zoom` times as many pixels per side, for high-resolution screens, but at most `LONGEST`.
    """
    scale = min(height / panel.image.shape[0], LONGEST / zoom / max(panel.image.shape[:2]))
    pixels = [max(1, round(edge * scale * zoom)) for edge in (panel.image.shape[1], panel.image.shape[0])]
    figure = blank_figure(*pixels, dpi=round(DPI * zoom))
    draw_panel(figure.add_axes((0, 0, 1, 1)), panel, scale)
    return figure


def sheet_figure(rows: Sequence[Sequence[Panel]], side: int = 320) -> Figure:
    """All panels in rows on one white sheet, with their titles above them; `side`: longer side of each, in pixels."""
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
    """Draws a panel into axes in which an image pixel is `scale` pixels wide."""
    height, width = panel.image.shape[:2]
    extent = (0, width, height, 0)  # pixel i spans [i, i + 1], as in the boxes' coordinates
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    if panel.heat is None:
        axes.imshow(panel.image, extent=extent, aspect="auto", interpolation="hanning")
    else:
        gray = panel.image.mean(axis=2)
        axes.imshow(gray, extent=extent, aspect="auto", cmap="gray", vmin=0, vmax=255)
        heat: dict[str, Any] = {"cmap": "inferno", "clim": panel.heat_range, "alpha": 0.65}
        axes.imshow(panel.heat, extent=extent, aspect="auto", interpolation="bilinear", **heat)
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


def _draw_scale(axes: Axes, limits: tuple[float, float]) -> None:
    """A small colour scale in the lower right corner."""
    bar = axes.inset_axes((0.56, 0.035, 0.4, 0.03))
    bar.imshow(np.linspace(0, 1, 128)[None], aspect="auto", cmap="inferno", extent=(0, 1, 0, 1))
    bar.set_axis_off()
    for x, value, side in ((0, limits[0], "left"), (1, limits[1], "right")):
        text = bar.text(x, 1.4, f"{value:.2f}", color="white", size=13 * POINTS, ha=side, va="bottom")
        text.set_path_effects([withStroke(linewidth=3 * POINTS, foreground=HALO)])


def _draw_box(axes: Axes, box: NDArray[np.float32], colour: str, line: float, scale: float) -> None:
    """Draws the line inside the box, so that the image's border does not cut it off."""
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
    """Draws each label in the first free corner of its box; equal boxes share a label.

    A long label is shifted so that it stays within the image.
    """
    if not panel.labels:
        return
    taken: list[tuple[float, float, float]] = []
    width_limit = panel.image.shape[1]
    edges = [tuple(box) for box in panel.boxes.tolist()]
    for (x1, y1, x2, y2), colour, label in dict.fromkeys(zip(edges, panel.colours, panel.labels, strict=True)):
        width = LABEL_SIZE[0] + LETTER * max(0, len(label) - 2)
        across, down = width / 2 / scale, LABEL_SIZE[1] / 2 / scale
        centres = [(x1 + across, y1 + down), (x2 - across, y1 + down)]
        centres += [(x2 - across, y2 - down), (x1 + across, y2 - down)]
        spots = [(max(across, min(x, width_limit - across)), y, width) for x, y in centres]
        x, y, _ = spot = next((s for s in spots if all(_apart(s, other, scale) for other in taken)), spots[0])
        taken.append(spot)
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "weight": "bold", "color": HALO}
        axes.text(x, y, label, bbox=_tag(colour), size=13 * POINTS, **style)


def _apart(one: tuple[float, float, float], other: tuple[float, float, float], scale: float) -> bool:
    """Whether two labels do not overlap, given as (x, y) of the centre in the image, and width in figure pixels."""
    across, down = abs(one[0] - other[0]) * scale, abs(one[1] - other[1]) * scale
    return across > (one[2] + other[2]) / 2 or down > LABEL_SIZE[1]


def _tag(colour: str) -> dict[str, Any]:
    return {"boxstyle": "square,pad=0.18", "facecolor": colour, "edgecolor": "none"}


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else "…" + text[1 - letters :]
