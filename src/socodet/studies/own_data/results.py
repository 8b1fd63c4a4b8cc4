"""The tables of the study: AP of each start, its difference from others by fold, and its worth in labels."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from socodet.finetuning.settings import SCRATCH
from socodet.runtime.counted import rounded
from socodet.runtime.files import write_atomically
from socodet.runtime.markdown import in_table
from socodet.runtime.shown import Shown, ShownPart, ShownTable, ShownThumbnail
from socodet.studies.detector_table import FIGURES, LEAST_AP, MAIN, DetectorTable
from socodet.studies.own_data.protocol import (
    ADAPTED,
    IMAGE,
    OF_TRAINING,
    SOCO,
    SOCO_BACKBONE,
    SOCO_PAPER,
    SOCO_RPN,
    OwnDataSettings,
    pretrained_as,
)
from socodet.studies.runner import Outcome, Study
from socodet.studies.table import Paired, markdown_table

TABLES = ("results.md", "results.json")
HEADER = ("start", "AP", "AP50", "AP by fold", "steps to scratch's AP", "worth as many labels")
VERDICTS = ("difference in AP", "mean [95% interval]", "folds", "verdict")
BOX_AP50 = "box_AP50"


@dataclass(frozen=True)
class OwnData(Shown):
    """The results of the study so far."""

    study: Study
    settings: OwnDataSettings
    what: Mapping[str, str]
    """Every start and its description, in the order of the tables."""
    outcomes: tuple[Outcome, ...]
    stopped_by: str | None = None
    """The signal that ended this call, `max_steps`, or None."""

    @cached_property
    def asked(self) -> dict[str, Any]:
        """What was requested, from the study's note."""
        asked: dict[str, Any] = self.study.noted()["asked"]
        return asked

    @property
    def markdown(self) -> Path:
        """The path of the Markdown tables."""
        return self.study.folder / TABLES[0]

    @cached_property
    def detectors(self) -> DetectorTable:
        """The detectors, by fraction of the labels and start."""
        return DetectorTable([run for run in self.outcomes if "init" in run.labels], [*self.what])

    @cached_property
    def pretraining(self) -> dict[str, Outcome]:
        """The pretraining runs by start."""
        return {str(run.labels["start"]): run for run in self.outcomes if "start" in run.labels}

    @cached_property
    def lengths(self) -> dict[float, Outcome]:
        """The search for the length of fine-tuning, by fraction of the labels."""
        return {float(run.labels["length"]): run for run in self.outcomes if "length" in run.labels}

    def scores(self, start: str, fraction: float) -> dict[int, Outcome]:
        """The finished detectors by fold."""
        rows = (row for row in self.detectors.at(fraction) if row.labels["init"] == start)
        return {int(run.labels["seed"]): run for row in rows for run in row.finished}

    def difference(self, start: str, other: str, fraction: float) -> Paired | None:
        """AP of one start minus that of another, over the folds that both have; None if they share none."""
        one, another = self.scores(start, fraction), self.scores(other, fraction)
        shared = sorted({*one} & {*another})
        return Paired(tuple(_ap(one[fold]) - _ap(another[fold]) for fold in shared)) if shared else None

    def compared(self) -> Iterator[tuple[str, str]]:
        """Pairs of starts to compare."""
        yield from ((SOCO, SCRATCH), (SOCO, IMAGE), (SOCO_PAPER, SCRATCH), (IMAGE, SCRATCH), (SOCO_RPN, SOCO))
        yield from ((SOCO_BACKBONE, other) for other in (SCRATCH, IMAGE, SOCO))
        given = next((name for name in self.what if f"{name}_{SOCO}" in self.what), None)
        if given is not None:
            yield from ((f"{given}_{SOCO}", given), (f"{given}_{SOCO}", f"{given}_{IMAGE}"), (given, SOCO))
            yield from ((f"{given}_{ADAPTED}", given), (f"{given}_{ADAPTED}", f"{given}_{SOCO}"))

    def labels_worth(self, start: str, fraction: float) -> float | None:
        """The fraction of the labels that scratch needs to reach a start's AP with `fraction` of the labels.

        Scratch is averaged over the same folds, at the fractions for which it has all of them; in between, AP is
        interpolated linearly in the logarithm of the fraction. Infinity if scratch is lower at every measured fraction;
        None if it cannot be determined, for example for an AP of 0.00.
        """
        own = self.scores(start, fraction)
        scratch = {f: self.scores(SCRATCH, f) for f in self._comparable(own)}
        if not own or len(scratch) < 2:
            return None
        points = [(f, mean(_ap(runs[fold]) for fold in own)) for f, runs in scratch.items()]
        goal = mean(map(_ap, own.values()))
        (least, lowest), *_ = points
        if goal < max(lowest, LEAST_AP):
            return None
        if goal == lowest:
            return least
        for (less, low), (more, high) in itertools.pairwise(points):
            if low <= goal <= high:
                part = (goal - low) / (high - low) if high > low else 0.0
                return math.exp(math.log(less) + part * (math.log(more) - math.log(less)))
        return math.inf

    def _comparable(self, own: Mapping[int, Outcome]) -> list[float]:
        """The fractions at which scratch has all of these folds, smallest first."""
        return [f for f in sorted(self.detectors.fractions) if own.keys() <= self.scores(SCRATCH, f).keys()]

    def as_json(self) -> list[dict[str, Any]]:
        """One object per finished detector; AP in percent."""
        return list(self._objects())

    def _objects(self) -> Iterator[dict[str, Any]]:
        for run in self.detectors.runs:
            if not run.finished:
                continue
            start, fraction, fold = str(run.labels["init"]), float(run.labels["fraction"]), int(run.labels["seed"])
            scratch = self.scores(SCRATCH, fraction).get(fold)
            pretraining = self.pretraining.get(pretrained_as(start))
            seconds = None if pretraining is None else pretraining.figure("seconds")
            yield {
                "set": self.asked["set"],
                "start": start,
                "fraction": fraction,
                "fold": fold,
                "AP": _ap(run),
                "AP50": run.figure(f"scores.{BOX_AP50}"),
                "steps": run.results["steps"],
                "steps_to_scratch": None if scratch is None else _reaches(run, _ap(scratch)),
                "curve": [[point["step"], point[MAIN]] for point in run.results["curve"]],
                "pretraining_steps": None if pretraining is None else pretraining.results.get("steps"),
                "pretraining_minutes": None if seconds is None else round(seconds / 60, 1),
            }

    def write(self) -> None:
        """Writes Markdown and JSON, each completely or not at all."""
        write_atomically(self.markdown, self.as_markdown().encode(errors="backslashreplace"))
        write_atomically(self.study.folder / TABLES[1], (json.dumps(self.as_json(), indent=1) + "\n").encode())

    def __str__(self) -> str:
        return self.as_markdown()

    def headline(self) -> str:
        """The images pretrained on, and the dataset of the detectors."""
        asked = self.asked
        images = f"{asked['images']['count']:,} images"
        if asked["images"].get("names_sha256", OF_TRAINING) == OF_TRAINING:
            return f"Pretraining on {images} of {asked['set']}"
        return f"Pretraining on {images} given for it, detectors on {asked['set']}"

    def shown(self) -> Iterator[ShownPart]:
        """The tables of each fraction, and AP over the steps and over the labels."""
        for fraction in self.detectors.fractions:
            share = f"{100 * fraction:g}% of the labels"
            yield ShownTable(self._rows(fraction), HEADER, f"{share}; percent, over the folds")
            if verdicts := self._verdicts(fraction):
                yield ShownTable(verdicts, VERDICTS, share)
        yield from (
            ShownThumbnail.of(self.study.folder / name, f"AP over the {name.removesuffix('.png')}")
            for name in FIGURES
            if name.endswith(".png") and (self.study.folder / name).is_file()
        )

    def as_markdown(self) -> str:
        """All tables."""
        asked = self.asked
        lines = [
            f"# {in_table(self.headline())}",
            "",
            f"Labels: parts of {asked['train']['images']:,} images; scored on {asked['val']['images']:,} others.",
            "Each fold uses another part of the labels, which may overlap with other folds', and another seed. AP in",
            "percent, after the last step; mean ± sample standard deviation over the folds. All folds of a start share",
            "one pretraining, so intervals do not include the variation between pretraining seeds. Each interval is",
            "95% by itself: of twenty intervals between equal starts, expect one to exclude zero.",
            "",
            *(f"- {name}: {in_table(what)}" for name, what in self.what.items() if name in self._begun_or_asked()),
            "",
            *self._costs(),
        ]
        for fraction in self.detectors.fractions:
            lines += ["", f"## {100 * fraction:g}% of the labels", "", *self._fraction(fraction)]
        return "\n".join(lines) + "\n"

    def _begun_or_asked(self) -> set[str]:
        return {str(run.labels["init"]) for run in self.detectors.outcomes} | {*self.pretraining}

    def _costs(self) -> list[str]:
        rows = []
        for start, run in self.pretraining.items():
            seconds, rank = run.figure("seconds"), run.figure("effective_rank")
            minutes = "" if seconds is None else rounded(seconds / 60)
            of_rank = "" if rank is None else rounded(rank)
            rows.append(
                [start, str(run.results.get("steps", run.status)), minutes, run.results.get("machine", ""), of_rank]
            )
        return markdown_table(["pretraining", "steps", "minutes", "on", "effective rank at the end"], rows)

    def _fraction(self, fraction: float) -> list[str]:
        verdicts = self._verdicts(fraction)
        compared = ["", *markdown_table(VERDICTS, verdicts)] if verdicts else []
        return [*self._length(fraction), "", *markdown_table(HEADER, self._rows(fraction)), *compared]

    def _rows(self, fraction: float) -> list[list[str]]:
        rows = []
        every = sorted({int(run.labels["seed"]) for row in self.detectors.at(fraction) for run in row.runs})
        for row in self.detectors.at(fraction):
            start = str(row.labels["init"])
            ap, ap50 = row.spread(f"scores.{MAIN}"), row.spread(f"scores.{BOX_AP50}")
            diverged = {int(run.labels["seed"]) for run in row.runs if run.diverged}
            if ap is None and not diverged:
                continue
            reached = self.detectors.reaches_scratch_at(row)
            own = self.scores(start, fraction)
            aps = {fold: f"{_ap(run):.1f}" for fold, run in own.items()} | dict.fromkeys(diverged, "diverged")
            folds = ", ".join(aps.get(fold, "–") for fold in every)
            worth = None if start == SCRATCH else self.labels_worth(start, fraction)
            most = max(self._comparable(own), default=1.0)
            means = ["" if one is None else one.written() for one in (ap, ap50)]
            rows.append([start, *means, folds, str(reached or ""), _percent(worth, most)])
        return rows

    def _length(self, fraction: float) -> list[str]:
        found = self.lengths.get(fraction)
        if found is not None and found.diverged:
            return [f"From scratch, fold 0 {found.status}: the length is unknown, and nothing was fine-tuned."]
        if found is None or not found.finished:
            return []
        steps, tried = found.results["length"], found.results["tried"]
        if not tried:
            return [f"Every detector: {steps} steps, as requested."]
        if found.results["settled"]:
            why = f"because twice the steps raise scratch's AP by no more than {100 * self.settings.rise:g}%"
        elif len(tried) > 1:
            why = "the longest that was tried, at which scratch was still rising"
        else:
            why = "the only length that was tried"
        aps = ", ".join(f"{one['scores'][MAIN]:.1f} after {one['steps']}" for one in tried)
        return [f"Every detector: {steps} steps, {why} (fold 0: {aps})."]

    def _verdicts(self, fraction: float) -> list[list[str]]:
        rows = []
        for start, other in self.compared():
            paired = self.difference(start, other, fraction)
            if paired is not None:
                rows.append([f"{start} − {other}", paired.written(), str(len(paired.differences)), paired.verdict])
        return rows


def _ap(run: Outcome) -> float:
    return float(run.results["scores"][MAIN])


def _reaches(run: Outcome, goal: float) -> int | None:
    """The first evaluation at which a run reaches this AP; None for an AP of 0.00, which every run reaches."""
    if goal < LEAST_AP:
        return None
    return next((point["step"] for point in run.results["curve"] if point.get(MAIN, -1.0) >= goal), None)


def _percent(fraction: float | None, most: float) -> str:
    """A fraction in percent; `most` is the largest fraction of the labels that was measured."""
    if fraction is None:
        return ""
    if math.isinf(fraction):
        return "more than there are" if most == 1 else f"more than {100 * most:g}%"
    return f"{rounded(100 * fraction)}%"
