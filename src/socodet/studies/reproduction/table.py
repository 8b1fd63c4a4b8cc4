"""The tables of the benchmark: probes and fine-tuned AP by method, mean and spread over seeds, as Markdown and JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from socodet.runtime.files import write_atomically
from socodet.studies.comparison.outcomes import MAIN, Outcome, RunPlace, read_outcome
from socodet.studies.comparison.table import Row, Spread, is_beyond
from socodet.studies.markdown import markdown_table
from socodet.studies.reproduction.protocol import Protocol

NOTE = "reproduction.json"
UNTRAINED = "untrained"
FINETUNE = "finetune"
TABLES = ("results.md", "results.json")
PROBES = {
    "knn_balanced": "kNN, mean over kinds",
    "knn": "kNN",
    "linear_balanced": "linear, mean over kinds",
    "linear": "linear",
    "recall_at_1": "recall@1",
    "scale_cosine": "cosine at S and S/2",
    "others_cosine": "of others",
}
"""Columns of the probe's table; the cosines are no percentages."""
COSINES = ("scale_cosine", "others_cosine")
JUDGED = ("knn_balanced", "recall_at_1")
"""The figures that methods are compared by."""
WHOSE = {"backbone": "of the backbone alone (RoIAlign of C5)", "head": "of the box head (h of Eq. 1)"}
"""Vectors that are probed. Only the backbone's can be compared between methods with and without FPN and head."""


@dataclass(frozen=True)
class MethodRow:
    """A method's pretraining runs."""

    name: str
    what: str
    runs: Mapping[int, Mapping[str, Any]]
    """By seed, what was noted when the run ended."""

    @cached_property
    def finished(self) -> Mapping[int, Mapping[str, Any]]:
        """Those that came to their end."""
        return {seed: noted for seed, noted in self.runs.items() if noted["status"] == "finished"}

    def spread(self, whose: str, figure: str) -> Spread | None:
        """A probe's figure over the seeds, percent but for cosines; None where some run has none."""
        values = [noted["probe"].get(whose, {}).get(figure) for noted in self.finished.values()]
        if not values or any(value is None for value in values):
            return None
        return Spread(tuple(value if figure in COSINES else 100 * value for value in values))

    def is_above(self, other: "MethodRow", whose: str, figure: str) -> bool:
        """Whether every seed of this one is higher than every seed of the other: the same two or more, none
        of them diverged.
        """
        if self.runs.keys() != other.runs.keys() or any(len(row.finished) < len(row.runs) for row in (self, other)):
            return False
        return is_beyond(self.spread(whose, figure), other.spread(whose, figure))


