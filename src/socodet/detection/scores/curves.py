"""Precision over recall, from the hits and misses of every image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import ImageAnnotations
from socodet.detection.scores.detections import Detections
from socodet.detection.scores.outcomes import Outcome

RECALLS = np.linspace(0, 1, 101)
"""COCO's points of the curve."""


@dataclass(frozen=True)
class PrecisionRecall:
    """The curve of one class, or of all together, the surest detections first. Crowds and difficult objects are out."""

    scores: NDArray[np.float32]
    """(N,) of the detections that count, descending."""
    hits: NDArray[np.int64]
    """(N,) of the detections up to each, how many found an object."""
    objects: int

    @property
    def recall(self) -> NDArray[np.float64]:
        """(N,) share of the objects found."""
        return self.hits / max(self.objects, 1)

    @property
    def precision(self) -> NDArray[np.float64]:
        """(N,) share of the detections that found one, where the score is cut there or anywhere below: never rising."""
        raw = self.hits / np.arange(1, len(self.hits) + 1)
        return np.maximum.accumulate(raw[::-1])[::-1]

    @property
    def average_precision(self) -> float | None:
        """AP at this overlap in percent, as COCO takes it: the mean over 101 recalls. None without an object."""
        if not self.objects:
            return None
        places = np.searchsorted(self.recall, RECALLS)
        reached = places < len(self.hits)
        return float(100 * np.where(reached, np.append(self.precision, 0)[places], 0).mean())

    def at(self, limit: float) -> tuple[int, int]:
        """Detections of at least that score, and how many of them found an object."""
        count = int((self.scores >= limit).sum())
        return count, int(self.hits[count - 1]) if count else 0


def precision_recall(
    images: Sequence[ImageAnnotations],
    found: Sequence[Detections],
    outcomes: Sequence[Outcome],
    label: int | None = None,
) -> PrecisionRecall:
    """The curve of one class, or of all classes together, at the overlap of the outcomes."""
    scores, hits, objects = [np.empty(0, np.float32)], [np.empty(0, bool)], 0
    for image, one, of in zip(images, found, outcomes, strict=True):
        kept = ~of.ignored & (True if label is None else one.labels == label)
        scores.append(one.scores[kept])
        hits.append(of.hit[kept])
        objects += int((of.counts & (True if label is None else image.labels == label)).sum())
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="stable")
    return PrecisionRecall(every[order], np.cumsum(np.concatenate(hits)[order]), objects)
