"""The figures of a comparison: AP over the iterations, and over the part of the labels."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from socodet.reports.theme import LIGHT, Theme, blank_figure, dress, to_png, to_svg
from socodet.runtime.files import write_atomically
from socodet.studies.comparison.outcomes import MAIN
from socodet.studies.comparison.table import Comparison, Row

FIGURES = ("iterations.png", "iterations.svg", "labels.png", "labels.svg")
FIGURE_DPI = 160
PANEL_WIDTH, PANEL_HEIGHT = 900, 640
"""Pixels."""
COLUMNS = 3
"""Panels side by side at most."""
LETTERS = 10  # points
STYLES = ("-", "--", ":")
"""Of lines: another one when the colours begin anew."""


def write_figures(comparison: Comparison) -> None:
    """Writes each figure that there are runs for, as PNG and as SVG."""
    for name, draw in (("iterations", iterations_figure), ("labels", labels_figure)):
        figure = draw(comparison)
        if figure is None:
            continue
        write_atomically(comparison.folder / f"{name}.png", to_png(figure))
        write_atomically(comparison.folder / f"{name}.svg", to_svg(figure, name))


def iterations_figure(comparison: Comparison, theme: Theme = LIGHT) -> Figure | None:
    """AP of boxes over the steps, a panel for each part of the labels; None before a run has finished.

    A thin line a run, a thick one their mean; dashed, what scratch ends with.
    """
    fractions = [fraction for fraction in comparison.fractions if any(row.curve for row in comparison.at(fraction))]
    if not fractions:
        return None
    columns = min(COLUMNS, len(fractions))
    lines = -(-len(fractions) // columns)
    figure = _figure(columns, lines)
    for place, fraction in enumerate(fractions, 1):
        axes = figure.add_subplot(lines, columns, place)
        _dress(axes, theme, f"{100 * fraction:g}% of the training pictures", "step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
        for row in comparison.at(fraction):
            if not row.curve:
                continue
            colour, style = _look(comparison, row.init, theme)
            steps, spreads = list(row.curve), list(row.curve.values())
            for run in range(len(row.finished)):
                axes.plot(steps, [s.values[run] for s in spreads], color=colour, linewidth=0.7, alpha=0.45)
            axes.plot(steps, [s.mean for s in spreads], color=colour, linestyle=style, linewidth=2, label=row.init)
        scratch = comparison.scratch_ap(fraction)
        if scratch is not None:
            axes.axhline(scratch, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlim(left=0)
        _legend(axes, theme)
    return figure


def labels_figure(comparison: Comparison, theme: Theme = LIGHT) -> Figure | None:
    """AP of boxes that runs end with over the part of the labels; None where that is the same for all.

    A dot a run, a line through their means.
    """
    rows = [row for row in comparison.rows if MAIN in row.scores]
    fractions = sorted({row.fraction for row in rows})
    if len(fractions) < 2:
        return None
    figure = _figure(1, 1)
    axes = figure.add_subplot()
    _dress(axes, theme, "Label efficiency", "part of the training pictures")
    axes.set_xscale("log")
    axes.set_xticks(fractions)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda fraction, _place: f"{100 * fraction:g}%"))
    for init in comparison.inits:
        own: Sequence[Row] = [row for row in rows if row.init == init]
        colour, style = _look(comparison, init, theme)
        places = [row.fraction for row in own]
        axes.plot(
            places, [row.scores[MAIN].mean for row in own], color=colour, linestyle=style, linewidth=2, label=init
        )
        for row in own:
            values = row.scores[MAIN].values
            axes.plot([row.fraction] * len(values), values, "o", color=colour, markersize=3.5)
    _legend(axes, theme)
    return figure


def _figure(columns: int, lines: int) -> Figure:
    figure = blank_figure(columns * PANEL_WIDTH, lines * PANEL_HEIGHT, dpi=FIGURE_DPI, background="white")
    figure.set_layout_engine("constrained")
    return figure


def _dress(axes: Axes, theme: Theme, title: str, below: str) -> None:
    dress(axes, theme, LETTERS)
    axes.set_title(title, color=theme.ink, size=LETTERS + 1, loc="left")
    axes.set_xlabel(below, color=theme.muted, size=LETTERS)
    axes.set_ylabel("box AP", color=theme.muted, size=LETTERS)


def _look(comparison: Comparison, init: str, theme: Theme) -> tuple[str, str]:
    """Colour and style of an init's lines, the same in every panel and figure."""
    turn, colour = divmod(comparison.inits.index(init), len(theme.series))
    return theme.series[colour], STYLES[turn % len(STYLES)]


def _legend(axes: Axes, theme: Theme) -> None:
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=LETTERS)
