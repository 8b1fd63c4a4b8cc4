"""Figures of a study: lines over the steps or over fractions of the labels, and bars by row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from socodet.reports.theme import LIGHT, Theme, blank_figure, legend_above, style_axes, to_png, to_svg
from socodet.runtime.files import write_atomically
from socodet.studies.table import Spread

FIGURE_DPI = 160
PANEL_WIDTH, PANEL_HEIGHT = 900, 640
BARS_WIDTH, ROW_HEIGHT, BARS_MARGIN = 1800, 70, 190
"""In pixels."""
COLUMNS = 3
"""Maximum number of panels side by side."""
LETTERS = 10  # points


def write_figure(stem: Path, figure: Figure | None) -> None:
    """Writes a figure, if there is one, as `stem`.png and `stem`.svg."""
    if figure is not None:
        write_atomically(stem.with_name(f"{stem.name}.png"), to_png(figure))
        write_atomically(stem.with_name(f"{stem.name}.svg"), to_svg(figure, stem.name))


@dataclass(frozen=True)
class Lines:
    """A panel of lines: for each name, its points as x → values of the runs."""

    title: str
    lines: Mapping[str, Mapping[int, Spread] | Mapping[float, Spread]]
    reference: float | None = None
    """A value to mark by a dashed line."""
    reference_name: str = ""
    """The reference's name in the legend."""


def lines_figure(
    panels: Sequence[Lines], names: Sequence[str], x: str, y: str, *, over_fractions: bool = False, theme: Theme = LIGHT
) -> Figure | None:
    """Panels side by side: a thick line for the mean in a band of ± one deviation, and thin lines or dots for runs.

    The order of `names` gives each line its colour, the same in every panel. None if there is nothing to draw.
    """
    if not panels:
        return None
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(columns * PANEL_WIDTH, rows * PANEL_HEIGHT)
    named: dict[str, Artist] = {}
    references: dict[str, Artist] = {}
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        style_axes(axes, theme, LETTERS)
        axes.set_title(panel.title, color=theme.ink, size=LETTERS + 1, loc="left")
        axes.set_xlabel(x, color=theme.muted, size=LETTERS)
        axes.set_ylabel(y, color=theme.muted, size=LETTERS)
        for name, points in panel.lines.items():
            style = theme.line(names.index(name))
            colour = style["color"]
            means = [spread.mean for spread in points.values()]
            alone = "o" if len(points) == 1 and not over_fractions else ""  # a line of one point would be invisible
            (named[name],) = axes.plot([*points], means, linewidth=2, label=name, marker=alone, **style)
            spans = [(at, spread.mean, spread.deviation) for at, spread in points.items() if spread.deviation]
            low, high = ([mean + sign * deviation for _, mean, deviation in spans] for sign in (-1, 1))
            axes.fill_between([at for at, *_ in spans], low, high, color=colour, alpha=0.15, linewidth=0)
            for run in range(min(len(spread.values) for spread in points.values()) if not over_fractions else 0):
                values = [spread.values[run] for spread in points.values()]
                axes.plot([*points], values, color=colour, linewidth=0.7, alpha=0.45, marker=alone, markersize=3.5)
            for at, spread in points.items() if over_fractions else ():
                axes.plot([at] * len(spread.values), spread.values, "o", color=colour, markersize=3.5)
        if panel.reference is not None:
            dashed = axes.axhline(panel.reference, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
            references = {panel.reference_name: dashed}
        if over_fractions:
            axes.set_xscale("log")
            axes.set_xticks(sorted({at for points in panel.lines.values() for at in points}))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda fraction, _place: f"{100 * fraction:g}%"))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
            axes.set_xlim(left=0)
    legend = [(named[name], name) for name in names if name in named]
    legend_above(figure, theme, LETTERS, [*legend, *((line, name) for name, line in references.items() if name)])
    return figure


@dataclass(frozen=True)
class Bars:
    """A panel of bars, one per row."""

    title: str
    values: Sequence[Sequence[float]]
    """For each row from the top, one value per run; NaN if there is none."""
    marks: Sequence[str]
    """For each row, the text shown if it has no value."""
    references: Sequence[float] | None = None
    """For each row, a value to compare with."""
    is_measured: bool = True


def bars_figure(panels: Sequence[Bars], rows: Sequence[str]) -> Figure:
    """Panels side by side with the same rows: a bar or square for the mean, dots for runs, a line for the reference."""
    figure = _figure(BARS_WIDTH, BARS_MARGIN + ROW_HEIGHT * len(rows))
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        style_axes(axes, LIGHT, LETTERS, grid="x")
        axes.set_title(panel.title, color=LIGHT.ink, size=LETTERS + 1, loc="left")
        _draw_bars(axes, panel)
        axes.set_yticks(range(len(rows)), rows if place == 0 else [""] * len(rows), color=LIGHT.ink, size=LETTERS)
    return figure


def _draw_bars(axes: Axes, panel: Bars) -> None:
    known = [value for values in panel.values for value in values if math.isfinite(value)]
    references = panel.references or [math.nan] * len(panel.values)
    # AP values lie close together, far from 0. The axis then begins near the lowest, and the mean is drawn as a point,
    # because the length of a bar would mean nothing.
    near = bool(known) and 1 < min(known) < max(known)
    low = min(known) - 0.5 * (max(known) - min(known)) if near else 0.0
    for y, values in enumerate(panel.values):
        there = [value for value in values if math.isfinite(value)]
        if not there:
            axes.annotate(panel.marks[y], (0.01, y), xycoords=("axes fraction", "data"), va="center", color=LIGHT.muted)
            continue
        mean = sum(there) / len(there)
        colour = LIGHT.series[0] if panel.is_measured else LIGHT.muted
        if near:
            axes.plot(mean, y, "s", color=colour, markersize=9)
        else:
            axes.barh(y, mean, height=0.6, color=colour, alpha=0.85)
        if len(there) > 1:
            axes.plot(there, [y] * len(there), "o", color=LIGHT.ink, markersize=3)
        reference = references[y]
        if math.isfinite(reference):
            axes.plot([reference] * 2, [y - 0.38, y + 0.38], color=LIGHT.series[1], linewidth=2)
        beside = max(value for value in (*there, reference) if math.isfinite(value))
        axes.annotate(f"{mean:.3g}", (beside, y), (7, 0), textcoords="offset points", va="center", color=LIGHT.muted)
    axes.set_ylim(len(panel.values) - 0.4, -0.6)
    highest = max([*known, *filter(math.isfinite, references)], default=0.0) or 1.0
    axes.set_xlim(low, highest + 0.18 * (highest - low))


def _figure(width: int, height: int) -> Figure:
    figure = blank_figure(width, height, dpi=FIGURE_DPI, background="white")
    figure.set_layout_engine("constrained")
    return figure
