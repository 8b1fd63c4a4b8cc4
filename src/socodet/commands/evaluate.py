"""`socodet evaluate`: a fine-tuned detector's scores on a dataset."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from socodet.commands.messages import print_scores, print_some
from socodet.commands.parsing import Flat, reads_images
from socodet.detection.datasets.reading import ReadingSettings
from socodet.runtime.world import world_from_environment
from socodet.training.run_folder import Checkpoint
from socodet.training.settings import DeviceSettings


@reads_images
def evaluate(
    run: tyro.conf.Positional[Path],
    data: Path,
    split: str = "val",
    images: Path | None = None,
    reading: Annotated[ReadingSettings, Flat] = ReadingSettings(),
    checkpoint: Checkpoint = "best",
    output: Path | None = None,
    save_predictions: Path | None = None,
    execution: Annotated[DeviceSettings, Flat] = DeviceSettings(),
    overwrite: bool = False,
) -> Any:
    """Score a fine-tuned detector on an annotated dataset.

    Args:
        run: Folder that `socodet finetune` wrote.
        data: Annotated dataset with the detector's classes, matched by name; as for `socodet finetune`.
        split: Split of a folder; `all` for one without splits.
        images: Folder of the images, if they are not found nearby.
        checkpoint: The best on the run's validation set, if it was scored during training, or the last.
        output: .json file for the scores, including those of each class.
        save_predictions: File for the detections, in COCO's result format.
        overwrite: Replace existing files.
    """
    from socodet.finetuning.inputs import check_evaluation_arguments

    check_evaluation_arguments(run, data, output, save_predictions, overwrite=overwrite)
    from socodet.finetuning.evaluate import evaluate

    result = evaluate(
        run,
        data,
        split=split,
        images=images,
        reading=reading,
        checkpoint=checkpoint,
        output=output,
        save_predictions=save_predictions,
        execution=execution,
        overwrite=overwrite,
    )
    if not world_from_environment(rendezvous=False).is_first:
        return result
    unusable = [f"{file}: {why}" for file, why in result.unreadable]
    print_some("images that could not be used and therefore have no detections:", unusable)
    print_scores(result, output)
    return result
