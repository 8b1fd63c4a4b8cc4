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
from socodet.reports.theme import DARK, LIGHT, Theme, blank_figure, dress, to_png

LogLines = Sequence[Mapping[str, Any]]
WIDTH, HEIGHT, CHART_DPI = 800, 480, 160
FEW = 40  # so many points or fewer are drawn as dots, too
LETTERS = 11  # points
FROM_ZERO = ("embedding_std", "effective_rank", "images_per_second", "data_wait")

PERCENT = ("knn", "linear", "recall_at_1", "data_wait")
"""Names that hold one of these are shares, shown in percent."""

_SPEED = {
    "images_per_second": (
        "Throughput",
        "Images a second. A good run holds its level; drops are the disk or other work.",
    ),
    "data_wait": ("Waiting for data", "Share of the time the networks waited for the next batch. Below 5% is good."),
}
TITLES = {
    "loss": (
        "Loss",
        "Eq. 6; perfect agreement is −4 for each view beside the first. A good run falls quickly, then slowly, and "
        "stays above that.",
    ),
    "lr": ("Learning rate", "Linear warm-up, then half a cosine."),
    "momentum": ("Target momentum", "How much of the target network is kept at each step; rises to 1."),
    "embedding_std": (
        "Spread of the embeddings",
        "Standard deviation of the unit-length embeddings. A good run stays near the upper line; 0 is collapse.",
    ),
    "effective_rank": (
        "Effective rank",
        "How many directions the embeddings of a batch really use. A good run rises, or holds its level; near 1 is "
        "collapse.",
    ),
    **_SPEED,
}
PROBE_TITLES = {
    "probe_knn_balanced": ("Kind told by nearest neighbours", "Mean over kinds of objects; should rise."),
    "probe_linear_balanced": ("Kind told by a linear classifier", "Mean over kinds of objects; should rise."),
    "probe_knn": ("The same by neighbours, all objects", "Share of all objects; common kinds count for more."),
    "probe_linear": ("The same by the linear classifier", "Share of all objects; common kinds count for more."),
    "probe_recall_at_1": ("Object found in another view", "Recall@1 among the boxes of all pictures; should rise."),
    "probe_scale_cosine": (
        "An object at two scales",
        "Cosine of its vectors at full and at half size; should rise, and stay above that of different objects.",
    ),
    "probe_others_cosine": ("Different objects", "Cosine of their vectors; should stay well below."),
}
FINETUNE_TITLES = {
    "loss": ("Loss", "Sum of the detector's losses."),
    "lr": ("Learning rate", "Warm-up, then drops at the schedule's steps."),
    "loss_classifier": ("Box classification", "The part of the loss that names a region's kind."),
    "loss_box_reg": ("Box regression", "The part that moves a region's edges."),
    "loss_mask": ("Masks", "The part that outlines an object."),
    "loss_objectness": ("Objectness of proposals", "The region proposal network's classification."),
    "loss_rpn_box_reg": ("Edges of proposals", "The region proposal network's regression."),
    **_SPEED,
}
_SCORES = {"AP": "AP over IoU 0.50:0.95", "AP50": "AP at IoU 0.50", "AP75": "AP at IoU 0.75"}
SCORE_TITLES = {
    f"{kind}_{score}": (f"{words}, {title}", "Percent, on the validation set; higher is better.")
    for kind, words in (("box", "Boxes"), ("mask", "Masks"))
    for score, title in _SCORES.items()
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
        marker = "o" if len(steps) <= FEW else ""  # a line of one point would not be seen
        style: dict[str, Any] = {"marker": marker, "markersize": 3.5, "linewidth": 1.8, "solid_capstyle": "round"}
        axes.plot(steps, values, color=colour, label=run if steps else None, **style)
    for label, level in (references or {}).items():
        axes.axhline(level, color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)))
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(label, (1, level), (-2, 3), ha="right", color=theme.muted, size=LETTERS, **place)
    if name in FROM_ZERO:
        levels = [*(references or {}).values(), *(value for _, values in curves.values() for value in values)]
        axes.set_ylim(0, max(levels) * 1.15 or 1)
    if any(share in name for share in PERCENT):
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    logged = {step for steps, _ in curves.values() for step in steps}
    if len(logged) == 1:
        axes.set_xlim(min(logged) - 1, min(logged) + 1)
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


def curve_pictures(
    runs: Mapping[str, LogLines],
    titles: Mapping[str, tuple[str, str]] = TITLES,
    *,
    embedding_size: int | None = None,
) -> list[Picture]:
    """Every chart that the runs' logs have the figures for, each for light and for dark pages.

    runs: name to log lines, as in log.jsonl. titles: of each field to draw, the title and the caption.
    embedding_size: D, the length of an embedding; with it the spread is compared with 1/√D, that of vectors spread
    evenly over the sphere, and with half of it.
    """
    pictures = []
    for name, (title, caption) in titles.items():
        references = None
        if name == "embedding_std" and embedding_size:
            even = 1 / math.sqrt(embedding_size)
            references = {f"1/√{embedding_size} = {even:.4f}, spread evenly": even, "half of it": even / 2}
        draw = partial(curve_figure, runs, name, references=references)
        pictures += _picture(draw, title, caption, _alt(title, runs, name))
    return pictures


def level_pictures(runs: Mapping[str, LogLines]) -> list[Picture]:
    """A chart a run of the pyramid levels of its boxes, where the log has them."""
    pictures = []
    for run, lines in runs.items():
        title = f"Pyramid levels of {run}" if len(runs) > 1 else "Pyramid levels"
        alt = f"{title}: stacked chart of the share of the boxes that each level gets"
        draw = partial(level_figure, lines)
        caption = "Share of the boxes on each level, over all views. In a good run none is without boxes."
        pictures += _picture(draw, title, caption, alt)
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
    dress(axes, theme, LETTERS)
    axes.set_xlabel("step", color=theme.muted, size=LETTERS)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.margins(x=0.01)
    return figure, axes


def _tick(value: float, _position: int | None) -> str:
    return f"{value:.6g}".replace("-", "−")


def _percent(value: float, _position: int | None) -> str:
    return f"{100 * value:.4g}%"


def _cycle(theme: Theme, count: int) -> list[str]:
    return [theme.series[k % len(theme.series)] for k in range(count)]


def _points(lines: LogLines, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines that have a finite one."""
    kept = [(line["step"], line[name]) for line in lines if line.get(name) is not None and math.isfinite(line[name])]
    return [step for step, _ in kept], [value for _, value in kept]


def _alt(title: str, runs: Mapping[str, LogLines], name: str) -> str:
    parts = []
    for run, lines in runs.items():
        _, values = _points(lines, name)
        if values:
            parts.append(f"{run} from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{title} over the steps: {'; '.join(parts)}"
