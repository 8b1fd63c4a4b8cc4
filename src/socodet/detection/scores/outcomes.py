"""True positives, false positives and missed objects, and precision over recall, for display."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from socodet.detection.datasets.annotations import ImageAnnotations, Style
from socodet.detection.scores.detections import Detections

IOU = 0.5
"""Minimum IoU at which a detection matches an object of its class."""
RECALLS = np.linspace(0, 1, 101)
"""COCO's recall points."""


def threshold_text(score: float) -> str:
    """A score threshold as text: two digits, four near 0 and 1, rounded down so that the score itself is included."""
    digits = 2 if 0.01 <= score < 0.99 else 4
    text = f"{score:.{digits}f}"
    return f"{float(text) - 10**-digits:.{digits}f}" if np.float32(float(text)) > np.float32(score) else text


@dataclass(frozen=True)
class Outcome:
    """How the N detections and M objects of an image were matched."""

    true_positive: NDArray[np.bool_]
    """(N,) whether a detection found an object that no higher-scoring one had found."""
    ignored: NDArray[np.bool_]
    """(N,) whether a detection is ignored: on crowd regions and difficult objects, and with LVIS of classes that are
    not, or not exhaustively, annotated in the image."""
    found_at: NDArray[np.float32]
    """(M,) the score of the detection that found an object; -1 for a missed object."""
    counts: NDArray[np.bool_]
    """(M,) whether an object counts: neither a crowd region nor difficult."""


def outcome(image: ImageAnnotations, found: Detections, style: Style = "coco") -> Outcome:
    """Matches detections, highest score first, each with the unmatched object of its class that it overlaps most.

    Lowering the score threshold does not change the matches above it. style: the dataset's.
    """
    overlaps = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(image.boxes)).numpy()
    overlaps = np.where(found.labels[:, None] == image.labels[None], overlaps, 0)
    counts = ~(image.crowd | image.difficult)
    true_positive = np.zeros(len(found), bool)
    found_at = np.full(len(image), -1, np.float32)
    near = np.where(counts, overlaps, 0)
    order = np.argsort(-found.scores, kind="stable")
    for k in order[near.max(1, initial=0)[order] >= IOU].tolist():  # a few out of hundreds
        left = np.where(found_at < 0, near[k], 0)
        if left.max() >= IOU:
            true_positive[k] = True
            found_at[left.argmax()] = found.scores[k]
    ignored = _on_ignored(image, found, overlaps, counts)
    if style == "lvis":
        known = {*image.labels.tolist(), *image.absent} - image.incomplete
        ignored |= ~np.isin(found.labels, list(known))
    return Outcome(true_positive, ~true_positive & ignored, found_at, counts)


def _on_ignored(
    image: ImageAnnotations, found: Detections, overlaps: NDArray[np.float32], counts: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(N,) whether a detection is on an object of its class that does not count, or mostly inside a crowd region.

    overlaps: (N, M), 0 for objects of other classes. counts: (M,).
    """
    if counts.all():
        return np.zeros(len(found), bool)
    boxes = found.boxes[:, None]
    sides = np.minimum(image.boxes[:, 2:], boxes[..., 2:]) - np.maximum(image.boxes[:, :2], boxes[..., :2])
    within = sides.clip(0).prod(axis=2) / np.maximum((boxes[..., 2:] - boxes[..., :2]).prod(axis=2), 1e-9)
    share = np.where(image.crowd, within, overlaps)
    others = ~counts & (image.labels == found.labels[:, None])
    return np.asarray((others & (share >= IOU)).any(1))


@dataclass(frozen=True)
class PrecisionRecall:
    """The curve of one class, or of all together, highest score first, without crowd regions and difficult objects."""

    scores: NDArray[np.float32]
    """(N,) scores of the detections that count, descending."""
    true_positives: NDArray[np.int64]
    """(N,) cumulative number of detections that found an object."""
    objects: int

    @property
    def recall(self) -> NDArray[np.float64]:
        """(N,) share of the objects that are found."""
        return self.true_positives / max(self.objects, 1)

    @property
    def precision(self) -> NDArray[np.float64]:
        """(N,) the highest precision at this threshold or any lower one, so that it never rises."""
        raw = self.true_positives / np.arange(1, len(self.true_positives) + 1)
        return np.maximum.accumulate(raw[::-1])[::-1]

    @property
    def average_precision(self) -> float | None:
        """AP at this IoU in percent, computed like COCO's as the mean over 101 recalls. None without an object."""
        if not self.objects:
            return None
        places = np.searchsorted(self.recall, RECALLS)
        return float(100 * np.append(self.precision, 0)[places].mean())  # 0 at recalls beyond the last

    @property
    def best(self) -> tuple[float, float] | None:
        """The score threshold at which F1 is highest, and that F1; None without a true positive.

        F1 is 2 TP / (detections + objects).
        """
        if not self.true_positives.any():
            return None
        f1 = 2 * self.true_positives / (np.arange(1, len(self.true_positives) + 1) + self.objects)
        f1[:-1][self.scores[1:] == self.scores[:-1]] = 0  # detections with equal scores are kept or dropped together
        return float(self.scores[f1.argmax()]), float(f1.max())

    def at(self, limit: float) -> tuple[int, int]:
        """The number of detections with at least this score, and how many of them found an object."""
        count = int((self.scores >= limit).sum())
        return count, int(self.true_positives[count - 1]) if count else 0


def precision_recall(
    images: Sequence[ImageAnnotations],
    found: Sequence[Detections],
    outcomes: Iterable[Outcome],
    label: int | None = None,
) -> PrecisionRecall:
    """The curve of one class, or of all classes together, at the IoU of the outcomes."""
    scores, true_positives, objects = [np.empty(0, np.float32)], [np.empty(0, bool)], 0
    for image, one, of in zip(images, found, outcomes, strict=True):
        kept = ~of.ignored & (True if label is None else one.labels == label)
        scores.append(one.scores[kept])
        true_positives.append(of.true_positive[kept])
        objects += int((of.counts & (True if label is None else image.labels == label)).sum())
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="stable")
    return PrecisionRecall(every[order], np.cumsum(np.concatenate(true_positives)[order]), objects)
