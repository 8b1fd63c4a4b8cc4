"""`socodet inspect detections`: a detector's true positives, false positives and missed objects."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.scores import Detections, LeftOutCounts, read_detections
from socodet.detection.scores.outcomes import Outcome, PrecisionRecall, outcome, precision_recall, threshold_text
from socodet.detection.scores.predicted import images_predicted
from socodet.errors import InputError
from socodet.images.truncated import TRUNCATED
from socodet.reports.drawing import panel_image
from socodet.reports.inspect import check_output, write_panels
from socodet.reports.outcome_panels import MEANING, truth_and_detections
from socodet.reports.page import Gallery
from socodet.reports.panels import Panel
from socodet.runtime.counted import counted
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import printable


def inspect_detections(
    data: str | Path | DetectionDataset,
    predictions: str | Path,
    output: str | Path,
    *,
    split: str = "val",
    images: str | Path | None = None,
    reading: ReadingSettings | None = None,
    min_score: float | None = None,
    limit: int = 12,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Draws detections in COCO's result format beside the ground truth of up to `limit` images, as .png or .html.

    data: the annotated dataset that the detections were made on, as in `open_detection_set`; split: which split of a
    folder; images: folder of the images, if elsewhere. Detections with a score of at least `min_score` are shown, by
    default those above the threshold with the highest F1 on the dataset. The images are chosen by `seed` among those
    with an object or such a detection. For a file from `predict`, only images that predict was run on count; for other
    files all count, because they do not say which images the detector was run on.

    Reported on stderr, one line each: the score threshold, problems of the dataset, detections of other images or
    classes, and why there may be nothing to see. Raises InputError for input that cannot be used, and when `output`
    exists and `overwrite` is false.
    """
    path = check_output(output, limit, seed, overwrite=overwrite)
    if not isinstance(data, DetectionDataset):
        data = open_detection_set(data, split=split, images=images, reading=reading)
    found = _found(data, predictions)
    of, data = len(data), _images_predicted_on(data, predictions, found)
    in_order = [found.get(image.image_id, Detections.none()) for image in data.images]
    outcomes = [outcome(image, one, data.style) for image, one in zip(data.images, in_order, strict=True)]
    min_score, why = _limit(in_order, precision_recall(data.images, in_order, outcomes), min_score)
    LOGGER.warning(f"{predictions}: {why}")
    rows: dict[int, list[Panel]] = {}
    unreadable: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(data)).tolist():
        if not len(data.images[index]) and not (in_order[index].scores >= min_score).any():
            continue
        try:
            rows[index] = truth_and_detections(data, index, in_order[index], outcomes[index], min_score)
        except InputError as error:
            unreadable.append(str(error))
        if len(rows) == limit:
            break
    TRUNCATED.report()
    if unreadable:
        LOGGER.warning(f"{len(unreadable):,} × image left out (first: {unreadable[0]})")
    if not rows:
        raise InputError(
            f"{predictions}: no image of {data.name} has anything to show; give the dataset that the detections "
            "were made on, or lower --min-score"
        )
    where = "On the whole dataset" if len(data) == of else "On these images"
    facts = {
        "Annotated dataset": f"{data.name} ({'' if len(data) == of else f'{len(data)} of '}{of} images)",
        "Detections": f"{Path(predictions).name} ({sum(map(len, in_order))})",
        "Score threshold": why,
        where: _totals(in_order, outcomes, min_score),
        "Seed": str(seed),
    }
    ordered = [rows[index] for index in sorted(rows)]
    galleries = (Gallery([panel_image(panel, height=340) for panel in row]) for row in ordered)
    lead = f"{facts[where]}, {why}."
    title = "True positives, false positives and missed objects"
    write_panels(path, title, MEANING, ordered, galleries, facts, len(rows), side=480, lead=lead)
    return path


def _found(data: DetectionDataset, predictions: str | Path) -> dict[int | str, Detections]:
    left_out = LeftOutCounts()
    found = read_detections(data, Path(predictions), left_out=left_out)
    for line in data.problems.lines():
        LOGGER.warning(f"{data.name}: {line}")
    images, classes = left_out.images, left_out.classes
    if (images or classes) and not found:
        count, what = images.total() + classes.total(), "of a class" if classes else "on an image"
        raise InputError(
            f"{predictions}: none of its {count:,} detections is {what} of {data.name}; give the dataset that they "
            "were made on"
        )
    if images:
        count, what = images.total(), f"an image that {data.name} lacks, or whose file is missing or has another name"
        first = f"image {next(iter(images))}"
        LOGGER.warning(f"{predictions}: {count:,} × detection of {what}; left out (first: {first})")
    if classes:
        count, what = classes.total(), f"a class that {data.name} lacks"
        first = printable(next(iter(classes)))
        LOGGER.warning(f"{predictions}: {count:,} × detection of {what}; left out (first: {first})")
    return found


def _images_predicted_on(
    data: DetectionDataset, predictions: str | Path, found: Mapping[int | str, Detections]
) -> DetectionDataset:
    """Only the images that the detector was run on, as far as is known; objects of others would count as missed."""
    images = images_predicted(data, Path(predictions))
    if images is None:
        if 0 < len(found) < len(data):
            LOGGER.warning(
                f"{data.name}: {len(found):,} of {len(data):,} images have a detection; objects of the others count as "
                "missed, even if the detector was not run on them"
            )
        return data
    images |= found.keys()
    if not images:
        raise InputError(f"{predictions}: none of its images is in {data.name}; give the dataset that has them")
    if len(images) < len(data):
        LOGGER.warning(
            f"{data.name}: predict was run on {len(images):,} of {len(data):,} images; the others are left out"
        )
    return data.select([index for index, image in enumerate(data.images) if image.image_id in images], data.name)


def _limit(found: list[Detections], curve: PrecisionRecall, requested: float | None) -> tuple[float, str]:
    """The lowest score that is shown, and why."""
    scores = np.sort(np.concatenate([one.scores for one in found]) if found else np.empty(0, np.float32))[::-1]
    if not len(scores):
        return requested or 0.0, "there are no detections"
    if requested is not None:
        reach = "" if scores[0] >= requested else f", which no detection reaches; the highest score is {scores[0]:.2f}"
        return requested, f"shown from score {requested:g}{reach}"
    if curve.best is not None:
        limit, f1 = curve.best
        return limit, f"shown from score {threshold_text(limit)}, where F1 is highest ({100 * f1:.1f} of 100)"
    lowest = float(scores[min(max(1, curve.objects), len(scores)) - 1])
    return (
        lowest,
        f"shown from score {threshold_text(lowest)}: only the highest scores, because there is no true positive",
    )


def _totals(found: list[Detections], outcomes: list[Outcome], min_score: float) -> str:
    """The number of true positives, false positives and missed objects at this threshold, in words."""
    shown = [one.scores >= min_score for one in found]
    true_positives = sum(int((o.true_positive & s).sum()) for o, s in zip(outcomes, shown, strict=True))
    false_positives = sum(int((~o.true_positive & ~o.ignored & s).sum()) for o, s in zip(outcomes, shown, strict=True))
    missed = sum(int(o.counts.sum()) for o in outcomes) - true_positives
    return (
        f"{counted(true_positives, 'true positive')}, {counted(false_positives, 'false positive')}, "
        f"{counted(missed, 'missed object')}"
    )
