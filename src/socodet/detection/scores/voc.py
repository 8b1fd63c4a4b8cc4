"""Pascal VOC 2007's average precision of boxes, averaged over IoU thresholds as Detectron2's evaluator does."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.detection.scores.detections import Detections, Predictions, Scores, detections_by_image, empty_scores

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
RECALLS = np.arange(0.0, 1.1, 0.1)
"""VOC 2007's eleven recalls. As in Detectron2, rounding makes 0.3, 0.6 and 0.7 slightly larger than 3/10 and so on."""


def evaluate_voc(dataset: DetectionDataset, predictions: Predictions) -> Scores:
    """box_AP over IoU 0.50:0.95, box_AP50 and box_AP75, in percent, by VOC 2007's rules (Detectron2's
    `pascal_voc_evaluation.py`).

    - A category's detections are sorted by descending score. Each is matched with the object of the category in its
      image that it overlaps most, if their IoU is above the threshold. The first match of an object is a true positive,
      further ones are false positives. Matches with difficult objects are ignored, and recall does not count these
      objects; crowd regions, which VOC does not have, are treated in the same way.
    - AP is the mean, over 11 recalls, of the greatest precision at or beyond each; then the mean over categories.

    VOC counts pixels between inclusive corners, xmax - xmin + 1; with 0-based corners and exclusive right and bottom
    this is x2 - x1, so IoU is the plain one. Scores are rounded to three digits and corners to one, as in VOC's result
    files, and detections with equal scores keep the order of the images. A category without objects that count is left
    out (Detectron2 gives it 0); the scores are nan if all are.
    """
    detections = _Detections.of(
        [_rounded_as_published(detections) for detections in detections_by_image(dataset, predictions)]
    )
    places: dict[int, list[int]] = {}
    for place, image in enumerate(dataset.images):
        for label in set(image.labels.tolist()):
            places.setdefault(label, []).append(place)
    there = np.unique(np.concatenate([image.labels[~_ignored_objects(image)] for image in dataset.images])).tolist()
    aps = {label: _of_category(dataset.images, places[label], detections.of_category(label), label) for label in there}
    nothing = [np.nan] * len(THRESHOLDS)
    table = np.array([*aps.values()] or [nothing])
    scores = empty_scores(dataset)
    scores.update({f"box_{name}": value for name, value in _figures(table.mean(0) * 100).items()})
    for label, of_class in enumerate(scores.of_classes.values(), 1):
        figures = _figures(np.array(aps.get(label, nothing)) * 100)
        of_class |= {f"box_{name}": figures[name] for name in ("AP", "AP50")}
    return scores


def _figures(ap: NDArray[np.float64]) -> dict[str, float]:
    """AP, AP50 and AP75 from the APs at the thresholds."""
    return {"AP": float(ap.mean()), "AP50": float(ap[0]), "AP75": float(ap[THRESHOLDS.index(0.75)])}


def _rounded_as_published(found: Detections) -> Detections:
    """Rounds as in VOC's result files: published scores are computed from these, and AP75 is sensitive to rounding."""
    return replace(found, boxes=found.boxes.round(1), scores=found.scores.round(3))


class _Detections(NamedTuple):
    """The detections of all images, sorted by label, and within a label in the order of the images."""

    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    """(N,) indices of their images."""
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, found: Sequence[Detections]) -> "_Detections":
        labels = np.concatenate([one.labels for one in found])
        order = np.argsort(labels, kind="stable")
        images = np.repeat(np.arange(len(found)), [len(one) for one in found])
        boxes, scores = (np.concatenate(parts) for parts in ([o.boxes for o in found], [o.scores for o in found]))
        return cls(labels[order], images[order], boxes[order], scores[order])

    def of_category(self, label: int) -> "_Detections":
        own = slice(*np.searchsorted(self.labels, [label, label + 1]).tolist())
        return _Detections(self.labels[own], self.images[own], self.boxes[own], self.scores[own])


def _of_category(
    images: Sequence[ImageAnnotations], places: Sequence[int], found: _Detections, label: int
) -> list[float]:
    """AP at each of the thresholds; places: indices of the images that have an object of the category."""
    overlap, nearest = np.zeros(len(found.scores)), np.zeros(len(found.scores), np.int64)
    difficult: list[NDArray[np.bool_]] = []
    objects_before = 0
    firsts, lasts = (np.searchsorted(found.images, places, side) for side in ("left", "right"))
    for place, first, last in zip(places, firsts.tolist(), lasts.tolist(), strict=True):
        image = images[place]
        objects = np.flatnonzero(image.labels == label)
        iou = _iou(found.boxes[first:last], image.boxes[objects])
        # Objects are numbered across images; a detection in an image without objects has IoU 0 and matches none.
        overlap[first:last], nearest[first:last] = iou.max(1, initial=0.0), iou.argmax(1) + objects_before
        difficult.append(_ignored_objects(image)[objects])
        objects_before += len(objects)
    order = np.argsort(-found.scores, kind="stable")
    overlap, object_of, is_difficult = overlap[order], nearest[order], np.concatenate(difficult)
    aps = []
    for threshold in THRESHOLDS:
        hit = overlap > threshold
        of_difficult = hit.copy()
        of_difficult[hit] = is_difficult[object_of[hit]]
        counting = np.flatnonzero(hit & ~of_difficult)
        right = np.zeros(len(overlap), bool)
        right[counting[np.unique(object_of[counting], return_index=True)[1]]] = True  # the first match of each object
        aps.append(eleven_point_ap(right, ~right & ~of_difficult, int((~is_difficult).sum())))
    return aps


def _ignored_objects(image: ImageAnnotations) -> NDArray[np.bool_]:
    return image.difficult | image.crowd


def _iou(boxes: NDArray[np.float32], objects: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of (N, 4) and (M, 4) xyxy boxes: (N, M)."""
    a, b = boxes.astype(np.float64)[:, None], objects.astype(np.float64)[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b)]
    return np.asarray(shared / (areas[0] + areas[1] - shared))


def eleven_point_ap(right: NDArray[np.bool_], wrong: NDArray[np.bool_], objects: int) -> float:
    """AP of detections in descending order of score; both (N,), and both false if a difficult object was matched."""
    rights, wrongs = np.cumsum(right), np.cumsum(wrong)
    recall = rights / objects
    precision = rights / np.maximum(rights + wrongs, 1)
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in RECALLS]))
