"""The table of an ablation: the settings and results of every run, as CSV, Markdown and a figure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socodet.models.objective import build_objective
from socodet.runtime.files import write_atomically
from socodet.runtime.shown import Shown, ShownPart, ShownTable, ShownThumbnail
from socodet.studies.ablation.budget import SCALED_CHANNELS, FamilyRow
from socodet.studies.figure import Bars, bars_figure, write_figure
from socodet.studies.runner import Outcome, Study
from socodet.studies.table import csv_table, markdown_table
from socodet.training.loop import default_log_every
from socodet.training.run_folder import RunFolder

FIGURES = {
    "loss": ".4f",
    "lowest_loss": ".0f",
    "embedding_std": ".4f",
    "effective_rank": ".2f",
    "recall": ".4f",
    "recall_untrained": ".4f",
    "images_per_second": ".2f",
    "seconds": ".1f",
}
"""Measured columns and their formats."""
SCORES = {"box_AP": "AP box", "mask_AP": "AP mask"}
"""Scores of a fine-tuned detector that become columns, with their headings."""
SCORE_FORMAT = ".1f"
PRETRAINING, FINETUNING = "pretraining", "fine-tuning"
"""The two jobs of a row; the status of a row that is pretrained but not yet fine-tuned begins with the second."""
LAST_PART = 10
"""The reported loss is the mean over the last 1/10 of the steps."""


@dataclass(frozen=True)
class AblationRow:
    """One row of the paper's table with one seed. Unknown figures are missing from `figures`."""

    name: str
    what: str
    seed: int
    paper_ap: str
    settings: Mapping[str, str]
    """Its settings, name → value."""
    status: str
    """finished; diverged at step N; step N of M; not begun; the last three also as `fine-tuning …`."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Those of `FIGURES` that are known."""
    transfer: Mapping[str, float] = field(default_factory=dict)
    """Scores after fine-tuning, such as `AP box`, in percent."""

    @property
    def finished(self) -> bool:
        """Whether everything is done."""
        return self.status == "finished"

    @property
    def diverged(self) -> bool:
        """Whether it ended in NaN or infinity, in pretraining or in fine-tuning."""
        return "diverged" in self.status

    @property
    def pretrained(self) -> bool:
        """Whether its pretraining is done."""
        return self.finished or self.status.startswith(FINETUNING)

    def cells(self) -> dict[str, str]:
        """Its cells by column; unknown figures are empty or missing."""
        return {
            "row": self.name,
            "what": self.what,
            "seed": str(self.seed),
            "paper_ap": self.paper_ap,
            **self.settings,
            **{name: _written(self.figures.get(name), form) for name, form in FIGURES.items()},
            **{name: _written(value, SCORE_FORMAT) for name, value in self.transfer.items()},
            "status": self.status,
        }


