"""`socodet reproduce mini`: a benchmark small enough to repeat."""

from pathlib import Path
from typing import Annotated

from socodet.commands.messages import exit_if_stopped, resume_hint
from socodet.commands.parsing import Flat
from socodet.studies.reproduction import ProtocolName, reproduce
from socodet.training.settings import ExecutionSettings


def reproduce_mini(
    data: Path,
    output: Path,
    images: Path | None = None,
    budget: ProtocolName = "cpu",
    seeds: tuple[int, ...] = (0, 1, 2),
    execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),
    retry_diverged: bool = False,
    overwrite: bool = False,
) -> None:
    """Pretrain without labels, probe and fine-tune with few, by a fixed protocol; write the tables.

    SoCo, the image-level baseline and no pretraining, on one annotated set. Interrupted, the same command resumes.

    Args:
        data: Folder in COCO's or Pascal VOC's layout with a training and a validation split.
        output: Folder for the runs and the tables.
        images: Images to pretrain on; by default the training split's, without their labels.
        budget: cpu: two cores, hours. gpu: the whole grid on one GPU.
        seeds: One or more; everything runs once with each.
        retry_diverged: Run those that diverged again, from their last good checkpoint.
        overwrite: Throw away the benchmark that is in the folder.
    """
    found = reproduce(
        data,
        output,
        images=images,
        protocol=budget,
        seeds=seeds,
        execution=execution,
        retry_diverged=retry_diverged,
        overwrite=overwrite,
    )
    print(found.as_markdown())
    stopped = f"stopped by {found.stopped_by}{resume_hint(overwrite)}; " if found.stopped_by else ""
    print(f"{stopped}{found.markdown}: written")
    exit_if_stopped(found.stopped_by)
