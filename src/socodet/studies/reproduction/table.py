"""The tables of the benchmark: probes and fine-tuned AP by method, as Markdown and JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from socodet.finetuning.finetune import SCRATCH
from socodet.runtime.files import write_atomically
from socodet.studies.detector_table import DetectorTable
from socodet.studies.reproduction.protocol import Protocol
from socodet.studies.runner import Outcome, Study
from socodet.studies.table import Group, Spread, grouped, markdown_table, runs_as_json

UNTRAINED = "untrained"
TABLES = ("results.md", "results.json")
PROBES = {
    "knn_balanced": "kNN, mean over classes",
    "knn": "kNN",
    "linear_balanced": "linear, mean over classes",
    "linear": "linear",
    "recall_at_1": "recall@1",
    "scale_cosine": "cosine at S and S/2",
    "others_cosine": "of others",
}
"""Columns of the probe's table, in percent except for the cosines."""
COSINES = ("scale_cosine", "others_cosine")
JUDGED = ("knn_balanced", "recall_at_1")
"""The figures that methods are compared by."""
WHOSE = {"backbone": "of the backbone alone (RoIAlign of C5)", "head": "of the box head (h of Eq. 1)"}
"""Vectors that are probed. Only the backbone's can be compared between methods with and without FPN and head."""


@dataclass(frozen=True)
class Reproduction:
    """The results of the benchmark, as far as it is."""

    study: Study
    protocol: Protocol
    outcomes: tuple[Outcome, ...]
    stopped_by: str | None = None
    """The signal that ended this call, `max_steps`, or None."""

    @property
    def markdown(self) -> Path:
        """Where the tables are as Markdown."""
        return self.study.folder / TABLES[0]

    @property
    def what(self) -> dict[str, str]:
        """The networks before training, then every method."""
        methods = {method.name: method.what for method in self.protocol.methods()}
        return {UNTRAINED: "SoCo's networks before training", **methods}

    @cached_property
    def methods(self) -> list[Group]:
        """A row per method."""
        rows = grouped((run for run in self.outcomes if "method" in run.labels), "method")
        return sorted(rows, key=lambda row: [*self.what].index(str(row.labels["method"])))

    @cached_property
    def detectors(self) -> DetectorTable:
        """Fine-tuned detectors by fraction of the labels and first weights."""
        inits = [SCRATCH, *(method.name for method in self.protocol.methods() if method.finetuned)]
        return DetectorTable([run for run in self.outcomes if "init" in run.labels], inits)

    def write(self) -> None:
        """Markdown and JSON, each whole or as it was before."""
        detectors = self.detectors.as_json()
        content = {**self.study.noted()["asked"], "runs": runs_as_json(self.outcomes), "detectors": detectors}
        write_atomically(self.markdown, self.as_markdown().encode())
        write_atomically(self.study.folder / TABLES[1], (json.dumps(content, indent=2) + "\n").encode())

    def as_markdown(self) -> str:
        """All tables."""
        asked, budget = self.study.noted()["asked"], self.protocol.pretraining
        lines = [
            f"# Pretraining on {asked['images']['count']:,} images, budget {self.protocol.name}",
            "",
            f"{budget.epochs:g} epochs, batches of {budget.batch_size}, {budget.backbone}, first view of {budget.size} "
            f"pixels, {budget.width:g} of the paper's channels. Labels: {asked['train']['name']} "
            f"({asked['train']['images']:,} images); scored on {asked['val']['name']} ({asked['val']['images']:,}). "
            "Mean ± sample standard deviation over the seeds; percent except for cosines. A method is above another "
            "when each of its seeds is above each of the other's.",
            "",
            *(f"- {name}: {what}" for name, what in self.what.items()),
        ]
        for whose, title in WHOSE.items():
            rows = [row for row in self.methods if _probe(row, whose, JUDGED[0])]
            if rows:
                lines += ["", f"## Probe {title}", "", *_probe_table(rows, whose)]
        lines += self.detectors.markdown(f"{self.protocol.finetuning.detector}, {{}} of the labels")
        return "\n".join(lines) + "\n"


def _probe(row: Group, whose: str, figure: str) -> Spread | None:
    """A probe's figure over the seeds, in percent except for cosines."""
    spread = row.spread(f"probe.{whose}.{figure}")
    return spread if spread is None or figure in COSINES else spread.times(100)


def _probe_table(rows: Sequence[Group], whose: str) -> list[str]:
    above = [f"above, by {PROBES[figure]}" for figure in JUDGED]
    header = ["method", "runs", "steps", "minutes", *PROBES.values(), *above]
    return markdown_table(header, [_cells(row, rows, whose) for row in rows])


def _cells(row: Group, rows: Sequence[Group], whose: str) -> list[str]:
    steps = {str(run.results["steps"]) for run in row.finished if "steps" in run.results}
    seconds = row.spread("seconds")
    figures = {figure: _probe(row, whose, figure) for figure in PROBES}
    return [
        str(row.labels["method"]),
        row.state(),
        ", ".join(sorted(steps)),
        "" if seconds is None else seconds.times(1 / 60).written(),
        *("" if s is None else s.written(".3f" if name in COSINES else ".2f") for name, s in figures.items()),
        *(
            ", ".join(
                str(other.labels["method"])
                for other in rows
                if other.seeds == row.seeds and row.is_above(other, f"probe.{whose}.{figure}")
            )
            for figure in JUDGED
        ),
    ]