@dataclass(frozen=True)
class AblationTable(Shown):
    """All rows of an ablation, in the paper's order."""

    family: str
    folder: Path
    rows: tuple[AblationRow, ...]
    stopped_by: str | None = None
    """The signal that ended this call, `max_steps`, or None."""

    @property
    def csv(self) -> Path:
        """The table as CSV."""
        return self.folder / f"{self.family}.csv"

    @property
    def markdown(self) -> Path:
        """The table as Markdown."""
        return self.folder / f"{self.family}.md"

    @property
    def figure(self) -> Path:
        """The figure as PNG; the SVG is beside it."""
        return self.folder / f"{self.family}.png"

    def __str__(self) -> str:
        """The table as Markdown."""
        cells = self._cells()
        columns = self._columns()
        lines = [
            f"# {self.family}",
            "",
            f"Every row: {', '.join(f'{name} {value}' for name, value in self._shared().items())}.",
            "",
            *markdown_table(columns, [[row.get(name, "") for name in columns] for row in cells]),
            "",
            "paper_ap: the paper's box AP, Mask R-CNN R50-FPN, COCO 1x, after 100 epochs of ImageNet. "
            "loss: mean over the last tenth of the steps; lowest_loss: where all views agree. Do not compare losses of "
            "rows with different numbers of views. "
            "recall: share of objects found again in another view, among all boxes of the same images.",
        ]
        return "\n".join(lines) + "\n"

    def headline(self) -> str:
        """The family, and what all rows share."""
        shared = ", ".join(f"{name} {value}" for name, value in self._shared().items())
        return f"{self.family}: {shared}" if shared else self.family

    def shown(self) -> Iterator[ShownPart]:
        """The table, and the figure."""
        columns = self._columns()
        yield ShownTable([[cells.get(name, "") for name in columns] for cells in self._cells()], columns)
        if self.figure.is_file():
            yield ShownThumbnail.of(self.figure, "recall and AP of each row")

    def _cells(self) -> list[dict[str, str]]:
        return [row.cells() for row in self.rows]

    def _shared(self) -> dict[str, str]:
        """The settings that are the same in every row."""
        cells = self._cells()
        return {name: cells[0][name] for name in self.rows[0].settings if len({row[name] for row in cells}) == 1}

    def _columns(self) -> list[str]:
        """The table's columns: settings that differ, figures, scores."""
        differing = [name for name in self.rows[0].settings if name not in self._shared()]
        return ["row", "what", "seed", "paper_ap", *differing, *FIGURES, *self._transfers(), "status"]

    def _transfers(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.transfer))

    def write(self) -> None:
        """Writes CSV and Markdown, each completely or not at all."""
        settings = [*self.rows[0].settings]
        columns = ["row", "what", "seed", "paper_ap", *settings, *FIGURES, *self._transfers(), "status"]
        cells = self._cells()
        text = csv_table(columns, [[row.get(name, "") for name in columns] for row in cells])
        write_atomically(self.csv, text.encode(errors="backslashreplace"))
        write_atomically(self.markdown, str(self).encode(errors="backslashreplace"))

    def _by_name(self) -> list[list[AblationRow]]:
        """The rows of the paper's table, each with all its seeds."""
        names = dict.fromkeys(row.name for row in self.rows)
        return [[row for row in self.rows if row.name == name] for name in names]

    def panels(self) -> list[Bars]:
        """The figure's panels: recall@1, scores after fine-tuning, the paper's AP; a bar per row and a dot per seed."""
        rows = self._by_name()
        marks = ["not fine-tuned" if seeds[0].finished else seeds[0].status for seeds in rows]
        no_recall = ["none for whole images" if seeds[0].pretrained else seeds[0].status for seeds in rows]
        recall = [[row.figures.get("recall", math.nan) for row in seeds] for seeds in rows]
        before = [_mean([row.figures.get("recall_untrained", math.nan) for row in seeds]) for seeds in rows]
        aps = {
            name: [[row.transfer.get(name, math.nan) for row in seeds] for seeds in rows] for name in self._transfers()
        }
        paper = [[float(seeds[0].paper_ap)] for seeds in rows]
        return [
            Bars("recall@1, V1 to V2; line: untrained", recall, no_recall, before),
            *(Bars(name, values, marks) for name, values in aps.items()),
            Bars("the paper's AP, COCO 1x", paper, ["NaN"] * len(rows), is_measured=False),
        ]

    def write_figure(self) -> None:
        """Writes the figure as PNG and as SVG."""
        what = [seeds[0].what.partition(": ")[2] for seeds in self._by_name()]
        write_figure(self.folder / self.family, bars_figure(self.panels(), what))


def row_settings(row: FamilyRow, images: int, proposals: str) -> dict[str, str]:
    """A row's settings, name → value; `images`: number of readable images, `proposals`: how its boxes were made."""
    model, sample, training = row.recipe.model, row.recipe.sample, row.recipe.training
    limits = "/".join(f"{limit:.4g}" for limit in sample.level_limits)
    return {
        "encoder": model.architecture,
        "backbone": model.backbone,
        **{name: str(getattr(model, name)) for name in SCALED_CHANNELS},
        "views": "/".join(str(view.size) for view in sample.views),
        "levels": f"{row.levels} {limits}" if sample.level_rule == "scale_aware" else row.levels,
        "K": str(sample.boxes_per_image),
        "jitter": f"{sample.jitter:g}",
        "min_box_side": f"{sample.min_box_side:.4g}",
        "proposals": proposals,
        "batch": str(training.batch_size),
        "accumulate": str(training.accumulate),
        "lr": f"{training.lr:.6g}",
        "target_momentum": f"{training.target_momentum:g}",
        "epochs": f"{training.epochs:g}",
        "warmup_epochs": f"{training.warmup_epochs:.6g}",
        "steps": str(training.steps(training.epochs, images)),
        "images": str(images),
    }


