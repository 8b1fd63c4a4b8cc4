"""`socodet ablate`: the paper's ablation tables at any budget."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro


def ablate(argv: Sequence[str]) -> None:
    """Pretrain every row of one of the paper's ablation tables at a budget, and write the table."""
    from socodet.ablation import AblationTable, Budget, Family, run_ablation
    from socodet.commands.parsing import Flat, call, exit_if_stopped, goes_on
    from socodet.errors import InputError
    from socodet.training.settings import ExecutionSettings

    def arguments(
        family: tyro.conf.Positional[Family],
        images: Path,
        output: Path,
        budget: Annotated[Budget, Flat] = Budget(),  # noqa: B008
        proposals: Path | None = None,
        finetune: str | None = None,
        schedule: str | None = None,
        execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),  # noqa: B008
        retry_diverged: bool = False,
        overwrite: bool = False,
    ) -> AblationTable:
        """Pretrain every row of one of the paper's ablation tables at a budget, and write the table.

        Interrupted, the same command goes on where it was. A row that diverges is recorded as such, and the others go
        on.

        Args:
            family: table4: what each part adds. table5a to table5d: size of V3, batch, proposals and K, momentum.
            images: Folder of images, nested or not; or a list of paths, a COCO file, tar shards, a dataset on disk.
            output: Folder for the runs, the proposals and the table.
            proposals: Proposal table for the rows that use selective search; by default one is made for all of them.
            finetune: Labelled images to fine-tune a detector on from every row.
            schedule: How long to fine-tune.
            retry_diverged: Run the rows that diverged again, from their last good checkpoint.
            overwrite: Throw away the ablation that is in the folder.
        """
        if finetune is not None or schedule is not None:
            raise InputError(
                "ablate: --finetune cannot be used from the command line yet; leave out --finetune and --schedule and "
                "run `socodet finetune` on each row's folder, or give run_ablation a function of your own"
            )
        return run_ablation(
            family,
            images,
            output,
            budget,
            proposals=proposals,
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
