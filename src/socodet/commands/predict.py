"""`socodet predict`: a fine-tuned detector over new images."""

from pathlib import Path
from typing import Annotated

import tyro

from socodet.commands.messages import exit_if_stopped, list_unreadable, resume_hint
from socodet.commands.parsing import Flat, reads_images
from socodet.training.run_folder import Checkpoint
from socodet.training.settings import ExecutionSettings


@reads_images
def predict(
    detector: tyro.conf.Positional[Path],
    images: tyro.conf.Positional[Path],
    output: Path,
    min_score: float = 0.05,
    max_detections: int | None = None,
    batch_size: int = 1,
    draw: bool = False,
    checkpoint: Checkpoint = "best",
    execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),
    overwrite: bool = False,
) -> None:
    """Detect objects in new images with a fine-tuned detector.

    Writes predictions.json (COCO's result format) and predictions.csv. The same command resumes an interrupted one.

    Args:
        detector: Folder that `socodet finetune` wrote.
        images: One image, a folder of images, a list of paths, a COCO file, tar shards, or a dataset on disk.
        output: Folder for the predictions.
        min_score: Leave out detections with a lower score. The detector itself keeps none below the threshold that it
            is scored with, 0.05 except for LVIS.
        max_detections: Keep at most this many per image, those with the highest scores.
        batch_size: Images at a time. More than one are padded to the largest, which can move boxes slightly.
        draw: Also write each image with its objects drawn on it.
        checkpoint: The best on the run's validation set, if it was scored during the run; or the last.
        overwrite: Replace the predictions in the folder.
    """
    from socodet.prediction.predict import predict

    result = predict(
        detector,
        images,
        output,
        min_score=min_score,
        max_detections=max_detections,
        batch_size=batch_size,
        draw=draw,
        checkpoint=checkpoint,
        execution=execution,
        overwrite=overwrite,
    )
    list_unreadable(result.unreadable)
    if result.finished:
        print(f"{result.output}: {result.detections} objects in {result.images} images")
    else:
        print(
            f"{result.output}: stopped by {result.stopped_by} after {result.done} of {result.images} images"
            f"{resume_hint(overwrite)}"
        )
    exit_if_stopped(result.stopped_by)
