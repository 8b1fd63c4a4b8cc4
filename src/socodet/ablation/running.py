"""Runs the rows of an ablation one after another; what is done stays done.

DIR/ablation.json               what was asked, so that other rows never end up in the same table
DIR/proposals[-random].parquet  the boxes that all rows share
DIR/ROW/seed-S/                 a run's folder
DIR/ROW/seed-S.json             how that run ended: its recall, or where it diverged
DIR/ROW/seed-S-transfer/        whatever fine-tuning writes
DIR/FAMILY.csv .md .png .svg    the table and its figure
"""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socodet.ablation.budget import PAPER, Budget, FamilyRow, family_rows
from socodet.ablation.figure import write_figure
from socodet.ablation.retrieval import object_recall
from socodet.ablation.table import AblationTable, read_record, read_row, row_settings, write_record
from socodet.errors import InputError
from socodet.images.source import ImageSource, open_images
from socodet.preparation import digest_names, readable_images, some_images
from socodet.pretraining import pretrain
from socodet.proposals import ProposalTable, propose
from socodet.recipes import Recipe
from socodet.training.engine import DivergedError
from socodet.training.run import RunFolder, first_difference, write_atomically
from socodet.training.settings import ExecutionSettings
from socodet.world import world_from_environment

Transfer = Callable[[RunFolder, Path], dict[str, float]]
"""Fine-tunes a detector from a finished run, in a folder of its own, and returns its figures by column name, such as
`{"AP box": 38.1, "AP mask": 34.4}`, in percent. Called again after an interruption, with the same folder."""


def run_ablation(
    family: str,
    images: str | Path | ImageSource,
    output: str | Path,
    budget: Budget | None = None,
    *,
    proposals: str | Path | None = None,
    finetune: Transfer | None = None,
    execution: ExecutionSettings | None = None,
    retry_diverged: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> AblationTable:
    """Pretrains every row of one of the paper's tables at a budget, and writes the table of what came out.

    `proposals` is a table of these images for the rows that use selective search; by default one is made, and
    shared. `finetune` adds its figures to every finished row. `execution.max_steps` counts for each row.

    The same call goes on after an interruption: finished rows are left alone, and more seeds may be asked for. A row
    that diverges is recorded, with the step, and not run again unless `retry_diverged`: then from its last good
    checkpoint. A SIGINT or SIGTERM ends the call after the step under way; the table returned, and on disk, is that
    of what is there.

    InputError for an unknown family, a budget or images that cannot be used, or an output that holds something else.
    """
    if world_from_environment(meeting=False).size > 1:
        raise InputError(
            "ablate: runs in one process; start it without torchrun or srun, or pretrain a row by its name"
        )
    budget = budget or Budget()
    rows = family_rows(family, budget)
    source = open_images(images) if isinstance(images, str | Path) else images
    if budget.limit is not None:
        source = some_images(source, budget.limit, 0)
    _check_steps(rows, source)
    folder = Path(output)
    _prepare(folder, family, budget, source, proposals, overwrite=overwrite)
    tables = _tables(folder, rows, source, proposals, show_progress)
    read = {method: ProposalTable.read(path) for method, path in tables.items()}
    readable = {method: readable_images(source, table)[0] for method, table in read.items()}
    methods = {method: table.settings.method for method, table in read.items()}
    study = _Study(
        family,
        folder,
        budget,
        rows,
        source,
        tables,
        readable,
        methods,
        finetune,
        execution or ExecutionSettings(),
        show_progress,
    )
    stopped_by = study.run(retry_diverged)
    table = study.table(stopped_by)
    table.write()
    write_figure(table)
    return table


@dataclass(frozen=True)
class _Study:
    """What is asked of all rows together."""

    family: str
    folder: Path
    budget: Budget
    rows: list[FamilyRow]
    source: ImageSource
    tables: dict[str, Path]
    """Proposal tables by the method of the rows that use them."""
    readable: dict[str, NDArray[np.int64]]
    """Indices of the images that could be read, likewise."""
    methods: Mapping[str, str]
    """How the boxes of each of these tables were really made: a table that was given may be of another method."""
    finetune: Transfer | None
    execution: ExecutionSettings
    show_progress: bool

    def run(self, retry_diverged: bool) -> str | None:
        """Every row with every seed; the signal that ended it early, or None."""
        try:
            for row in self.rows:
                for seed in self.budget.seed:
                    stopped_by = self._run_row(row, seed, retry_diverged)
                    self.table(stopped_by).write()
                    if stopped_by is not None:
                        return stopped_by
        except KeyboardInterrupt:
            return "SIGINT"
        return None

    def table(self, stopped_by: str | None) -> AblationTable:
        """As it is on disk, with the seeds of earlier calls."""
        lines = []
        for row in self.rows:
            settings = row_settings(row, len(self._readable(row)), self.methods[row.recipe.proposals.method])
            earlier = {int(path.stem.removeprefix("seed-")) for path in (self.folder / row.name).glob("seed-*.json")}
            lines += [
                read_row(row, seed, settings, self._run_folder(row, seed), self._record(row, seed))
                for seed in sorted(earlier | set(self.budget.seed))
            ]
        return AblationTable(self.family, self.folder, tuple(lines), stopped_by)

    def _run_row(self, row: FamilyRow, seed: int, retry_diverged: bool) -> str | None:
        """Brings a row to its end; the signal that kept it from there, or None."""
        run, record = self._run_folder(row, seed), self._record(row, seed)
        noted, stopped_by = read_record(record), None
        if noted is not None and noted["status"] == "diverged" and retry_diverged:
            record.unlink()
            noted = None
        if noted is None:
            recipe = _with_seed(row.recipe, seed)
            self._say(f"{row.name}, seed {seed}: {row.what}")
            try:
                result = pretrain(
                    self.source,
                    recipe,
                    run.path,
                    proposals=self.tables[recipe.proposals.method],
                    execution=self.execution,
                    resume=True,
                    show_progress=self.show_progress,
                )
            except DivergedError as error:
                write_record(record, {"status": "diverged", "step": error.step, "why": str(error)})
                self._say(f"{error}\n{row.name}: recorded as diverged; the other rows go on")
                return None
            stopped_by = None if result.stopped_by == "max_steps" else result.stopped_by
            if not result.finished:
                return stopped_by
            noted = {"status": "finished", "recall": self._recall(run, recipe)}
            write_record(record, noted)
        if (
            self.finetune is not None
            and stopped_by is None
            and noted["status"] == "finished"
            and "transfer" not in noted
        ):
            figures = self.finetune(run, run.path.with_name(f"{run.path.name}-transfer"))
            write_record(record, {**noted, "transfer": figures})
        return stopped_by

    def _recall(self, run: RunFolder, recipe: Recipe) -> dict[str, float]:
        """Asked of selective search's objects in every row, also in one that learned from other boxes."""
        path = self.tables[PAPER.proposals.method]
        first_two = dataclasses.replace(PAPER.sample, views=PAPER.sample.views[:2], jitter=0.0)
        question = self.budget.scaled(dataclasses.replace(PAPER, sample=first_two)).sample
        table = ProposalTable.read(path)
        return object_recall(
            run, recipe, question, self.source, table, self.readable[PAPER.proposals.method], self.execution
        )

    def _run_folder(self, row: FamilyRow, seed: int) -> RunFolder:
        return RunFolder(self.folder / row.name / f"seed-{seed}")

    def _record(self, row: FamilyRow, seed: int) -> Path:
        return self.folder / row.name / f"seed-{seed}.json"

    def _readable(self, row: FamilyRow) -> NDArray[np.int64]:
        return self.readable[row.recipe.proposals.method]

    def _say(self, line: str) -> None:
        if self.show_progress:
            print(line, file=sys.stderr)


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, seed=seed))


