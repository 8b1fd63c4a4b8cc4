"""LVIS's average precision (Gupta et al. 2019): each image is annotated for some of the categories only."""

import numpy as np

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.scores.coco import SIZES, add_scores, kinds_scored, percent, precisions
from socodet.detection.scores.detections import Predictions, in_order
from socodet.detection.scores.scores import Scores, begin_scores

MAX_DETECTIONS = 300
"""Detections that count per image, of all categories together."""
FREQUENCIES = {"r": "APr", "c": "APc", "f": "APf"}


def evaluate_lvis(dataset: DetectionDataset, predictions: Predictions) -> Scores:
    """COCO's six figures and AP of rare, common and frequent categories, of boxes and, if found, masks; in percent.

    Keys as of `evaluate_coco`, with `box_APr`, `box_APc`, `box_APf`. Only the 300 best detections of an image count.
    Each category is scored on its own, on the images that have an object of it or are known to have none: the others
    do not matter for it, and all images times 1,203 categories would not fit into memory.
    """
    found = [detections.best(MAX_DETECTIONS) for detections in in_order(dataset, predictions)]
    known: dict[int, list[int]] = {}
    for index, image in enumerate(dataset.images):
        for label in {*image.labels.tolist(), *image.absent}:
            known.setdefault(label, []).append(index)
    scores = begin_scores(dataset)
    for kind in kinds_scored(dataset, found):
        precision = -np.ones((10, 101, len(dataset.categories), len(SIZES)))
        for label, places in known.items():
            images, detections = [dataset.images[i] for i in places], [found[i] for i in places]
            alone = precisions(images, detections, [label], kind, MAX_DETECTIONS, federated=True)
            precision[:, :, label - 1] = alone[:, :, 0]
        add_scores(scores, kind, precision)
        for frequency, name in FREQUENCIES.items():
            chosen = [place for place, category in enumerate(dataset.categories) if category.frequency == frequency]
            scores[f"{kind}_{name}"] = percent(precision[:, :, chosen, 0])
    return scores
