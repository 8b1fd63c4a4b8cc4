"""Colours and sizes shared by all figures, and their file formats."""

import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from socodet.reports.fonts import families_for
from socodet.runtime.notices import printable

DPI = 100
LINE_STYLES = ("-", "--", ":", "-.")
LETTER_WIDTH, LINE_HEIGHT = 0.62, 1.7
"""Legend metrics relative to the font size: mean width of a letter, and distance between rows."""
HANDLE = 7
"""Width of the line beside a name in a legend, with its margins, in letters."""
POINTS = 72 / DPI  # points per pixel: matplotlib measures lines and letters in points


@dataclass(frozen=True)
class Theme:
    """Colours of a chart on a light or on a dark page."""

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]
    """Colours of lines; distinguishable with colour blindness."""

    def line(self, place: int) -> dict[str, Any]:
        """Colour and style of line number `place`, from 0; when colours repeat, the style changes."""
        turn, series = divmod(place, len(self.series))
        return {"color": self.series[series], "linestyle": LINE_STYLES[turn % len(LINE_STYLES)]}


LIGHT = Theme(
    ink="#1d2329",
    muted="#5c6672",
    grid="#e2e6ea",
    series=("#133ce2", "#b44527", "#056d70", "#722698", "#be8b00", "#00a88b"),
)
DARK = Theme(
    ink="#e8ebee",
    muted="#98a2ad",
    grid="#2d343c",
    series=("#768aff", "#e49261", "#5ee7b8", "#cfb4ff", "#eed05e", "#73bec2"),
)

HALO = "#0b0e11"
"""The colour of outlines around boxes on photographs, and of letters on coloured labels."""
# Bright enough for photographs, and distinguishable with colour blindness.
OBJECT_COLOURS = ("#13f0ff", "#f0930e", "#e74ca1", "#83ee64", "#b293e7", "#ef6137", "#e7ff31", "#5483ff")


TRUE_POSITIVE, MISSED, FALSE_POSITIVE, IGNORED = "#00d9ff", "#ffb000", "#ff4f9e", "#b4bcc4"
"""Colours of found objects and the detections that found them; missed objects; false positives; ignored ones."""


def object_colour(k: int) -> str:
    """The colour of object k, as #rrggbb; the eight colours repeat."""
    return OBJECT_COLOURS[k % len(OBJECT_COLOURS)]


def blank_figure(width: int, height: int, *, dpi: int = DPI, background: str = "none") -> Figure:
    """An empty figure of this many pixels, not managed by pyplot."""
    return Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor=background)


def style_axes(axes: Axes, theme: Theme, letters: float, grid: Literal["x", "y"] = "y") -> None:
    """Styles a chart: a bottom spine, a grid, and tick labels of `letters` points in the theme's colours."""
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.grid(axis=grid, color=theme.grid, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=letters, length=0, pad=5)


def add_legend(
    where: Axes | Figure, theme: Theme, letters: float, named: Sequence[tuple[Artist, str]], **options: Any
) -> None:
    """Adds a legend of the drawn artists, with letters of this many points; `options` are matplotlib's."""
    places = [str(place) for place in range(len(named))]  # matplotlib hides names that begin with an underscore
    drawn = [one for one, _ in named]
    made = where.legend(drawn, places, frameon=False, labelcolor=theme.ink, fontsize=letters, **options)
    for text in made.get_texts():
        text.set_text(named[int(text.get_text())][1])


def legend_above(figure: Figure, theme: Theme, letters: float, named: Sequence[tuple[Artist, str]]) -> None:
    """Adds a legend above the charts, where it covers no line; the figure grows to make room."""
    width, height = figure.get_size_inches()
    across = int(width / (LETTER_WIDTH * letters / 72))
    columns = max(1, min(len(named), across // (HANDLE + max(len(name) for _, name in named))))
    rows = -(-len(named) // columns)
    figure.set_size_inches(width, height + rows * LINE_HEIGHT * letters / 72)
    short = [(one, name if len(name) + HANDLE <= across else f"…{name[HANDLE + 1 - across :]}") for one, name in named]
    add_legend(figure, theme, letters, short, loc="outside upper left", ncols=columns)


def to_svg(figure: Figure, name: str) -> bytes:
    """The figure as SVG; the same figure and name give the same bytes."""
    with mpl.rc_context({"svg.hashsalt": name}):
        return _saved(figure, format="svg", metadata={"Date": None})


def to_png(figure: Figure) -> bytes:
    """The figure as PNG, at its own resolution, not cropped."""
    return _saved(figure, format="png", dpi=figure.dpi, facecolor=figure.get_facecolor(), bbox_inches=None)


def to_jpeg(figure: Figure) -> bytes:
    """The figure as JPEG without colour subsampling: a fifth of the size of a PNG, and lines stay sharp."""
    options = {"quality": 82, "subsampling": 0}  # optimize=True fails if the file has more bytes than pixels
    return _saved(figure, format="jpeg", dpi=figure.dpi, pil_kwargs=options, bbox_inches=None)


def _saved(figure: Figure, **options: Any) -> bytes:
    file = io.BytesIO()
    _make_printable(figure)
    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # `families_for` already says so, once
        fonts.setLevel(logging.ERROR)  # a fallback font may lack a bold variant
        try:
            figure.savefig(file, **options)
        finally:
            fonts.setLevel(level)
    return file.getvalue()


def _make_printable(figure: Figure) -> None:
    """Makes names appear literally, in any script and with dollar signs; unprintable characters are escaped."""
    texts = figure.findobj(Text)
    for text in texts:
        text.set_parse_math(False)
        text.set_text(printable(text.get_text()))
    families = families_for("".join(text.get_text() for text in texts))
    for text in texts if len(families) > 1 else ():
        text.set_fontfamily(families)
