"""Checks the arguments of `predict` before importing torch and loading a detector, which takes many seconds."""

from pathlib import Path
from typing import Any

from socodet.errors import InputError
from socodet.finetuning.inputs import check_limits
from socodet.images.reading import read_images_like, requested_reading
from socodet.images.source import Images, ImageSource, as_source, open_image, open_images, with_reading
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.files import refuse_foreign_folder, resolve_path
from socodet.runtime.world import world_from_environment
from socodet.training.run_folder import RunFolder

NOTE = "predict.json"


def check_prediction_arguments(
    detector: Any,
    images: Images,
    output: str | Path,
    *,
    min_score: float | None,
    max_detections: int | None,
    batch_size: int,
) -> tuple[ImageSource, Path]:
    """The images and the folder for the predictions. InputError for arguments that cannot be used.

    detector: a fine-tuning run's folder, or a loaded detector.
    """
    check_limits(min_score, max_detections, batch_size)
    if world_from_environment(rendezvous=False).size > 1:
        raise InputError("predict: runs in one process; start it without torchrun or srun")
    if isinstance(detector, str | Path):
        run = RunFolder(Path(detector))
        if not run.exists() and isinstance(images, str | Path) and RunFolder(Path(images)).exists():
            raise InputError(f"{detector}: is not a run, and {images} is one; give the detector first, then the images")
        run.require_detector()
        reading = run.pixel_reading()
    else:
        reading = detector.pixel_reading
    folder = resolve_path(output)
    refuse_foreign_folder(folder, folder / NOTE, "predictions")
    with read_images_like(reading):
        if isinstance(images, str | Path):
            return _open(images), folder
        return with_reading(as_source(images), requested_reading().reading), folder


def _open(path: str | Path) -> ImageSource:
    """Like `open_images`, but also takes a single image file."""
    given = Path(path)
    if given.is_file() and given.suffix.lower() in SUFFIXES:
        return open_image(given)
    return open_images(given)
