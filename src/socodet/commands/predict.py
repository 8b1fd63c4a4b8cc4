"""`socodet predict`: a fine-tuned detector over new images."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from socodet.commands.messages import list_unreadable, resume_hint
from socodet.commands.parsing import Flat, reads_images
from socodet.errors import none_readable
from socodet.runtime.counted import counted
from socodet.training.run_folder import Checkpoint
from socodet.training.settings import DeviceSettings


@reads_images
def predict(
    detector: tyro.conf.Positional[Path],
    images: tyro.conf.Positional[Path],
    output: Path,
    min_score: float | None = None,
    max_detections: int | None = None,
    batch_size: int = 1,
    draw: bool = False,
    checkpoint: Checkpoint = "best",
    execution: Annotated[DeviceSettings, Flat] = DeviceSettings(),
    overwrite: bool = False,
) -> Any:
    """Detect objects in new images with a fine-tuned detector.

    Writes predictions.json (COCO's result format), predictions.csv and, with --draw, drawn/. The same command resumes
    an interrupted one.

    Args:
        detector: Folder that `socodet finetune` wrote.
        images: An image, folder of images, pattern such as '*.jpg', list of paths, COCO file, tar shards, or saved
            Hugging Face dataset.
        output: Folder for the predictions.
        min_score: Lowest score to write and draw. By default, everything from 0.05 is written, which is mostly false
            positives; drawing starts at the score with the highest F1 on the validation set, or at 0.3 if the detector
            was not scored during training.
        max_detections: Keep at most this many detections per image, those with the highest scores.
        batch_size: Images per batch. Larger batches are padded to their largest image, which can move boxes slightly.
        draw: Also write each image with its objects drawn on it.
        checkpoint: The best on the run's validation set, if it was scored during training, or the last.
        overwrite: Replace the predictions in the folder.
    """
    from socodet.prediction.inputs import check_prediction_arguments

    source, _ = check_prediction_arguments(
        detector, images, output, min_score=min_score, max_detections=max_detections, batch_size=batch_size
    )
    from socodet.prediction.predict import predict

    result = predict(
        detector,
        source,
        output,
        min_score=min_score,
        max_detections=max_detections,
        batch_size=batch_size,
        draw=draw,
        checkpoint=checkpoint,
        execution=execution,
        overwrite=overwrite,
    )
    if len(result.unreadable) == result.images:
        raise none_readable(f"{output}: written, but none of {counted(result.images, 'image')}", result.unreadable[0])
    list_unreadable(result.unreadable)
    print(f"{result}{'' if result.finished else resume_hint(overwrite)}")
    return result
