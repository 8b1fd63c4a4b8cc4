"""`socodet ablate`: the paper's ablation tables at any budget."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from socodet.commands.messages import how_far, resume_hint
from socodet.commands.parsing import Flat, reads_images
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.finetuning.settings import FinetuneSettings, ScheduleName
from socodet.studies.ablation.budget import Budget, Family
from socodet.training.settings import ExecutionSettings


@dataclass(frozen=True)
class RowSettings(FinetuneSettings):
    """How every row's detector is fine-tuned; the schedule is a separate flag, and the seed is the row's."""

    schedule: tyro.conf.Suppress[ScheduleName] = FinetuneSettings.schedule
    seed: tyro.conf.Suppress[int] = FinetuneSettings.seed


@reads_images
def ablate(
    family: tyro.conf.Positional[Family],
    images: tyro.conf.Positional[Path],
    output: Path,
    budget: Annotated[Budget, Flat] = Budget(),
    proposals: Path | None = None,
    dataset: Annotated[Path | None, tyro.conf.arg(name="finetune")] = None,
    schedule: ScheduleName | None = None,
    val: Annotated[Path | None, tyro.conf.arg(name="finetune.val")] = None,
    labelled_images: Annotated[Path | None, tyro.conf.arg(name="finetune.images")] = None,
    reading: Annotated[ReadingSettings, tyro.conf.arg(name="finetune")] = ReadingSettings(),
    finetune: RowSettings = RowSettings(),
    execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),
    retry_diverged: bool = False,
    overwrite: bool = False,
) -> Any:
    """Pretrain every row of one of the paper's ablation tables at a budget, and write the table.

    If interrupted, the same command resumes. A row that diverges is recorded as diverged, and the others continue. With
    --finetune, a detector is also fine-tuned from every row, and its AP is added to the table. It can be added after
    the rows are finished.

    Args:
        family: table4: the effect of each component. table5a to table5d: size of V3, batch size, proposals and K,
            momentum of the target network.
        images: Folder of images, nested or not; list of paths, COCO file, tar shards, or saved Hugging Face dataset.
        output: Folder for the runs, the proposals and the table.
        proposals: Proposal table for the rows with selective search; by default one is made for all of them.
        dataset: Annotated dataset to fine-tune a detector on from every row, as for `socodet finetune`; without a
            validation split, give --finetune.val or --finetune.val-share.
        schedule: The paper's fine-tuning schedule for a dataset; required with --finetune.
        val: Annotated dataset to score on; by default the folder's validation split.
        labelled_images: Folder of the images, if they are not found nearby.
        retry_diverged: Rerun diverged rows from their last good checkpoint.
        overwrite: Delete the ablation in the folder.
    """
    from socodet.studies.ablation.running import ablate, row_detectors

    detectors = None
    if dataset is not None and schedule is not None:
        settings = replace(finetune, schedule=schedule)
        detectors = row_detectors(
            dataset, val, settings=settings, images=labelled_images, reading=reading, execution=execution
        )
    elif dataset is not None:
        raise InputError("ablate: --finetune needs --schedule, such as coco_1x; its steps are --finetune.iterations")
    elif (schedule, val, labelled_images, reading, finetune) != (None, None, None, ReadingSettings(), RowSettings()):
        raise InputError("ablate: --schedule and --finetune.… have no effect without --finetune; give the dataset")
    table = ablate(
        family,
        images,
        output,
        budget,
        proposals=proposals,
        finetune=detectors,
        execution=execution,
        retry_diverged=retry_diverged,
        overwrite=overwrite,
    )
    rows = how_far(table.rows, "rows", resume_hint(overwrite))
    print(f"{table.markdown}: {rows}; CSV: {table.csv}, figure: {table.figure}")
    return table
