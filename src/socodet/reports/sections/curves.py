"""Charts of the runs' logs."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from socodet.reports.charts import LETTERS, chart, cycle, light_and_dark
from socodet.reports.page import Gallery, PageImage, Section
from socodet.reports.panels import LEVELS
from socodet.reports.runs import RunRecord
from socodet.reports.theme import LIGHT, Theme, add_legend, legend_above
from socodet.runtime.counted import rounded

LogLines = Sequence[Mapping[str, Any]]
FEW = 40  # with this many points or fewer, each is marked by a dot
FROM_ZERO = ("embedding_std", "effective_rank", "images_per_second", "data_wait")

PERCENT = ("knn", "linear", "recall_at_1", "data_wait")
"""Fields whose names contain one of these are shown in percent."""

_SPEED = {
    "images_per_second": (
        "Throughput",
        "Images per second. A good run is steady; drops come from the disk or from other programs.",
    ),
    "data_wait": ("Waiting for data", "Share of the time spent waiting for the next batch. Below 5% is good."),
}
TITLES = {
    "loss": ("Loss", "A good run falls quickly, then slowly, and stays above its value at perfect agreement."),
    "lr": ("Learning rate", "Linear warm-up, then half a cosine."),
    "momentum": ("Target momentum", "The share of the target network that each step keeps; rises to 1."),
    "embedding_std": (
        "Spread of the embeddings",
        "Standard deviation of the unit-length embeddings. A good run stays near the upper line; 0 is collapse.",
    ),
    "effective_rank": (
        "Effective rank",
        "Number of directions that the embeddings of a batch use. A good run rises or holds its level; near 1 is "
        "collapse. Compare runs only if they have the same upper bound, which follows from the batch.",
    ),
    **_SPEED,
}
PROBE_TITLES = {
    "probe_knn_balanced": ("kNN accuracy", "Mean over classes; should rise."),
    "probe_linear_balanced": ("Linear accuracy", "Mean over classes; should rise."),
    "probe_knn": ("kNN accuracy, all objects", "Over all objects, so common classes count more."),
    "probe_linear": ("Linear accuracy, all objects", "Over all objects, so common classes count more."),
    "probe_recall_at_1": ("Object found in another view", "Recall@1 among the boxes of all images; should rise."),
    "probe_scale_cosine": (
        "An object at two scales",
        "Cosine of its features at full and at half size; should rise, and stay above that of different objects.",
    ),
    "probe_others_cosine": ("Different objects", "Cosine of their features; should stay well below."),
}
FINETUNE_TITLES = {
    "loss": ("Loss", "Sum of the detector's losses."),
    "lr": ("Learning rate", "Warm-up, then drops at the schedule's steps."),
    "loss_classifier": ("Box classification", "Classification loss of the boxes."),
    "loss_box_reg": ("Box regression", "Regression loss of the boxes."),
    "loss_mask": ("Masks", "Loss of the masks."),
    "loss_objectness": ("Objectness of proposals", "Classification loss of the region proposal network."),
    "loss_rpn_box_reg": ("Regression of proposals", "Regression loss of the region proposal network."),
    "loss_classification": ("Classification", "Focal loss of the classes (RetinaNet, FCOS)."),
    "loss_bbox_regression": ("Box regression", "Regression loss of the boxes (RetinaNet, FCOS)."),
    "loss_bbox_ctrness": ("Centerness", "Loss of how central each point is in its object (FCOS)."),
    "loss_vfl": ("Classification", "Varifocal loss of the classes, over all layers of the decoder (RT-DETR)."),
    "loss_bbox": ("Box regression", "L1 loss of the boxes, over all layers of the decoder (RT-DETR)."),
    "loss_giou": ("Overlap of boxes", "Generalised IoU loss of the boxes, over all layers of the decoder (RT-DETR)."),
    **_SPEED,
}
_SCORES = {"AP": "AP over IoU 0.50:0.95", "AP50": "AP at IoU 0.50", "AP75": "AP at IoU 0.75"}
SCORE_TITLES = {
    f"{prefix}_{score}": (f"{words}, {title}", "Percent, on the validation set; higher is better.")
    for prefix, words in (("box", "Boxes"), ("mask", "Masks"))
    for score, title in _SCORES.items()
}


def curve_sections(records: Sequence[RunRecord], heading: str) -> list[Section]:
    """The sections with the curves of one command's runs; sections without any are left out."""
    runs = {record.name: record.lines for record in records}
    if records[0].kind == "pretrain":
        sizes = {record.embedding_size for record in records}
        size = sizes.pop() if len(sizes) == 1 else None
        on_levels = {record.name: record.lines for record in records if record.has_levels}
        bounds = {record.name: bound for record in records if (bound := record.rank_bound) is not None}
        curves = [*curve_charts(runs, embedding_size=size, rank_bounds=bounds), *level_charts(on_levels)]
    else:
        curves = curve_charts(runs, FINETUNE_TITLES)
    return [
        Section(title, text, [Gallery(charts, size="large")])
        for title, text, charts in (
            (f"{heading}: the curves", "", curves),
            (
                "Probe",
                "How well the features distinguish annotated objects during pretraining, without fine-tuning.",
                curve_charts(runs, PROBE_TITLES),
            ),
            (
                "Average precision",
                "Each evaluation during fine-tuning. A better start shows early, and with few labels.",
                curve_charts(runs, SCORE_TITLES),
            ),
        )
        if charts
    ]


