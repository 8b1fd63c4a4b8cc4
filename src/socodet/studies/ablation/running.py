"""Runs the rows of an ablation one after another; what is done stays done. Where each is kept: `folder.py`."""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.source import ImageSource, open_images
from socodet.pretraining.preparation import check_steps, readable_images, some_images
from socodet.pretraining.pretrain import pretrain
from socodet.pretraining.recipes import Recipe
from socodet.proposals.table import ProposalTable
from socodet.runtime.files import read_note, write_note
from socodet.runtime.world import world_from_environment
from socodet.studies.ablation.budget import PAPER, Budget, FamilyRow, family_rows
from socodet.studies.ablation.figure import write_figure
from socodet.studies.ablation.finetuning import Transfer
from socodet.studies.ablation.folder import RowFolder, prepare_folder, seeds_on_disk, shared_tables
from socodet.studies.ablation.retrieval import object_recall
from socodet.studies.ablation.table import AblationTable, finetune_columns, read_row, row_settings
from socodet.training.loop import DivergedError
from socodet.training.settings import ExecutionSettings


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
    shared. `finetune`, such as a `DetectorTransfer`, adds its figures to every row once it is pretrained.
    `execution.max_steps` counts for each row.

    The same call goes on after an interruption: finished rows are left alone, and more seeds, or fine-tuning, may be
    asked for. A row that diverges, in pretraining or in fine-tuning, is recorded, with the step, and not run again
    unless `retry_diverged`: then from its last good checkpoint. A SIGINT or SIGTERM ends the call after the step under
    way; the table returned, and on disk, is that of what is there.

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
    for row in rows:
        check_steps(source, row.recipe, len(source))
    folder = Path(output)
    description = None if finetune is None else finetune.description
    noted = prepare_folder(folder, family, budget, source, proposals, description, overwrite=overwrite)
    tables = shared_tables(folder, rows, source, proposals, show_progress)
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
        {} if noted is None else finetune_columns(noted),
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
    finetuned_with: Mapping[str, str]
    """Columns that say how rows are fine-tuned, in this call or in an earlier one."""
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
            settings |= self.finetuned_with
            lines += [
                read_row(
                    row,
                    settings,
                    self._place(row, seed),
                    fine_tune=self.finetune is not None and seed in self.budget.seed,
                )
                for seed in sorted(seeds_on_disk(self.folder / row.name) | set(self.budget.seed))
            ]
        return AblationTable(self.family, self.folder, tuple(lines), stopped_by)

    def _run_row(self, row: FamilyRow, seed: int, retry_diverged: bool) -> str | None:
        """Brings a row to its end; the signal that kept it from there, or None."""
        place = self._place(row, seed)
        if retry_diverged:
            _forget_divergence(place)
        stopped_by = None
        if read_note(place.record) is None:
            stopped_by = self._pretrain(row, place)
        noted = read_note(place.record)
        if stopped_by is not None or self.finetune is None or noted is None or noted["status"] == "diverged":
            return stopped_by
        return None if read_note(place.transfer_record) else self._fine_tune(row, place, self.finetune)

    def _pretrain(self, row: FamilyRow, place: RowFolder) -> str | None:
        """Pretrains, and notes how it ended; the signal that stopped it, or None."""
        recipe = _with_seed(row.recipe, place.seed)
        self._say(f"{row.name}, seed {place.seed}: {row.what}")
        try:
            result = pretrain(
                self.source,
                recipe,
                place.run.path,
                proposals=self.tables[recipe.proposals.method],
                execution=self.execution,
                resume=True,
                show_progress=self.show_progress,
            )
        except DivergedError as error:
            self._diverged(row, place.record, error)
            return None
        if result.finished:
            write_note(place.record, {"status": "finished", "recall": self._recall(place, recipe)})
        return None if result.stopped_by == "max_steps" else result.stopped_by

    def _fine_tune(self, row: FamilyRow, place: RowFolder, finetune: Transfer) -> str | None:
        """Fine-tunes from the row's run, and notes how it ended; the signal that stopped it, or None."""
        self._say(f"{row.name}, seed {place.seed}: fine-tuning")
        try:
            result = finetune(place.run, place.transfer.path, place.seed)
        except DivergedError as error:
            self._diverged(row, place.transfer_record, error)
            return None
        if result.figures is not None:
            write_note(place.transfer_record, {"status": "finished", "figures": dict(result.figures)})
        return None if result.stopped_by == "max_steps" else result.stopped_by

    def _diverged(self, row: FamilyRow, record: Path, error: DivergedError) -> None:
        write_note(record, {"status": "diverged", "step": error.step, "why": str(error)})
        self._say(f"{error}\n{row.name}: recorded as diverged; the other rows go on")

    def _recall(self, place: RowFolder, recipe: Recipe) -> dict[str, float]:
        """Asked of selective search's objects in every row, also in one that learned from other boxes."""
        path = self.tables[PAPER.proposals.method]
        first_two = dataclasses.replace(PAPER.sample, views=PAPER.sample.views[:2], jitter=0.0)
        question = self.budget.scaled(dataclasses.replace(PAPER, sample=first_two)).sample
        table = ProposalTable.read(path)
        return object_recall(
            place.run, recipe, question, self.source, table, self.readable[PAPER.proposals.method], self.execution
        )

    def _place(self, row: FamilyRow, seed: int) -> RowFolder:
        return RowFolder(self.folder / row.name, seed)

    def _readable(self, row: FamilyRow) -> NDArray[np.int64]:
        return self.readable[row.recipe.proposals.method]

    def _say(self, line: str) -> None:
        if self.show_progress:
            print(line, file=sys.stderr)


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, seed=seed))


def _forget_divergence(place: RowFolder) -> None:
    """So that what diverged is tried again."""
    for record in (place.record, place.transfer_record):
        noted = read_note(record)
        if noted is not None and noted["status"] == "diverged":
            record.unlink()
