"""The figure of an ablation: what was measured, row by row, beside the paper's own figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from socodet.reports.theme import LIGHT, Theme, blank_figure, dress, to_png, to_svg
from socodet.runtime.files import write_atomically
from socodet.studies.ablation.table import AblationRow, AblationTable

FIGURE_DPI = 160
WIDTH, ROW_HEIGHT, MARGIN = 1800, 70, 190
"""Pixels."""
LETTERS = 10  # points


@dataclass(frozen=True)
class _Panel:
    title: str
    values: Sequence[Sequence[float]]
    """For each row from the top, a value a seed."""
    marks: Sequence[str]
    """For each row, what stands there when it has no value."""
    reference: Sequence[float] | None = None
    """For each row, a value to compare with."""


def write_figure(table: AblationTable) -> None:
    """Writes the table's figure as PNG and as SVG."""
    figure = ablation_figure(table)
    png, svg = table.pictures
    write_atomically(png, to_png(figure))
    write_atomically(svg, to_svg(figure, table.family))


def ablation_figure(table: AblationTable, theme: Theme = LIGHT) -> Figure:
    """A panel a figure: recall@1, whatever fine-tuning gave, and the paper's AP; a dot a seed, a bar their mean."""
    names = list(dict.fromkeys(row.name for row in table.rows))
    rows = [[row for row in table.rows if row.name == name] for name in names]
    marks = [_mark(group[0]) for group in rows]
    transfers = list(dict.fromkeys(name for row in table.rows for name in row.transfer))
    panels = [
        _Panel(
            "recall@1, V1 to V2; line: untrained",
            [[row.figures.get("recall", math.nan) for row in group] for group in rows],
            [
                "not asked of whole images" if group[0].pretrained else mark
                for group, mark in zip(rows, marks, strict=True)
            ],
            [group[0].figures.get("recall_untrained", math.nan) for group in rows],
        ),
        *(
            _Panel(name, [[row.transfer.get(name, math.nan) for row in group] for group in rows], marks)
            for name in transfers
        ),
        _Panel("the paper's AP, COCO 1x", [[float(group[0].paper_ap)] for group in rows], ["NaN"] * len(rows)),
    ]
    figure = blank_figure(WIDTH, MARGIN + ROW_HEIGHT * len(rows), dpi=FIGURE_DPI, background="white")
    figure.set_layout_engine("constrained")
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        _draw(axes, panel, theme, theme.series[0] if place < len(panels) - 1 else theme.muted)
        labels = [group[0].what.partition(": ")[2] for group in rows] if place == 0 else [""] * len(rows)
        axes.set_yticks(range(len(rows)), labels, color=theme.ink, size=LETTERS)
    return figure


def _draw(axes: Axes, panel: _Panel, theme: Theme, colour: str) -> None:
    dress(axes, theme, LETTERS, grid="x")
    axes.set_title(panel.title, color=theme.ink, size=LETTERS + 1, loc="left")
    known = [value for values in panel.values for value in values if math.isfinite(value)]
    # Figures of AP lie close together, far from 0: there the axis begins near the lowest.
    low = min(known) - 0.5 * (max(known) - min(known)) if known and 1 < min(known) < max(known) else 0.0
    for y, values in enumerate(panel.values):
        there = [value for value in values if math.isfinite(value)]
        if not there:
            axes.annotate(panel.marks[y], (0.01, y), xycoords=("axes fraction", "data"), va="center", color=theme.muted)
            continue
        mean = sum(there) / len(there)
        axes.barh(y, mean - low, left=low, height=0.6, color=colour, alpha=0.85)
        if len(there) > 1:
            axes.plot(there, [y] * len(there), "o", color=theme.ink, markersize=3)
        reference = math.nan if panel.reference is None else panel.reference[y]
        if math.isfinite(reference):
            axes.plot([reference] * 2, [y - 0.38, y + 0.38], color=theme.series[1], linewidth=2)
        beside = max(mean, reference) if math.isfinite(reference) else mean
        axes.annotate(f"{mean:.3g}", (beside, y), (5, 0), textcoords="offset points", va="center", color=theme.muted)
    axes.set_ylim(len(panel.values) - 0.4, -0.6)
    highest = max(known, default=0.0) or 1.0
    axes.set_xlim(low, highest + 0.18 * (highest - low))


def _mark(row: AblationRow) -> str:
    """What is said of a row without a figure of a detector."""
    return "not fine-tuned" if row.finished else row.status
