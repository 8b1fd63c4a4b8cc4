"""The table of an ablation: a line a run, what it ran with and what came out, as CSV and as Markdown."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socodet.runtime.files import read_note, write_atomically
from socodet.studies.ablation.budget import FamilyRow
from socodet.studies.ablation.folder import RowFolder
from socodet.studies.markdown import markdown_table
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
"""Measured columns and how they are written."""
TRANSFER_FORMAT = ".1f"
"""AP, in percent."""
FINE_TUNING = "fine-tuning "
"""How the status of a row begins that is pretrained and not yet, or not to the end, fine-tuned."""
LAST_PART = 10
"""The loss is the mean over the last steps, one in so many."""


@dataclass(frozen=True)
class AblationRow:
    """One run of an ablation. A figure that is not there (yet) is missing from `figures`."""

    name: str
    what: str
    seed: int
    paper_ap: str
    settings: Mapping[str, str]
    """What it ran with, name to value."""
    status: str
    """finished; diverged at step N; step N of M; not begun; the last three also as `fine-tuning …`."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Those of `FIGURES` that are known."""
    transfer: Mapping[str, float] = field(default_factory=dict)
    """What fine-tuning gave, such as `AP box`, in percent."""

    @property
    def finished(self) -> bool:
        """Whether all of it is done."""
        return self.status == "finished"

    @property
    def diverged(self) -> bool:
        """Whether it ended in NaN or infinity, in pretraining or in fine-tuning."""
        return self.status.removeprefix(FINE_TUNING).startswith("diverged")

    @property
    def pretrained(self) -> bool:
        """Whether its pretraining is done."""
        return self.finished or self.status.startswith(FINE_TUNING)


@dataclass(frozen=True)
class AblationTable:
    """All runs of an ablation, in the paper's order."""

    family: str
    folder: Path
    rows: tuple[AblationRow, ...]
    stopped_by: str | None = None
    """The signal that ended this call, or None."""

    @property
    def csv(self) -> Path:
        """Where the table is as CSV."""
        return self.folder / f"{self.family}.csv"

    @property
    def markdown(self) -> Path:
        """Where it is as Markdown."""
        return self.folder / f"{self.family}.md"

    @property
    def pictures(self) -> tuple[Path, Path]:
        """Where the figure is, as PNG and as SVG."""
        return self.folder / f"{self.family}.png", self.folder / f"{self.family}.svg"

    def columns(self) -> list[str]:
        """Of the CSV: every setting and figure."""
        return [*self._lead(), *self.rows[0].settings, *FIGURES, *self._transfers(), "status"]

    def cells(self) -> list[dict[str, str]]:
        """A dict a row by `columns`; empty where there is no figure."""
        return [
            {
                "row": row.name,
                "what": row.what,
                "seed": str(row.seed),
                "paper_ap": row.paper_ap,
                **row.settings,
                **{name: _written(row.figures.get(name), form) for name, form in FIGURES.items()},
                **{name: _written(row.transfer.get(name), TRANSFER_FORMAT) for name in self._transfers()},
                "status": row.status,
            }
            for row in self.rows
        ]

    def write(self) -> None:
        """CSV and Markdown, each whole or as it was before."""
        write_atomically(self.csv, self._as_csv().encode())
        write_atomically(self.markdown, self._as_markdown().encode())

    def _lead(self) -> list[str]:
        return ["row", "what", "seed", "paper_ap"]

    def _transfers(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.transfer))

    def _as_csv(self) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, self.columns(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.cells())
        return file.getvalue()

    def _as_markdown(self) -> str:
        """The same with the settings that all rows share said once, above."""
        cells = self.cells()
        shared = [name for name in self.rows[0].settings if len({row[name] for row in cells}) == 1]
        columns = [name for name in self.columns() if name not in shared]
        lines = [
            f"# {self.family}",
            "",
            f"Every row: {', '.join(f'{name} {cells[0][name]}' for name in shared)}.",
            "",
            *markdown_table(columns, [[row[name] or "–" for name in columns] for row in cells]),
            "",
            "paper_ap: the paper's AP of boxes, Mask R-CNN R50-FPN, COCO 1x, after 100 epochs of ImageNet. "
            "loss: mean over the last tenth of the steps; lowest_loss: where all views agree. Losses of rows with "
            "another number of views do not compare. "
            "recall: share of the objects that are found again in another view, among all boxes of the same images.",
        ]
        return "\n".join(lines) + "\n"


def row_settings(row: FamilyRow, images: int, proposals: str) -> dict[str, str]:
    """What a row runs with, name to value; `images`: readable images, `proposals`: how its boxes were made."""
    model, sample, training = row.recipe.model, row.recipe.sample, row.recipe.training
    limits = "/".join(f"{limit:.4g}" for limit in sample.level_limits)
    return {
        "encoder": model.architecture,
        "backbone": model.backbone,
        "fpn_channels": str(model.fpn_channels),
        "head_channels": str(model.head_channels),
        "representation_size": str(model.representation_size),
        "hidden_size": str(model.hidden_size),
        "embedding_size": str(model.embedding_size),
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


def finetune_columns(description: Mapping[str, Any]) -> dict[str, str]:
    """The plain values of what fine-tuning was asked, as columns of settings."""
    return {
        f"finetune_{name}": f"{value:.6g}" if isinstance(value, float) else str(value)
        for name, value in description.items()
        if isinstance(value, str | int | float)
    }


def read_row(row: FamilyRow, settings: Mapping[str, str], place: RowFolder, *, fine_tune: bool) -> AblationRow:
    """A row as it stands on disk: from the run's log, and from the records made when a part of it ended.

    fine_tune: whether it is only finished once a detector is fine-tuned from it.
    """
    noted, transferred = read_note(place.record), read_note(place.transfer_record)
    lines = [line for line in place.run.log_lines() if "images_per_second" in line]
    figures = _from_log(lines, int(settings["batch"]), int(settings["steps"]))
    if figures:
        figures["lowest_loss"] = -4.0 * (len(row.recipe.sample.views) - 1)
    if noted is None:
        status = _progress(place.run, settings["steps"])
    elif noted["status"] == "diverged":
        status = f"diverged at step {noted['step']}"
    else:
        figures |= noted["recall"]
        status = "finished"
        if transferred is not None and transferred["status"] == "diverged":
            status = f"{FINE_TUNING}diverged at step {transferred['step']}"
        elif transferred is None and fine_tune:
            status = FINE_TUNING + _progress(place.transfer, settings.get("finetune_iterations"))
    transfer = {} if transferred is None else transferred.get("figures", {})
    return AblationRow(row.name, row.what, place.seed, row.paper_ap, settings, status, figures, transfer)


def _progress(run: RunFolder, steps: str | None) -> str:
    """How far a run without a record came."""
    saved = run.checkpoints()
    if not saved:
        return "not begun"
    return f"step {int(saved[-1].stem.removeprefix('step-'))}" + ("" if steps is None else f" of {steps}")


def _from_log(lines: Sequence[Mapping[str, Any]], batch: int, total: int) -> dict[str, float]:
    """Figures of a log; it outlives interruptions, and every step is in just one line (`run_loop`).

    Spread and rank are of the newest step. The loss is the mean over the newest tenth of the steps, which begins where
    there is a line however often the run was interrupted.
    """
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


def _written(value: float | None, form: str) -> str:
    return "" if value is None or not math.isfinite(value) else format(value, form)