def finetune_columns(noted: Mapping[str, Any] | None) -> dict[str, str]:
    """How rows are fine-tuned, in this call or an earlier one, as columns of settings."""
    if noted is None:
        return {}
    settings, schedule, (train, val) = noted["settings"], noted["schedule"], noted["names"]
    return {
        "finetune_detector": settings["detector"],
        "finetune_train": train,
        "finetune_val": val,
        "finetune_schedule": settings["schedule"],
        "finetune_iterations": str(schedule["iterations"]),
        "finetune_batch_size": str(schedule["batch_size"]),
        "finetune_lr": f"{schedule['lr']:.6g}",
        "finetune_size": str(schedule["test_short_side"]),
    }


def read_row(
    row: FamilyRow, settings: Mapping[str, str], study: Study, outcomes: Sequence[Outcome]
) -> list[AblationRow]:
    """An `AblationRow` for each seed, with the figures of its run's log."""
    own = {(int(one.labels["seed"]), one.labels["stage"]): one for one in outcomes if one.labels["row"] == row.name}
    lines = []
    for seed in sorted(seed for seed, stage in own if stage == PRETRAINING):
        pretrained, finetuned = own[seed, PRETRAINING], own.get((seed, FINETUNING))
        figures = log_figures(RunFolder(study.folder / pretrained.name), int(settings["batch"]), int(settings["steps"]))
        if figures:
            figures["lowest_loss"] = build_objective(row.recipe.objective).lowest(len(row.recipe.sample.views))
        figures |= pretrained.results.get("recall", {})
        status, transfer = pretrained.status, {}
        if finetuned is not None and pretrained.finished:
            status = "finished" if finetuned.finished else f"{FINETUNING} {finetuned.status}"
            scores = finetuned.results.get("scores", {})
            transfer = {heading: scores[name] for name, heading in SCORES.items() if name in scores}
        lines.append(AblationRow(row.name, row.what, seed, row.paper_ap, settings, status, figures, transfer))
    return lines


def log_figures(run: RunFolder, batch: int, total: int) -> dict[str, float]:
    """Figures of a log, which do not depend on interruptions, since every step is in exactly one line (`run_loop`).

    Standard deviation and rank are those of the newest step. The loss is the mean over the newest tenth of the steps,
    rounded to a step at which every run has a log line.
    """
    lines: Sequence[Mapping[str, Any]] = [line for line in run.log_lines() if "images_per_second" in line]
    if not lines:
        return {}
    done, usual = lines[-1]["step"], default_log_every(total)
    since = (done - max(1, done // LAST_PART)) // usual * usual
    loss = learned = seconds = 0.0
    for earlier, line in zip([0, *(line["step"] for line in lines)], lines, strict=False):
        steps = line["step"] - earlier
        seconds += steps * batch / line["images_per_second"]
        if line["step"] > since and "loss" in line:
            part = (line["step"] - max(earlier, since)) / steps
            weight = part * (steps - line.get("skipped", 0))
            loss, learned = loss + weight * line["loss"], learned + weight
    figures = {name: float(lines[-1][name]) for name in ("embedding_std", "effective_rank") if name in lines[-1]}
    if learned:
        figures = {"loss": loss / learned, **figures}
    return {**figures, "images_per_second": done * batch / seconds, "seconds": seconds}


def _mean(values: Sequence[float]) -> float:
    """The mean of the finite values; NaN if there are none."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _written(value: float | None, form: str) -> str:
    return "" if value is None or not math.isfinite(value) else format(value, form)
