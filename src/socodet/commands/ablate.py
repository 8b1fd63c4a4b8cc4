"""`socodet ablate`: the paper's ablation tables at any budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro


def ablate(argv: Sequence[str]) -> None:
    """Pretrain every row of one of the paper's ablation tables at a budget, and write the table."""
    from socodet.commands.parsing import Flat, call, exit_if_stopped, goes_on
    from socodet.errors import InputError
    from socodet.finetuning.settings import FinetuneSettings, ScheduleName
    from socodet.studies.ablation import AblationTable, Budget, DetectorTransfer, Family, run_ablation
    from socodet.training.settings import ExecutionSettings

    @dataclass(frozen=True)
    class RowSettings(FinetuneSettings):
        schedule: tyro.conf.Suppress[ScheduleName] = FinetuneSettings.schedule
        seed: tyro.conf.Suppress[int] = FinetuneSettings.seed  # each row's own

    def arguments(
        family: tyro.conf.Positional[Family],
        images: Path,
        output: Path,
        budget: Annotated[Budget, Flat] = Budget(),  # noqa: B008
        proposals: Path | None = None,
        dataset: Annotated[Path | None, tyro.conf.arg(name="finetune")] = None,
        schedule: ScheduleName | None = None,
        val: Annotated[Path | None, tyro.conf.arg(name="finetune.val")] = None,
        labelled_images: Annotated[Path | None, tyro.conf.arg(name="finetune.images")] = None,
        finetune: RowSettings = RowSettings(),
        execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),  # noqa: B008
        retry_diverged: bool = False,
        overwrite: bool = False,
    ) -> AblationTable:
        """Pretrain every row of one of the paper's ablation tables at a budget, and write the table.

        Interrupted, the same command goes on where it was. A row that diverges is recorded as such, and the others go
        on. With --finetune every row also initialises a detector, whose AP is then in the table; it may be
        asked for when the rows are finished.

        Args:
            family: table4: what each part adds. table5a to table5d: size of V3, batch, proposals and K, momentum.
            images: Folder of images, nested or not; or a list of paths, a COCO file, tar shards, a dataset on disk.
            output: Folder for the runs, the proposals and the table.
            proposals: Proposal table for the rows that use selective search; by default one is made for all of them.
            dataset: Annotated set to fine-tune a detector on from every row: a folder in COCO's or Pascal VOC's layout,
                or a COCO or LVIS .json or a VOC list, with --finetune.val.
            schedule: How long to fine-tune, by what: as the paper has it for a data set.
            val: Annotated set to score on; by default the validation part of a folder.
            labelled_images: Folder of the images of a .json file, if they are not found nearby.
            retry_diverged: Run the rows that diverged again, from their last good checkpoint.
            overwrite: Throw away the ablation that is in the folder.
        """
        transfer = None
        if dataset is not None and schedule is not None:
            transfer = DetectorTransfer(
                dataset, replace(finetune, schedule=schedule), val=val, images=labelled_images, execution=execution
            )
        elif dataset is not None:
            raise InputError(
                "ablate: --finetune needs --schedule, such as coco_1x; its steps are --finetune.iterations"
            )
        elif (schedule, val, labelled_images, finetune) != (None, None, None, RowSettings()):
            raise InputError("ablate: --schedule and --finetune.… have no effect without --finetune; name the set")
        return run_ablation(
            family,
            images,
            output,
            budget,
            proposals=proposals,
            finetune=transfer,
            execution=execution,
            retry_diverged=retry_diverged,
            overwrite=overwrite,
        )

    table = call(arguments, "ablate", argv)
    finished, diverged = (sum(getattr(row, state) for row in table.rows) for state in ("finished", "diverged"))
    left = len(table.rows) - finished - diverged
    print(
        f"{table.markdown}: {finished} of {len(table.rows)} rows finished, {diverged} diverged"
        f"{f', {left} to go{goes_on(argv)}' if left else ''}; as CSV {table.csv}, figure {table.pictures[0]}"
    )
    exit_if_stopped(table.stopped_by)
