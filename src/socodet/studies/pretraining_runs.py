"""The pretraining runs of a study: several recipes on the same images and proposals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socodet.images.source import ImageSource
from socodet.pretraining.preparation import readable_images
from socodet.pretraining.pretrain import pretrain
from socodet.pretraining.recipes import Recipe
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable
from socodet.studies.runner import Job, JobResult, Label
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings


@dataclass(frozen=True)
class PretrainingRuns:
    """The images and tables that all runs share."""

    source: ImageSource
    tables: Mapping[str, ProposalTable]
    """Tables by the study's name for a recipe's boxes."""
    execution: ExecutionSettings
    show_progress: bool = True

    def readable(self, boxes: str) -> NDArray[np.int64]:
        """Indices of the images that could be read when these boxes were made."""
        return readable_images(self.source, self.tables[boxes])[0]

    def job(
        self,
        name: str,
        recipe: Recipe,
        labels: Mapping[str, Label],
        about: str,
        measure: Callable[[Path], Mapping[str, Any]],
        *,
        boxes: str,
        start_from: str | Path | None = None,
    ) -> Job:
        """A run with the seed given in `labels`; results: steps, seconds, and what `measure` returns for its folder.

        `boxes` names one of the tables. `start_from`: initial weights, as for `pretrain`.
        """
        seeded = replace(recipe, training=replace(recipe.training, seed=int(labels["seed"])))

        def run(folder: Path) -> JobResult:
            result = pretrain(
                self.source,
                seeded,
                folder,
                proposals=self.tables[boxes].path,
                start_from=start_from,
                execution=self.execution,
                resume=True,
                show_progress=self.show_progress,
            )
            if not result.finished:
                return JobResult(None, result.stopped_by)
            seconds = RunFolder(folder).training_seconds(recipe.training.batch_size)
            return JobResult({"steps": result.steps, "seconds": seconds, **measure(folder)}, result.stopped_by)

        steps = recipe.training.steps(recipe.training.epochs, len(self.readable(boxes)))
        return Job(name, labels, about, run, steps=steps, kind="pretraining run")


def proposal_tables(
    folder: Path,
    source: ImageSource,
    wanted: Mapping[str, ProposalSettings],
    given: Mapping[str, ProposalTable],
    *,
    show_progress: bool,
) -> dict[str, ProposalTable]:
    """A table for each name in `wanted`: the `given` one, or `folder`/proposals-NAME.parquet, made once."""
    tables = dict(given)
    for name, settings in wanted.items():
        if name in given:
            continue
        path = folder / f"proposals-{name}.parquet"
        if not path.exists():
            propose(source, path, settings=settings, show_progress=show_progress)
        tables[name] = table_of(source, path)
    return tables


def table_of(source: ImageSource, path: str | Path) -> ProposalTable:
    """A table on disk. InputError unless it is a table of these images."""
    table = ProposalTable.read(path)
    table.check_images(source)
    return table