def curve_figure(
    runs: Mapping[str, LogLines],
    name: str,
    *,
    theme: Theme = LIGHT,
    references: Mapping[str, float] | None = None,
) -> Figure | None:
    """Field `name` of each run's log over the steps; None when no line has it.

    references: values to compare with, by label, drawn as dashed lines.
    """
    curves = {run: _points(lines, name) for run, lines in runs.items()}
    if not any(steps for steps, _ in curves.values()):
        return None
    figure, (axes,) = chart(theme)
    named = []
    for number, (run, (steps, values)) in enumerate(curves.items()):
        marker = "o" if len(steps) <= FEW else ""  # a line of one point would be invisible
        style: dict[str, Any] = {"marker": marker, "markersize": 3.5, "linewidth": 1.8, "solid_capstyle": "round"}
        line = axes.plot(steps, values, **theme.line(number), **style)
        named += [(one, run) for one in line if steps]
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
        legend_above(figure, theme, LETTERS, named)
    return figure


def level_figure(lines: LogLines, *, theme: Theme = LIGHT) -> Figure | None:
    """The share of the boxes on each pyramid level over the steps, stacked; None when it was not logged."""
    kept = [(line["step"], line["level_share"]) for line in lines if line.get("level_share")]
    if not kept:
        return None
    steps = [step for step, _ in kept]
    shares = list(zip(*(share for _, share in kept), strict=True))
    figure, (axes,) = chart(theme)
    areas = axes.stackplot(steps, *shares, colors=cycle(theme, len(shares)), alpha=0.85)
    axes.set(xlim=(steps[0], max(steps[-1], steps[0] + 1)), ylim=(0, 1))
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "handlelength": 1, "reverse": True}
    add_legend(axes, theme, LETTERS, list(zip(areas, LEVELS, strict=False)), **beside)
    return figure


def curve_charts(
    runs: Mapping[str, LogLines],
    titles: Mapping[str, tuple[str, str]] = TITLES,
    *,
    embedding_size: int | None = None,
    rank_bounds: Mapping[str, int] | None = None,
) -> list[PageImage]:
    """A chart for every field that the runs' logs have, for light and for dark pages.

    runs: name → log lines, as in log.jsonl. titles: title and caption of each field to draw. embedding_size: D, the
    length of an embedding; if given, the standard deviation is compared with 1/√D, the value for vectors spread evenly
    over the sphere, and with half of that. rank_bounds: the highest effective rank possible for each
    run.
    """
    charts = []
    for name, (title, caption) in titles.items():
        values = [_points(lines, name)[1] for lines in runs.values()]
        if len(values) == 1 and values[0]:
            caption = f"{caption} Here: {_value(name, values[0][0])} → {_value(name, values[0][-1])}."
        references = None
        if name == "embedding_std" and embedding_size:
            even = 1 / math.sqrt(embedding_size)
            references = {f"1/√{embedding_size} = {even:.4f}, spread evenly": even, "half of it": even / 2}
        if name == "effective_rank" and rank_bounds:
            references = _rank_references(rank_bounds)
        draw = partial(curve_figure, runs, name, references=references)
        charts += light_and_dark(draw, title, caption, _alt(title, runs, name))
    return charts


def _rank_references(bounds: Mapping[str, int]) -> dict[str, float]:
    """A reference line at each bound, labelled with its runs if the bounds differ."""
    of_bound: dict[int, list[str]] = {}
    for run, bound in bounds.items():
        of_bound.setdefault(bound, []).append(run)
    return {
        f"at most {bound}" + (f": {', '.join(runs)}" if len(of_bound) > 1 else ""): float(bound)
        for bound, runs in of_bound.items()
    }


def level_charts(runs: Mapping[str, LogLines]) -> list[PageImage]:
    """One chart per run of the pyramid levels of its boxes, if the log has them."""
    charts = []
    for run, lines in runs.items():
        title = f"Pyramid levels of {run}" if len(runs) > 1 else "Pyramid levels"
        alt = f"{title}: stacked chart of the share of the boxes on each level"
        draw = partial(level_figure, lines)
        caption = "Share of the boxes on each level, over all views. In a good run every level has boxes."
        charts += light_and_dark(draw, title, caption, alt)
    return charts


def _percent(value: float, _position: int | None) -> str:
    return f"{100 * value:.4g}%"


def _value(name: str, value: float) -> str:
    """A value of the field `name`, formatted for a caption."""
    is_share = any(share in name for share in PERCENT)
    return f"{value:.1%}" if is_share else rounded(value).replace("-", "−")


def _points(lines: LogLines, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines with a finite value."""
    kept = [(line["step"], line[name]) for line in lines if line.get(name) is not None and math.isfinite(line[name])]
    return [step for step, _ in kept], [value for _, value in kept]


def _alt(title: str, runs: Mapping[str, LogLines], name: str) -> str:
    parts = []
    for run, lines in runs.items():
        _, values = _points(lines, name)
        if values:
            parts.append(f"{run} from {rounded(values[0], 4)} to {rounded(values[-1], 4)}")
    return f"{title} over the steps: {'; '.join(parts)}"
