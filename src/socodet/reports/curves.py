"""Charts of a run's log: what rose, what fell, and what should not have."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from socodet.reports.drawing import LEVELS
from socodet.reports.page import Picture
from socodet.reports.theme import DARK, LIGHT, Theme, blank_figure, to_png

LogLines = Sequence[Mapping[str, Any]]
WIDTH, HEIGHT, CHART_DPI = 900, 520, 160
LETTERS = 11  # points
FROM_ZERO = ("embedding_std", "effective_rank", "images_per_second", "data_wait")

TITLES = {
    "loss": ("Loss", "Eq. 6; perfect agreement is −4 for each view beside the first."),
    "lr": ("Learning rate", "Linear warm-up, then half a cosine."),
    "momentum": ("Target momentum", "How much of the target network is kept at each step."),
    "embedding_std": (
        "Spread of the embeddings",
        "Standard deviation of the unit-length embeddings; 0 is collapse.",
    ),
    "effective_rank": ("Effective rank", "How many directions the embeddings of a batch really use."),
    "images_per_second": ("Throughput", "Images a second."),
    "data_wait": ("Waiting for data", "Share of the time in which the networks waited for the next batch."),
}


def curve_figure(
    runs: Mapping[str, LogLines],
    name: str,
    *,
    theme: Theme = LIGHT,
    references: Mapping[str, float] | None = None,
) -> Figure | None:
    """Field `name` of each run's log over its steps; None when no line has it.

    `references` are levels to compare with, drawn as dashed lines under their names.
    """
    curves = {run: _points(lines, name) for run, lines in runs.items()}
    if not any(steps for steps, _ in curves.values()):
        return None
    figure, axes = _chart(theme)
    for (run, (steps, values)), colour in zip(curves.items(), _cycle(theme, len(curves)), strict=True):
        marker = "o" if len(steps) == 1 else ""  # a line of one point would not be seen
        axes.plot(steps, values, color=colour, linewidth=1.8, marker=marker, label=run, solid_capstyle="round")
    for label, level in (references or {}).items():
        axes.axhline(level, color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)))
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(label, (1, level), (-2, 3), ha="right", color=theme.muted, size=LETTERS, **place)
    if name in FROM_ZERO:
        levels = [*(references or {}).values(), *(value for _, values in curves.values() for value in values)]
        axes.set_ylim(0, max(levels) * 1.15 or 1)
    if len(curves) > 1:
        axes.legend(frameon=False, labelcolor=theme.ink, fontsize=LETTERS)
    return figure


def level_figure(lines: LogLines, *, theme: Theme = LIGHT) -> Figure | None:
    """The share of the boxes that each pyramid level got over the steps, stacked; None where not logged."""
    kept = [(line["step"], line["level_share"]) for line in lines if line.get("level_share")]
    if not kept:
        return None
    steps = [step for step, _ in kept]
    shares = list(zip(*(share for _, share in kept), strict=True))
    figure, axes = _chart(theme)
    axes.stackplot(steps, *shares, colors=_cycle(theme, len(shares)), labels=LEVELS[: len(shares)], alpha=0.85)
    axes.set(xlim=(steps[0], max(steps[-1], steps[0] + 1)), ylim=(0, 1))
    order = axes.get_legend_handles_labels()
    axes.legend(
        *(part[::-1] for part in order),
        frameon=False,
        labelcolor=theme.ink,
        fontsize=LETTERS,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        handlelength=1,
    )
    return figure


def curve_pictures(runs: Mapping[str, LogLines], *, embedding_size: int | None = None) -> list[Picture]:
    """Every chart that the runs' logs have the figures for, each for light and for dark pages.

    runs: name to log lines, as in log.jsonl. embedding_size: D, the length of an embedding; with it the
    spread is compared with 1/√D, that of vectors spread evenly over the sphere, and with half of it.
    """
    pictures = []
    for name, (title, caption) in TITLES.items():
        references = None
        if name == "embedding_std" and embedding_size:
            even = 1 / math.sqrt(embedding_size)
            references = {f"1/√{embedding_size} = {even:.4f}, spread evenly": even, "half of it": even / 2}
        draw = partial(curve_figure, runs, name, references=references)
        pictures += _picture(draw, title, caption, _alt(title, runs, name))
    for run, lines in runs.items():
        title = f"Pyramid levels of {run}" if len(runs) > 1 else "Pyramid levels"
        alt = f"{title}: stacked chart of the share of the boxes that each level gets"
        draw = partial(level_figure, lines)
        pictures += _picture(draw, title, "Share of the boxes on each level, over all views.", alt)
    return pictures


def _picture(draw: Callable[..., Figure | None], title: str, caption: str, alt: str) -> list[Picture]:
    light, dark = draw(theme=LIGHT), draw(theme=DARK)
    if light is None or dark is None:
        return []
    return [Picture(to_png(light), alt=alt, title=title, caption=caption, dark=to_png(dark))]


def _chart(theme: Theme) -> tuple[Figure, Axes]:
    figure = blank_figure(WIDTH, HEIGHT, dpi=CHART_DPI)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.grid(axis="y", color=theme.grid, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=LETTERS, length=0, pad=5)
    axes.set_xlabel("step", color=theme.muted, size=LETTERS)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.margins(x=0.01)
    return figure, axes


def _tick(value: float, _position: int | None) -> str:
    return f"{value:.6g}".replace("-", "−")


def _cycle(theme: Theme, count: int) -> list[str]:
    return [theme.series[k % len(theme.series)] for k in range(count)]


def _points(lines: LogLines, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines that have a finite one."""
    kept = [(line["step"], line[name]) for line in lines if math.isfinite(line.get(name, math.nan))]
    return [step for step, _ in kept], [value for _, value in kept]


def _alt(title: str, runs: Mapping[str, LogLines], name: str) -> str:
    parts = []
    for run, lines in runs.items():
        _, values = _points(lines, name)
        if values:
            parts.append(f"{run} from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{title} over the steps: {'; '.join(parts)}"