@dataclass(frozen=True)
class Reproduction:
    """What the benchmark came to, as far as it is."""

    folder: Path
    protocol: Protocol
    stopped_by: str | None = None
    """The signal that ended this call, or None."""

    @property
    def markdown(self) -> Path:
        """Where the tables are as Markdown."""
        return self.folder / TABLES[0]

    @cached_property
    def methods(self) -> tuple[MethodRow, ...]:
        """The networks before training, then every method; with the seeds of earlier calls."""
        untrained = {
            _seed(path): _read(path) for path in sorted(self.folder.glob(f"{UNTRAINED}-seed-*.json"), key=_seed)
        }
        rows = [MethodRow(UNTRAINED, "SoCo's networks before training", untrained)]
        for method in self.protocol.methods():
            noted = {
                _seed(path): _read(path) for path in sorted((self.folder / method.name).glob("seed-*.json"), key=_seed)
            }
            rows.append(MethodRow(method.name, method.what, noted))
        return tuple(rows)

    @cached_property
    def detectors(self) -> tuple[Row, ...]:
        """Fine-tuned detectors by part of the labels and first weights."""
        groups: dict[tuple[float, str], list[Outcome]] = {}
        for folder in sorted((self.folder / FINETUNE).glob("seed-*"), key=_seed):
            for run in sorted(folder.glob("runs/*/fraction-*/seed-*")):
                if run.is_dir():
                    fraction = float(run.parent.name.removeprefix("fraction-"))
                    place = RunPlace(folder, run.parents[1].name, fraction, _seed(run))
                    groups.setdefault((fraction, place.init), []).append(read_outcome(place))
        return tuple(Row(init, fraction, tuple(runs)) for (fraction, init), runs in sorted(groups.items()))

    def write(self) -> None:
        """Markdown and JSON, each whole or as it was before."""
        write_atomically(self.folder / TABLES[0], self.as_markdown().encode())
        write_atomically(self.folder / TABLES[1], (json.dumps(self.as_json(), indent=2) + "\n").encode())

    def as_markdown(self) -> str:
        """All tables."""
        asked, budget = _read(self.folder / NOTE), self.protocol.pretraining
        lines = [
            f"# Pretraining on {asked['images']['count']:,} pictures, budget {self.protocol.name}",
            "",
            f"{budget.epochs:g} epochs, batches of {budget.batch_size}, {budget.backbone}, first view of {budget.size} "
            f"pixels, {budget.width:g} of the paper's channels. Labels: {asked['train']['name']} "
            f"({asked['train']['images']:,} pictures); scored on {asked['val']['name']} ({asked['val']['images']:,}). "
            "Mean ± sample standard deviation over the seeds; percent but for cosines. A method is above another when "
            "each of its seeds is above each of the other's.",
            "",
            *(f"- {row.name}: {row.what}" for row in self.methods),
        ]
        for whose, title in WHOSE.items():
            rows = [row for row in self.methods if row.spread(whose, JUDGED[0])]
            if rows:
                lines += ["", f"## Probe {title}", "", *self._probe_lines(rows, whose)]
        for fraction in dict.fromkeys(row.fraction for row in self.detectors):
            lines += ["", f"## {self.protocol.finetuning.detector}, {100 * fraction:g}% of the labels", ""]
            lines += self._detector_lines([row for row in self.detectors if row.fraction == fraction])
        return "\n".join(lines) + "\n"

    def _probe_lines(self, rows: list[MethodRow], whose: str) -> list[str]:
        above = [f"above, by {PROBES[figure]}" for figure in JUDGED]
        header = ["method", "runs", "steps", "minutes", *PROBES.values(), *above]
        return markdown_table(header, [self._cells(row, rows, whose) for row in rows])

    def _cells(self, row: MethodRow, rows: list[MethodRow], whose: str) -> list[str]:
        diverged = len(row.runs) - len(row.finished)
        steps = {str(noted["steps"]) for noted in row.finished.values() if "steps" in noted}
        minutes = [noted["seconds"] / 60 for noted in row.finished.values() if "seconds" in noted]
        figures = [row.spread(whose, figure) for figure in PROBES]
        above = [[other.name for other in rows if row.is_above(other, whose, figure)] for figure in JUDGED]
        return [
            row.name,
            f"{len(row.finished)}" + (f", {diverged} diverged" if diverged else ""),
            ", ".join(sorted(steps)) or "–",
            str(Spread(tuple(minutes))) if minutes else "–",
            *("–" if figure is None else _written(figure, name) for figure, name in zip(figures, PROBES, strict=True)),
            *(", ".join(names) or "–" for names in above),
        ]

    def _detector_lines(self, rows: list[Row]) -> list[str]:
        names = list(dict.fromkeys(name for row in rows for name in row.scores))
        header = ["first weights", "runs", *(name.replace("_", " ") for name in names), f"above, by {MAIN}"]
        lines = []
        for row in rows:
            seeds = {run.seed for run in row.runs}
            above = [o.init for o in rows if {run.seed for run in o.runs} == seeds and row.is_above(o)]
            cells = [str(row.scores[name]) if name in row.scores else "–" for name in names]
            lines.append([row.init, row.state(), *cells, ", ".join(above) or "–"])
        return markdown_table(header, lines)

    def as_json(self) -> dict[str, Any]:
        """Every figure behind the tables, by method and seed."""
        return {
            **_read(self.folder / NOTE),
            "methods": {
                row.name: {"what": row.what, "runs": {str(s): dict(n) for s, n in row.runs.items()}}
                for row in self.methods
            },
            "detectors": [
                {
                    "first_weights": row.init,
                    "fraction": row.fraction,
                    "seed": run.seed,
                    "status": run.status,
                    "scores": dict(run.scores),
                    "curve": [{"step": step, **scores} for step, scores in sorted(run.curve.items())],
                }
                for row in self.detectors
                for run in row.runs
            ],
        }


def _written(spread: Spread, figure: str) -> str:
    """Cosines with three places."""
    if figure not in COSINES:
        return str(spread)
    return f"{spread.mean:.3f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.3f}")


def _read(path: Path) -> dict[str, Any]:
    noted: dict[str, Any] = json.loads(path.read_text())
    return noted


def _by_seed(notes: Iterable[Path]) -> dict[int, dict[str, Any]]:
    return {_seed(path): _read(path) for path in sorted(notes, key=_seed)}


def _seed(path: Path) -> int:
    """The number at the end of a name."""
    return int(path.name.removesuffix(".json").rpartition("-")[2])
