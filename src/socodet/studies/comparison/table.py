"""The table of a comparison: mean and spread of each init, who is beyond whose spread, and how soon, as files."""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from socodet.finetuning.finetune import SCRATCH
from socodet.runtime.files import write_atomically
from socodet.studies.comparison.outcomes import MAIN, Outcome
from socodet.studies.markdown import markdown_table

TABLES = ("table.md", "table.csv", "table.json")
LEFT_OUT = ("APs", "APm", "APl")
"""Scores that the Markdown table has no column for; CSV and JSON have all."""


@dataclass(frozen=True)
class Spread:
    """One score of several runs."""

    values: tuple[float, ...]
    """Percent, by seed."""

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Their sample standard deviation (n - 1); None of a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


def is_beyond(one: Spread | None, other: Spread | None) -> bool:
    """Whether every value of one lies above every value of the other, two or more each."""
    if one is None or other is None or min(len(one.values), len(other.values)) < 2:
        return False
    return min(one.values) > max(other.values)


@dataclass(frozen=True)
class Row:
    """All runs from the same first weights on as many labels."""

    init: str
    fraction: float
    runs: tuple[Outcome, ...]

    @cached_property
    def finished(self) -> tuple[Outcome, ...]:
        """The runs that came to their end; every figure is of these."""
        return tuple(run for run in self.runs if run.finished)

    @cached_property
    def scores(self) -> dict[str, Spread]:
        """By name, those that every finished run has."""
        return _spreads([run.scores for run in self.finished])

    @cached_property
    def curve(self) -> dict[int, Spread]:
        """Finished steps → AP of boxes, at the evaluations that every finished run made."""
        curves = [{step: at[MAIN] for step, at in run.curve.items() if MAIN in at} for run in self.finished]
        return dict(sorted(_spreads(curves).items()))

    def first_step_at(self, ap: float) -> int | None:
        """The first evaluation at which the mean AP of boxes was this high; None where it never was."""
        return next((step for step, spread in self.curve.items() if spread.mean >= ap), None)

    def is_above(self, other: "Row") -> bool:
        """Whether every seed of this one ends above every seed of the other: all runs finished, two or more each."""
        if any(len(row.finished) < max(2, len(row.runs)) or MAIN not in row.scores for row in (self, other)):
            return False
        return is_beyond(self.scores[MAIN], other.scores[MAIN])

    def state(self) -> str:
        """How many runs finished, and what of the others."""
        diverged = sum(run.diverged for run in self.runs)
        left = len(self.runs) - len(self.finished) - diverged
        parts = [f"{len(self.finished)}"]
        parts += [f"{diverged} diverged"] if diverged else []
        parts += [f"{left} to go"] if left else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to, as far as it is."""

    folder: Path
    note: Mapping[str, Any]
    """What all runs have in common, and the first weights by name (comparison.json)."""
    runs: tuple[Outcome, ...]
    """By part of the labels, init and seed; those of earlier calls among them."""
    stopped_by: str | None = None
    """The signal that ended this call, or None."""
    unreadable: tuple[str, ...] = ()
    """Pictures that could not be read in this call, and why."""
    is_first: bool = True
    """Of several processes, whether this is the one that speaks."""

    @property
    def markdown(self) -> Path:
        """Where the table is as Markdown."""
        return self.folder / TABLES[0]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """By part of the labels, then by init."""
        groups: dict[tuple[float, str], list[Outcome]] = {}
        for run in self.runs:
            groups.setdefault((run.fraction, run.init), []).append(run)
        return tuple(Row(init, fraction, tuple(runs)) for (fraction, init), runs in groups.items())

    @property
    def inits(self) -> tuple[str, ...]:
        """Names, in the order they were first given."""
        return tuple(name for name in self.note["inits"] if any(row.init == name for row in self.rows))

    @property
    def fractions(self) -> tuple[float, ...]:
        """Parts of the labels, the smallest first."""
        return tuple(dict.fromkeys(row.fraction for row in self.rows))

    def at(self, fraction: float) -> tuple[Row, ...]:
        """The rows of one part of the labels."""
        return tuple(row for row in self.rows if row.fraction == fraction)

    def scratch_ap(self, fraction: float) -> float | None:
        """The mean AP of boxes that training from scratch ends with; None where it was not done, or came to nothing."""
        for row in self.at(fraction):
            if self.note["inits"][row.init]["from"] == SCRATCH and MAIN in row.scores:
                mean = row.scores[MAIN].mean
                return mean if mean >= 0.005 else None  # as tables print it, 0.00
        return None

    def reaches_scratch_at(self, row: Row) -> int | None:
        """The first evaluation at which a row's mean AP is what scratch ends with on as many labels."""
        goal = self.scratch_ap(row.fraction)
        return None if goal is None else row.first_step_at(goal)

    def above(self, row: Row) -> tuple[str, ...]:
        """The inits that a row is beyond the spread of, on as many labels."""
        return tuple(other.init for other in self.at(row.fraction) if row.is_above(other))

    def write(self) -> None:
        """Markdown, CSV and JSON, each whole or as it was before."""
        for name, content in zip(TABLES, (self.as_markdown(), self._as_csv(), self._as_json()), strict=True):
            write_atomically(self.folder / name, content.encode())

    def _score_names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))

    def as_markdown(self) -> str:
        """A table for each part of the labels."""
        recipe, train, val = (self.note[part] for part in ("recipe", "train", "val"))
        settings, schedule = recipe["settings"], recipe["schedule"]
        length = f"{settings['epochs']:g} epochs" if settings["epochs"] else f"{schedule['iterations']} steps"
        names = self.note["names"]
        lines = [
            f"# {settings['detector']} from {', '.join(self.inits)}",
            "",
            f"Every run: {length} of batch size {schedule['batch_size']} at rate {schedule['lr']:.6g} "
            f"({settings['schedule']}), pictures of {schedule['test_short_side']} pixels. "
            f"Trained on {names['train']} ({train['images']} pictures), scored on {names['val']} "
            f"({val['images']} pictures, {val['style']} rules), in percent: mean ± sample standard deviation over the "
            "seeds.",
            "",
            *(f"- {name}: {_origin(self.note['inits'][name])}" for name in self.inits),
        ]
        for fraction in self.fractions:
            lines += ["", f"## {100 * fraction:g}% of the training pictures", "", *self._group(fraction)]
        lines += ["", *self._legend()]
        return "\n".join(lines) + "\n"

    def _group(self, fraction: float) -> list[str]:
        rows = self.at(fraction)
        scores = [name for name in self._score_names() if not name.endswith(LEFT_OUT)]
        has_scratch = self.scratch_ap(fraction) is not None
        header = ["init", "runs", *(name.replace("_", " ") for name in scores)]
        header += ["scratch's AP at step"] if has_scratch else []
        header += ["above"]
        lines = []
        for row in rows:
            cells = [row.init, row.state(), *(str(row.scores.get(name, "–")) for name in scores)]
            if has_scratch:
                reached = self.reaches_scratch_at(row)
                cells.append("–" if reached is None else f"{reached} of {self._length(fraction)}")
            lines.append([*cells, ", ".join(self.above(row)) or "–"])
        return markdown_table(header, lines)

    def _length(self, fraction: float) -> int:
        """Steps of a run, of those that came to their end."""
        return max(max(run.curve) for row in self.at(fraction) for run in row.finished if run.curve)

    def _legend(self) -> list[str]:
        lines = [
            "above: inits whose every seed ends with a lower box AP than every seed of this one, where both have two "
            f"or more and all of them finished; any other difference is within the spread.{_by_chance(self.rows)}"
        ]
        if any(self.scratch_ap(fraction) is not None for fraction in self.fractions):
            lines.append(
                "scratch's AP at step: the first evaluation at which the mean box AP is at least what scratch ends "
                "with; the schedule, and with it the learning rate, is the same for all."
            )
        return lines

    def _as_csv(self) -> str:
        names = self._score_names()
        columns = ["init", "fraction", "runs", "finished", "diverged"]
        columns += [f"{name}_{figure}" for name in names for figure in ("mean", "std")]
        columns += ["reaches_scratch_at", "above"]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in self.rows:
            figures: list[float | None] = []
            for name in names:
                spread = row.scores.get(name)
                figures += [None, None] if spread is None else [spread.mean, spread.deviation]
            states = [len(row.runs), len(row.finished), sum(run.diverged for run in row.runs)]
            written = ["" if figure is None else f"{figure:.4f}" for figure in figures]
            reached = self.reaches_scratch_at(row)
            last = ["" if reached is None else reached, " ".join(self.above(row))]
            writer.writerow([row.init, f"{row.fraction:g}", *states, *written, *last])
        return file.getvalue()

    def _as_json(self) -> str:
        rows = [
            {
                "init": row.init,
                "fraction": row.fraction,
                "seeds": [run.seed for run in row.finished],
                "scores": {name: _plain(spread) for name, spread in row.scores.items()},
                "curve": [{"step": step, **_plain(spread)} for step, spread in row.curve.items()],
                "reaches_scratch_at": self.reaches_scratch_at(row),
                "above": list(self.above(row)),
            }
            for row in self.rows
        ]
        runs = [
            {
                "init": run.init,
                "fraction": run.fraction,
                "seed": run.seed,
                "status": run.status,
                "scores": dict(run.scores),
                "curve": [{"step": step, **scores} for step, scores in sorted(run.curve.items())],
            }
            for run in self.runs
        ]
        return json.dumps({"compared_by": MAIN, "rows": rows, "runs": runs}, indent=2) + "\n"


def _spreads(each: Sequence[Mapping[Any, float]]) -> dict[Any, Spread]:
    """By key, the values of all, where all have one."""
    if not each:
        return {}
    return {key: Spread(tuple(one[key] for one in each)) for key in each[0] if all(key in one for one in each)}


def _plain(spread: Spread) -> dict[str, Any]:
    return {"mean": spread.mean, "std": spread.deviation, "values": list(spread.values)}


def _origin(init: Mapping[str, Any]) -> str:
    if init["from"] == SCRATCH:
        return "nothing pretrained"
    return f"{init['from']} ({', '.join(init['loaded'])})"


def _by_chance(rows: Iterable[Row]) -> str:
    """How often n runs lie wholly above or below n others of the same kind: 2 n! n! / (2n)!."""
    counts = {len(row.finished) for row in rows}
    if len(counts) != 1 or min(counts) < 2:
        return ""
    n = counts.pop()
    odds = math.comb(2 * n, n) / 2
    return f" With {n} seeds each, chance alone sets two equal inits so far apart at most 1 time in {odds:g}."