def _check_steps(rows: list[FamilyRow], source: ImageSource) -> None:
    """InputError when some row could not make a step, before the first is run."""
    for row in rows:
        training = row.recipe.training
        if training.steps(training.epochs, len(source)) == 0:
            raise InputError(
                f"{row.name}: {len(source)} images give no step of batch size {training.batch_size} in "
                f"{training.epochs:g} epochs; lower --batch-size or raise --epochs"
            )


def _prepare(
    folder: Path,
    family: str,
    budget: Budget,
    source: ImageSource,
    proposals: str | Path | None,
    *,
    overwrite: bool,
) -> None:
    """Makes the folder, or finds in it the ablation that is asked for."""
    cost = dataclasses.asdict(budget)
    del cost["seed"]  # more may come
    asked: dict[str, Any] = {
        "family": family,
        "budget": cost,
        "images": {"count": len(source), "names_sha256": digest_names(source)},
        "proposals": None if proposals is None else str(Path(proposals).resolve()),
    }
    note = folder / "ablation.json"
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give a folder for --output")
    if folder.is_dir() and any(folder.iterdir()) and not note.exists():
        raise InputError(f"{folder}: holds files that are not an ablation's; give another --output")
    if note.exists():
        there = json.loads(note.read_text())
        difference = first_difference(asked, there)
        if difference and not overwrite:
            raise InputError(
                f"{folder}: holds another ablation: {difference}; give another --output, or pass --overwrite to lose it"
            )
        if overwrite:
            _clear(folder, there["family"])
    write_atomically(note, json.dumps(asked, indent=2).encode() + b"\n")


def _clear(folder: Path, family: str) -> None:
    """Removes what an ablation writes, and nothing else."""
    for path in folder.iterdir():
        if path.is_dir() and path.name.startswith((f"{family}_", ".proposals")):
            shutil.rmtree(path)
        elif path.stem == family or path.name.startswith("proposals"):
            path.unlink()


def _tables(
    folder: Path, rows: list[FamilyRow], source: ImageSource, given: str | Path | None, show_progress: bool
) -> dict[str, Path]:
    """A proposal table for each method that some row uses; each is made once, for all of them."""
    tables: dict[str, Path] = {}
    settings = {row.recipe.proposals.method: row.recipe.proposals for row in rows}
    for method, wanted in {PAPER.proposals.method: PAPER.proposals, **settings}.items():
        usual = method == PAPER.proposals.method
        if usual and given is not None:
            tables[method] = Path(given)
            ProposalTable.read(given).check_images(source)
            continue
        tables[method] = folder / ("proposals.parquet" if usual else f"proposals-{method}.parquet")
        if not tables[method].exists():
            propose(source, tables[method], settings=wanted, show_progress=show_progress)
    return tables
