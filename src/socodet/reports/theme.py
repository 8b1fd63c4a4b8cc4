"""Colours and sizes shared by all figures, and their file formats."""

import io
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 100
POINTS = 72 / DPI  # points per pixel: matplotlib measures lines and letters in points


@dataclass(frozen=True)
class Theme:
    """Colours of a chart on a light or on a dark page."""

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    ink="#1d2329",
    muted="#5c6672",
    grid="#e2e6ea",
    series=("#2457c5", "#d1591c", "#1b8a5a", "#8a3fb0", "#b3861b", "#0f8fa3"),
)
DARK = Theme(
    ink="#e8ebee",
    muted="#98a2ad",
    grid="#2d343c",
    series=("#7fa7ff", "#ff9a62", "#5fd3a0", "#cf97f2", "#e6c25c", "#5fd0e0"),
)

# Bright enough for photographs, and distinguishable with colour blindness.
OBJECT_COLOURS = ("#00d9ff", "#ffb000", "#ff4f9e", "#8cff4a", "#a98bff", "#ff6a3d", "#fff04a", "#3f8cff")


HIT, MISS, FALSE_ALARM, IGNORED = "#00d9ff", "#ffb000", "#ff4f9e", "#b4bcc4"
"""Objects found and the detections that found them; objects missed; false alarms; what counts for nothing."""


def object_colour(k: int) -> str:
    """The colour of object k, as #rrggbb; the eight colours repeat."""
    return OBJECT_COLOURS[k % len(OBJECT_COLOURS)]


def blank_figure(width: int, height: int, *, dpi: int = DPI, background: str = "none") -> Figure:
    """An empty figure of this many pixels, not managed by pyplot."""
    return Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor=background)


def dress(axes: Axes, theme: Theme, letters: float, grid: Literal["x", "y"] = "y") -> None:
    """Styles a chart: a bottom spine, a grid, and tick labels of `letters` points in the theme's colours."""
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.grid(axis=grid, color=theme.grid, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=letters, length=0, pad=5)


def to_svg(figure: Figure, name: str) -> bytes:
    """The figure as SVG; the same figure and name give the same bytes."""
    file = io.BytesIO()
    _make_printable(figure)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def to_png(figure: Figure) -> bytes:
    """The figure as PNG, at its own resolution, not cropped."""
    file = io.BytesIO()
    _make_printable(figure)
    figure.savefig(file, format="png", dpi=figure.dpi, facecolor=figure.get_facecolor(), bbox_inches=None)
    return file.getvalue()


def to_jpeg(figure: Figure) -> bytes:
    """The figure as JPEG without colour subsampling: a fifth of the size of a PNG, and lines stay sharp."""
    file = io.BytesIO()
    _make_printable(figure)
    options = {"quality": 82, "subsampling": 0}  # optimised, Pillow fails where an image takes over a byte per pixel
    figure.savefig(file, format="jpeg", dpi=figure.dpi, pil_kwargs=options, bbox_inches=None)
    return file.getvalue()


def _make_printable(figure: Figure) -> None:
    """Writes bytes of a name that are not UTF-8 with backslashes; matplotlib cannot draw them."""
    for text in figure.findobj(Text):
        text.set_text(text.get_text().encode(errors="backslashreplace").decode())
