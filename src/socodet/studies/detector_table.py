"""Tables and figures of a study's fine-tuned detectors: each init's final AP, and how soon it reaches scratch's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from socodet.finetuning.settings import SCRATCH
from socodet.reports.theme import LIGHT, Theme
from socodet.studies.figure import Lines, lines_figure, write_figure
from socodet.studies.runner import Outcome
from socodet.studies.table import Group, Spread, grouped, markdown_table, spreads

MAIN = "box_AP"
"""The score that inits are compared by; all scoring rules (COCO, VOC, LVIS) have it."""
PATH = f"scores.{MAIN}"
LEFT_OUT = ("APs", "APm", "APl")
"""Scores without a column in the Markdown table; CSV and JSON have all scores."""
LEAST_AP = 0.005
"""Tables print a lower AP as 0.00; reaching such an AP means nothing."""
FIGURES = ("iterations.png", "iterations.svg", "labels.png", "labels.svg")
LEGEND = {
    "above": "above: inits whose every seed ends with a lower box AP than every seed of this one, if both have two or "
    "more seeds and all of them finished; any other difference is within the variation between seeds.",
    "scratch": "scratch's AP at: the first evaluation at which the mean box AP is at least scratch's final one; "
    "the schedule, and with it the learning rate, is the same for all.",
}


@dataclass(frozen=True)
class DetectorTable:
    """Detectors on one dataset, labelled by init, fraction and seed (`FinetuningRuns.job`)."""

    outcomes: Sequence[Outcome]
    inits: Sequence[str]
    """Names of the inits, in the order of the table."""
    scratch: str | None = SCRATCH
    """The name of the init without pretraining."""

    @cached_property
    def runs(self) -> list[Outcome]:
        """All runs, ordered by fraction of the labels, init and seed."""
        return [run for row in self.rows for run in row.runs]

    @cached_property
    def rows(self) -> list[Group]:
        """One row for all seeds, ordered by fraction of the labels, then init."""
        order = {init: place for place, init in enumerate(self.inits)}
        rows = grouped(self.outcomes, "init", "fraction")
        return sorted(rows, key=lambda row: (row.labels["fraction"], order[str(row.labels["init"])]))

    @property
    def fractions(self) -> list[float]:
        """Fractions of the labels, smallest first."""
        return list(dict.fromkeys(float(row.labels["fraction"]) for row in self.rows))

    def at(self, fraction: float) -> list[Group]:
        """The rows of one fraction of the labels."""
        return [row for row in self.rows if row.labels["fraction"] == fraction]

    def scratch_ap(self, fraction: float, like: Group | None = None) -> float | None:
        """The mean final box AP from scratch, over the seeds of `like` if given; None if it was not run, or is 0.00."""
        for row in self.at(fraction):
            spread = (row if like is None else row.like(like)).spread(PATH)
            if row.labels["init"] == self.scratch and spread is not None:
                return spread.mean if spread.mean >= LEAST_AP else None
        return None

    def reaches_scratch_at(self, row: Group) -> int | None:
        """The first evaluation at which a row's mean box AP is at least scratch's final one with as many labels.

        Both means are over the seeds that the two have in common.
        """
        fraction = float(row.labels["fraction"])
        goal = self.scratch_ap(fraction, like=row)
        from_scratch = [other for other in self.at(fraction) if other.labels["init"] == self.scratch]
        shared = row.like(from_scratch[0]) if from_scratch else row
        means = {step: spread.mean for step, spread in curve(shared).items()}
        return None if goal is None else next((step for step, mean in means.items() if mean >= goal), None)

    def above(self, row: Group) -> list[str]:
        """The inits whose every seed ends below every seed of this row, with as many labels."""
        others = self.at(float(row.labels["fraction"]))
        return [str(other.labels["init"]) for other in others if row.is_above(other, PATH)]

    def score_names(self) -> list[str]:
        """Names of all scores that any row has."""
        return list(dict.fromkeys(name for row in self.rows for name in scores(row)))

    def markdown(self, title: str) -> list[str]:
        """A table for each fraction of the labels; its heading is `title`, formatted with the percentage."""
        lines: list[str] = []
        for fraction in self.fractions:
            lines += ["", f"## {title.format(f'{100 * fraction:g}%')}", "", *markdown_table(*self.table(fraction))]
        if lines:
            chance = _by_chance([len(row.finished) for row in self.rows])
            lines += ["", LEGEND["above"] + chance]
        if any(self.scratch_ap(fraction) is not None for fraction in self.fractions):
            lines.append(LEGEND["scratch"])
        return lines

    def table(self, fraction: float) -> tuple[list[str], list[list[str]]]:
        """Header and one line per init, for one fraction of the labels; unknown cells are empty."""
        names = [name for name in self.score_names() if not name.endswith(LEFT_OUT)]
        has_scratch = self.scratch_ap(fraction) is not None
        header = ["init", "runs", *(name.replace("_", " ") for name in names)]
        header += ["scratch's AP at"] * has_scratch + ["above"]
        length = max((run.results["steps"] for row in self.at(fraction) for run in row.finished), default=0)
        lines = []
        for row in self.at(fraction):
            found = scores(row)
            cells = [str(row.labels["init"]), row.state()]
            cells += [found[name].written() if name in found else "" for name in names]
            if has_scratch:
                reached = self.reaches_scratch_at(row)
                cells.append("" if reached is None else f"step {reached} of {length}")
            lines.append([*cells, ", ".join(self.above(row))])
        return header, lines

    def csv(self) -> tuple[list[str], list[list[object]]]:
        """Header and one line per row, with every score."""
        names = self.score_names()
        header = ["init", "fraction", "runs", "finished", "diverged"]
        header += [f"{name}_{figure}" for name in names for figure in ("mean", "std")] + ["reaches_scratch_at", "above"]
        lines: list[list[object]] = []
        for row in self.rows:
            figures: list[float | None] = []
            for spread in map(scores(row).get, names):
                figures += [None, None] if spread is None else [spread.mean, spread.deviation]
            counts = [len(row.runs), len(row.finished), sum(run.diverged for run in row.runs)]
            written = ["" if figure is None else f"{figure:.4f}" for figure in figures]
            last = [self.reaches_scratch_at(row), " ".join(self.above(row))]
            lines.append([row.labels["init"], f"{row.labels['fraction']:g}", *counts, *written, *last])
        return header, lines

    def as_json(self) -> list[dict[str, Any]]:
        """One object per row."""
        return [
            {
                **row.labels,
                "seeds": [run.labels["seed"] for run in row.finished],
                "scores": {name: spread.as_json() for name, spread in scores(row).items()},
                "curve": [{"step": step, **spread.as_json()} for step, spread in curve(row).items()],
                "reaches_scratch_at": self.reaches_scratch_at(row),
                "above": self.above(row),
            }
            for row in self.rows
        ]

    def figures(self, theme: Theme = LIGHT) -> dict[str, Figure | None]:
        """Figures by file name, None if there are no runs for one: box AP over the steps, with one panel per fraction
        of the labels and scratch's final AP as a dashed line; and final box AP over the fraction of the labels.
        """
        panels = []
        for fraction in self.fractions:
            curves = {str(row.labels["init"]): curve(row) for row in self.at(fraction) if curve(row)}
            title = f"{100 * fraction:g}% of the training images"
            panels += [Lines(title, curves, self.scratch_ap(fraction), f"{self.scratch} at the end")] if curves else []
        ends: dict[str, dict[float, Spread]] = {}
        for row in self.rows:
            spread = row.spread(PATH)
            if spread is not None:
                ends.setdefault(str(row.labels["init"]), {})[float(row.labels["fraction"])] = spread
        several = len({fraction for points in ends.values() for fraction in points}) > 1
        over = [Lines("Label efficiency", ends)] if several else []
        return {
            "iterations": lines_figure(panels, self.inits, "step", "box AP", theme=theme),
            "labels": lines_figure(
                over, self.inits, "fraction of the training images", "box AP", over_fractions=True, theme=theme
            ),
        }

    def write_figures(self, folder: Path) -> None:
        """Writes each figure that there are runs for, as PNG and as SVG."""
        for name, figure in self.figures().items():
            write_figure(folder / name, figure)


def scores(row: Group) -> dict[str, Spread]:
    """The scores, in percent, that every finished run has, by name."""
    return spreads([run.results["scores"] for run in row.finished])


def curve(row: Group) -> dict[int, Spread]:
    """Step → box AP, at the evaluations that every finished run made."""
    return dict(sorted(spreads([_curve(run.results["curve"]) for run in row.finished]).items()))


def _curve(points: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    return {point["step"]: point[MAIN] for point in points if MAIN in point}


def _by_chance(counts: Sequence[int]) -> str:
    """The probability that n runs are all above, or all below, n equal ones: 2 n! n! / (2n)!."""
    if len(set(counts)) != 1 or counts[0] < 2:
        return ""
    odds = math.comb(2 * counts[0], counts[0]) / 2
    return f" With {counts[0]} seeds each, two equal inits differ this much by chance at most 1 time in {odds:g}."
