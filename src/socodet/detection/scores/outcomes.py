"""Hits, misses and false alarms, detection by detection, for looking at."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from socodet.detection.datasets.annotations import ImageAnnotations
from socodet.detection.scores.detections import Detections

IOU = 0.5
"""A detection hits an object of its class that it overlaps this much."""


@dataclass(frozen=True)
class Outcome:
    """What became of the N detections and M objects of an image."""

    hit: NDArray[np.bool_]
    """(N,) detections that found an object no surer one had found."""
    ignored: NDArray[np.bool_]
    """(N,) detections on crowd regions and difficult objects, which count for nothing."""
    found_at: NDArray[np.float32]
    """(M,) the score of the detection that found an object; -1 for one that was missed."""
    counts: NDArray[np.bool_]
    """(M,) objects that count: neither crowd regions nor difficult."""


def outcome(image: ImageAnnotations, found: Detections) -> Outcome:
    """Matches detections, the surest first, each with the object of its class that it overlaps most among those left.

    What is found at a lower limit of the score does not change what is found above it.
    """
    overlaps = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(image.boxes)).numpy()
    overlaps = np.where(found.labels[:, None] == image.labels[None], overlaps, 0)
    counts = ~(image.crowd | image.difficult)
    hit, ignored = np.zeros(len(found), bool), np.zeros(len(found), bool)
    found_at = np.full(len(image), -1, np.float32)
    for k in np.argsort(-found.scores, kind="stable").tolist():
        left = np.where(counts & (found_at < 0), overlaps[k], 0)
        if left.max(initial=0) >= IOU:
            hit[k] = True
            found_at[left.argmax()] = found.scores[k]
        else:
            ignored[k] = _is_ignored(image, found.boxes[k], overlaps[k], ~counts & (image.labels == found.labels[k]))
    return Outcome(hit, ignored, found_at, counts)


def _is_ignored(
    image: ImageAnnotations, box: NDArray[np.float32], overlap: NDArray[np.float32], others: NDArray[np.bool_]
) -> bool:
    """Whether a detection lies on one of these objects; of a crowd region, mostly within it."""
    sides = np.minimum(image.boxes[:, 2:], box[2:]) - np.maximum(image.boxes[:, :2], box[:2])
    within = sides.clip(0).prod(axis=1) / max(float((box[2:] - box[:2]).prod()), 1e-9)
    share = np.where(image.crowd, within, overlap)
    return bool((others & (share >= IOU)).any())


def best_limit(found: Sequence[Detections], outcomes: Iterable[Outcome]) -> tuple[float, float] | None:
    """The lowest score to show, at which F1 over all images is highest, and that F1; None without a hit.

    F1 is 2 hits / (detections + objects).
    """
    rows = [
        (one.scores[~o.ignored], o.hit[~o.ignored], int(o.counts.sum())) for one, o in zip(found, outcomes, strict=True)
    ]
    if not rows:
        return None
    scores = np.concatenate([row[0] for row in rows])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(np.concatenate([row[1] for row in rows])[order])
    if not len(hits) or not hits[-1]:
        return None
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + sum(row[2] for row in rows))
    best = int(f1.argmax())
    return float(scores[order][best]), float(f1[best])
