"""`socodet inspect detections`: images with detections beside the annotated objects."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from socodet.commands.parsing import Flat, reads_images
from socodet.detection.datasets.reading import ReadingSettings


@reads_images
def inspect_detections(
    data: tyro.conf.Positional[Path],
    predictions: Path,
    output: Path,
    split: str = "val",
    images: Path | None = None,
    reading: Annotated[ReadingSettings, Flat] = ReadingSettings(),
    min_score: float | None = None,
    limit: int = 12,
    seed: int = 0,
    overwrite: bool = False,
) -> Any:
    """Draw a detector's true and false positives and missed objects beside the annotations.

    Args:
        data: Annotated dataset, as for `socodet finetune`.
        predictions: File of detections in COCO's result format, as finetune and evaluate save them.
        output: .png or .html to write.
        split: Split of a folder; `all` for one without splits.
        images: Folder of the images, if they are not found nearby.
        min_score: Show detections with at least this score; by default the score with the highest F1 on the dataset.
        limit: Number of images to show.
        seed: Random seed for the choice of images.
        overwrite: Replace an existing file.
    """
    from socodet.reports.inspect_detections import inspect_detections

    path = inspect_detections(
        data,
        predictions,
        output,
        split=split,
        images=images,
        reading=reading,
        min_score=min_score,
        limit=limit,
        seed=seed,
        overwrite=overwrite,
    )
    print(f"{path}: written")
    return {"output": path}
