"""An image with its annotations and its detections, coloured by outcome; not in `panels.py` because it needs torch."""

import numpy as np

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.scores import Detections
from socodet.detection.scores.outcomes import IOU, Outcome
from socodet.reports.panels import Panel, labelled_panel
from socodet.reports.theme import FALSE_POSITIVE, IGNORED, MISSED, TRUE_POSITIVE
from socodet.runtime.counted import counted

MEANING = (
    "Annotations on the left, detections with their scores on the right. Blue: objects that were found, and the "
    "detections that found them. Orange: objects that were missed. Pink: false positives, which are detections of "
    "nothing, of another class, or of an object that a higher-scoring one has found. Grey: crowd regions and difficult "
    "objects, and detections of them or, in LVIS, of classes that are not annotated in the image. A detection finds an "
    f"object of its class if their IoU is at least {IOU:g}."
)
"""Explanation of what `truth_and_detections` shows."""


def truth_and_detections(
    data: DetectionDataset, index: int, found: Detections, of: Outcome, min_score: float
) -> list[Panel]:
    """An image with its annotations, and with its detections. Raises InputError if it is unreadable."""
    pixels, image = data.pixels(index), data.images[index]
    names = [category.name for category in data.categories]
    truth, colours = [], []
    for k, label in enumerate(image.labels.tolist()):
        missed = bool(of.counts[k] and of.found_at[k] < min_score)
        mark = " (crowd)" if image.crowd[k] else " (difficult)" if image.difficult[k] else " missed" if missed else ""
        truth.append(names[label - 1] + mark)
        colours.append(IGNORED if not of.counts[k] else MISSED if missed else TRUE_POSITIVE)
    kept = np.flatnonzero(found.scores >= min_score)
    shown = found.take(kept)
    scored = [f"{names[label - 1]} {score:.2f}" for label, score in zip(shown.labels, shown.scores, strict=True)]
    of_shown = [TRUE_POSITIVE if of.true_positive[k] else IGNORED if of.ignored[k] else FALSE_POSITIVE for k in kept]
    objects = counted(len(image), "object")
    missed_here = colours.count(MISSED)
    title = f"{image.file.name} · truth · {objects}" + (f", {missed_here} missed" if missed_here else "")
    false_positives = of_shown.count(FALSE_POSITIVE)
    right = f"found · {len(shown)} shown of {len(found)}" + (
        f", {counted(false_positives, 'false positive')}" if false_positives else ""
    )
    return [
        labelled_panel(title, pixels, image.boxes, colours, truth),
        labelled_panel(right, pixels, shown.boxes, of_shown, scored),
    ]
