"""Opens the training and validation sets for fine-tuning, and reports their problems."""

import logging
from dataclasses import replace
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.classes import match_classes
from socodet.detection.datasets.folder_listing import reuse_folder_listings
from socodet.detection.datasets.headers import unusable_images
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.datasets.shared_images import note_on_shared
from socodet.detection.datasets.splits import MissingSplitError, no_validation_split
from socodet.detection.datasets.validation_set import images_for_other, may_have_splits, split_to_score
from socodet.detection.detectors.by_name import detector_named
from socodet.errors import InputError
from socodet.finetuning.auto_schedule import AUTO, schedule_of
from socodet.finetuning.settings import FinetuneSettings
from socodet.images.reading import read_images_like
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_new

LabelledSet = str | Path | DetectionDataset
"""A path that `open_detection_set` takes, or an open dataset."""


@reuse_folder_listings()
def open_labelled_sets(
    train: LabelledSet,
    val: LabelledSet | None,
    images: str | Path | None = None,
    reading: ReadingSettings | None = None,
    *,
    say_problems: bool = True,
) -> tuple[DetectionDataset, DetectionDataset | None]:
    """The training and validation sets. Without `val`, the second is the validation split of the folder `train`, or the
    share that `reading` holds back, or None.

    `images` is the folder of the images of `train`; `images_for_other` says when it is also that of `val`.

    For datasets opened here, problems in the annotations and in the headers of the image files are reported on stderr.
    InputError for a dataset that cannot be used, and when the two have no class in common.
    """
    reading = reading or ReadingSettings()
    share = reading.val_share
    if share is not None and val is not None:
        raise InputError("--val-share and --val: give one of them")
    if share is not None and isinstance(train, DetectionDataset):
        raise InputError("--val-share: the dataset is already open; give its path, or open both of its splits with it")
    split, val_images = "val", images
    if isinstance(val, str | Path) and isinstance(train, str | Path):
        val_images = images_for_other(val, train, images)
    if val is None and isinstance(train, str | Path) and share != 0 and (share or may_have_splits(train)):
        val = train
    elif isinstance(val, str | Path):
        split = split_to_score(val, val_images)
    training = _opened(train, "train", images, reading, say_problems)
    if val is None:
        return training, None
    with read_images_like(training.pixel_reading):
        try:
            validation = _opened(val, split, val_images, reading, say_problems)
        except MissingSplitError:
            if split != "val" or not isinstance(val, str | Path):
                raise
            raise no_validation_split(val) from None
    note = note_on_shared(training, validation) if say_problems else None  # it may read many files
    if note is not None:
        LOGGER.warning(note)
    return training, match_classes(training, validation)


def _opened(
    given: LabelledSet, split: str, images: str | Path | None, reading: ReadingSettings, say: bool
) -> DetectionDataset:
    if isinstance(given, DetectionDataset):
        return given
    data = open_detection_set(given, split=split, images=images, reading=reading)
    if say:
        report_problems(data)
    unusable = unusable_images(data, show_progress=say)
    for problem, count in unusable.counts.items():
        first = unusable.first[problem]
        if count == len(data):
            raise InputError(
                f"{data.name}: none of its {count:,} images can be used (first: {first}); give the images that were "
                "annotated"
            )
        if say:
            LOGGER.warning(f"{data.name}: {count:,} of {len(data):,} × {problem} (first: {first})")
    return data


def images_trained_on(
    data: DetectionDataset, settings: FinetuneSettings, *, show_note: bool = False
) -> DetectionDataset:
    """The images with an object to learn from, or with `keep_empty` all; a note on stderr counts those without one.

    Images with annotations of which none can be used are left out in any case, as they may show objects.
    InputError when no image has an object.
    """
    with_objects = data.with_objects()
    if not len(with_objects):
        fix = "check the annotations" if settings.fraction is None else "raise --fraction, or choose another --seed"
        raise InputError(f"{data.name}: no image has an object to learn from; {fix}")
    unusable = [image.file for image in data.images if image.unusable]
    if show_note and unusable:
        about = (
            f"{len(unusable):,} of {len(data):,} images left out of training, as none of their annotations can be used"
        )
        log_new(f"{data.name}: {about} (first: {unusable[0]})", level=logging.WARNING)
    empty = len(data) - len(with_objects) - len(unusable)
    if show_note and empty:
        first = next(image.file for image in data.images if image.crowd.all() and not image.unusable)
        done, fix = ("left out of training", "; --keep-empty trains on them as background")
        if settings.keep_empty:
            done, fix = "are trained on as background", ""
        what = f"{empty:,} of {len(data):,} images without an object {done} (first: {first})"
        log_new(f"{data.name}: {what}{fix}", level=logging.WARNING)
    if settings.keep_empty:
        return data.without_unusable()
    return data if len(with_objects) == len(data) else with_objects


def require_objects(data: DetectionDataset) -> None:
    """InputError when no image has an object to find."""
    if not len(data.with_objects()):
        raise InputError(f"{data.name}: no image has an object to find; check the annotations")


def report_problems(data: DetectionDataset) -> None:
    """Reports on stderr the annotations that were corrected or left out: counts and first examples."""
    for line in data.problems.lines():
        LOGGER.warning(f"{data.name}: {line}")


def settings_for_dataset(
    settings: FinetuneSettings, data: DetectionDataset, *, show_note: bool = False
) -> FinetuneSettings:
    """The settings with the dataset's schedule, and with the box-only detector if the dataset has no masks.

    A note on stderr says when the detector is not the one requested.
    """
    if settings.schedule == AUTO:
        settings = replace(settings, schedule=schedule_of(data))
    detector = detector_named(settings.detector)
    if detector.boxes_only is None or data.has_masks:
        return replace(settings, detector=detector.name)
    if show_note:
        LOGGER.warning(
            f"{data.name}: has boxes and no masks; {detector.boxes_only} is trained, not {settings.detector}"
        )
    return replace(settings, detector=detector.boxes_only)
