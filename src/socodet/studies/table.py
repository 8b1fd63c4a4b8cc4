"""Tables of results over seeds: mean ± sample standard deviation, and which is above which; Markdown, CSV and JSON."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from socodet.runtime.markdown import in_table
from socodet.studies.runner import Label, Outcome


@dataclass(frozen=True)
class Spread:
    """One figure over several runs."""

    values: tuple[float, ...]
    """One value per run."""

    @property
    def mean(self) -> float:
        """The mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation (n - 1); None for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def written(self) -> str:
        """`12.30 ± 0.45`."""
        return f"{self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"mean": self.mean, "std": self.deviation, "values": list(self.values)}


T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t by degrees of freedom, from 1: 95% of the distribution is within ± this."""


def t95(freedom: int) -> float:
    """The same for any degrees of freedom; beyond the table, Fisher and Cornish's expansion (1960), to five digits."""
    if freedom <= len(T95):
        return T95[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, 1)))


@dataclass(frozen=True)
class Paired:
    """Paired differences between two measurements."""

    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.differences)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% confidence interval of the mean, by Student's t; None for a single pair."""
        count = len(self.differences)
        if count < 2:
            return None
        half = t95(count - 1) * statistics.stdev(self.differences) / math.sqrt(count)
        return self.mean - half, self.mean + half

    @property
    def verdict(self) -> str:
        """`above` when the whole interval is above zero, `below` when it is below, otherwise `no clear difference`."""
        low, high = self.interval or (-math.inf, math.inf)
        return "above" if low > 0 else "below" if high < 0 else "no clear difference"

    def written(self) -> str:
        """`+1.20 [0.35, 2.05]`."""
        between = "" if self.interval is None else " [{:.2f}, {:.2f}]".format(*self.interval)
        return f"{self.mean:+.2f}{between}"


def spreads(runs: Sequence[Mapping[Any, float]]) -> dict[Any, Spread]:
    """The figures that every run has, by name."""
    shared = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
    return {name: Spread(tuple(run[name] for run in runs)) for name in shared}


@dataclass(frozen=True)
class Group:
    """Outcomes that differ only in their seed: a row of a table."""

    labels: Mapping[str, Label]
    """The labels that all of them share."""
    runs: tuple[Outcome, ...]

    @cached_property
    def finished(self) -> tuple[Outcome, ...]:
        """The finished runs, from which all figures are computed."""
        return tuple(run for run in self.runs if run.finished)

    def like(self, other: "Group") -> "Group":
        """Only the finished runs whose seeds the other group has also finished."""
        seeds = {run.labels["seed"] for run in other.finished}
        return replace(self, runs=tuple(run for run in self.finished if run.labels["seed"] in seeds))

    def spread(self, path: str) -> Spread | None:
        """A figure of the finished runs, by its path in their results; None if one of them lacks it."""
        values = [run.figure(path) for run in self.finished]
        known = tuple(value for value in values if value is not None)
        return Spread(known) if known and len(known) == len(values) else None

    def is_above(self, other: "Group", path: str) -> bool:
        """Whether every seed of this group has a higher figure than every seed of the other.

        Both must have two or more seeds, all finished.
        """
        one, another = self.spread(path), other.spread(path)
        if one is None or another is None or min(len(row.finished) for row in (self, other)) < 2:
            return False
        all_finished = all(len(row.finished) == len(row.runs) for row in (self, other))
        return all_finished and min(one.values) > max(another.values)

    def state(self) -> str:
        """How many runs finished, and the state of the others: `2, 1 diverged, 1 to go`."""
        diverged = sum(run.diverged for run in self.runs)
        left = len(self.runs) - len(self.finished) - diverged
        others = [f"{count} {what}" for count, what in ((diverged, "diverged"), (left, "to go")) if count]
        return ", ".join([f"{len(self.finished)}", *others])


def grouped(outcomes: Iterable[Outcome], *by: str) -> list[Group]:
    """Outcomes grouped by these labels, each group sorted by seed; the groups in order of first appearance."""
    groups: dict[tuple[Label, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(tuple(outcome.labels[name] for name in by), []).append(outcome)
    return [
        Group(dict(zip(by, values, strict=True)), tuple(sorted(runs, key=lambda run: run.labels["seed"])))
        for values, runs in groups.items()
    ]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown; empty cells become a dash."""
    cells = ([in_table(cell) or "–" for cell in row] for row in rows)
    lines = [[*map(in_table, header)], ["---"] * len(header), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The table as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([header, *rows])
    return file.getvalue()
