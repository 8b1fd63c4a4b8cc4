"""COCO's and LVIS's average precision of boxes and masks, computed by faster-coco-eval."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.detection.datasets.masks import as_rle, mask_area
from socodet.detection.scores.detections import Detections, Predictions, Scores, detections_by_image, empty_scores

Kind = Literal["box", "mask"]
SIZES = ("all", "small", "medium", "large")
"""Ranges of area in square pixels: any, below 32², up to 96², and above."""
MAX_DETECTIONS = 100
"""Maximum number of detections that count per image and category."""
LVIS_MAX_DETECTIONS = 300
"""Maximum number of detections that count per image, over all categories."""
AT_ONCE = 1_000_000
"""Maximum number of objects and detections passed to the library at once; it needs 1.5 KB for each."""
FREQUENCIES = {"r": "APr", "c": "APc", "f": "APf"}


def evaluate_coco(dataset: DetectionDataset, predictions: Predictions) -> Scores:
    """AP over IoU 0.50:0.95, AP50, AP75, and AP of small, medium and large objects, of boxes and, if found, masks.

    Keys are `box_AP`, `box_AP50`, …, `mask_AP`, …; values are in percent, nan if the dataset has no such object.
    Detections in crowd regions and on objects marked difficult are ignored. An object's size is its area in the file; a
    detection's is the area of its box or mask, whichever is scored.
    """
    found = detections_by_image(dataset, predictions)
    shares = _shares_of_labels(dataset, found)
    scores = empty_scores(dataset)
    for kind in kinds_scored(dataset, found):
        parts = [precisions(dataset.images, found, labels, kind, MAX_DETECTIONS) for labels in shares]
        add_scores(scores, kind, np.concatenate(parts, axis=2))
    return scores


def _shares_of_labels(dataset: DetectionDataset, found: Sequence[Detections]) -> list[range]:
    """All labels in order, in as few groups as `AT_ONCE` allows; each group is scored separately."""
    counts = np.zeros(len(dataset.categories) + 1, np.int64)
    for image, detections in zip(dataset.images, found, strict=True):
        counts += np.bincount(np.concatenate([image.labels, detections.labels]), minlength=len(counts))
    shares, first, total = [], 1, 0
    for label in range(1, len(counts)):
        if total and total + counts[label] > AT_ONCE:
            shares.append(range(first, label))
            first, total = label, 0
        total += int(counts[label])
    return [*shares, range(first, len(counts))]


def evaluate_lvis(dataset: DetectionDataset, predictions: Predictions) -> Scores:
    """LVIS's scores in percent (Gupta et al. 2019); its images are annotated for only some of the categories.

    COCO's six scores, and AP of rare, common and frequent categories, of boxes and, if found, masks. Keys are those of
    `evaluate_coco`, with `box_APr`, `box_APc`, `box_APf`. Only the 300 best detections of an image count. Each category
    is scored separately, on the images that have an object of it or are known to have none: other images do not
    matter for it, and all images times 1,203 categories would not fit into memory.
    """
    found = [detections.best(LVIS_MAX_DETECTIONS) for detections in detections_by_image(dataset, predictions)]
    known: dict[int, list[int]] = {}
    for index, image in enumerate(dataset.images):
        for label in {*image.labels.tolist(), *image.absent}:
            known.setdefault(label, []).append(index)
    scores = empty_scores(dataset)
    for kind in kinds_scored(dataset, found):
        precision = -np.ones((10, 101, len(dataset.categories), len(SIZES)))
        for label, places in known.items():
            images, detections = [dataset.images[i] for i in places], [found[i] for i in places]
            alone = precisions(images, detections, [label], kind, LVIS_MAX_DETECTIONS, federated=True)
            precision[:, :, label - 1] = alone[:, :, 0]
        add_scores(scores, kind, precision)
        for frequency, name in FREQUENCIES.items():
            chosen = [place for place, category in enumerate(dataset.categories) if category.frequency == frequency]
            scores[f"{kind}_{name}"] = percent(precision[:, :, chosen, 0])
    return scores


def kinds_scored(dataset: DetectionDataset, found: Sequence[Detections]) -> list[Kind]:
    """What is scored: boxes always, and masks if the dataset and every detection have them."""
    with_masks = all(one.masks is not None for one in found if len(one))
    return ["box", "mask"] if dataset.has_masks and with_masks else ["box"]


def add_scores(scores: Scores, kind: Kind, precision: NDArray[np.float64]) -> None:
    """Adds COCO's six scores from the `precisions` of all classes, and AP and AP50 of each class, in percent."""
    everything, small, medium, large = (precision[..., place] for place in range(len(SIZES)))
    parts = {
        "AP": everything,
        "AP50": everything[0],
        "AP75": everything[5],
        "APs": small,
        "APm": medium,
        "APl": large,
    }
    scores.update({f"{kind}_{name}": percent(part) for name, part in parts.items()})
    for place, of_class in enumerate(scores.of_classes.values()):
        for name in ("AP", "AP50"):
            of_class[f"{kind}_{name}"] = percent(parts[name][..., place])


def percent(precision: NDArray[np.float64]) -> float:
    """The mean of all defined values, in percent; nan if there is none."""
    defined = precision[precision > -1]
    return float(defined.mean()) * 100 if defined.size else float("nan")


def precisions(
    images: Sequence[ImageAnnotations],
    found: Sequence[Detections],
    labels: Sequence[int],
    kind: Kind,
    limit: int,
    *,
    federated: bool = False,
) -> NDArray[np.float64]:
    """Precision at 10 IoU thresholds (0.50 to 0.95), 101 recalls (0 to 1), for each label and size: (10, 101, K, 4).

    -1 where a label has no object of that size. `limit`: number of detections that count per image and label.
    `federated` follows LVIS: a detection counts only in images that have an object of its label or are known to have
    none, and an unmatched one does not count where the label is not exhaustively annotated.
    """
    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    wanted = np.array(labels)
    for number, (image, detections) in enumerate(zip(images, found, strict=True), 1):
        listed.append(
            {
                "id": number,
                "height": image.height,
                "width": image.width,
                "neg_category_ids": list(image.absent),
                "not_exhaustive_category_ids": list(image.incomplete),
            }
        )
        truth += _objects(image, number, wanted, kind)
        results += _results(detections, number, wanted, kind)
    for entries in (truth, results):
        for place, entry in enumerate(entries, 1):
            entry["id"] = place
    # The library requires a frequency, but the caller groups categories by frequency itself.
    categories = [{"id": int(label), "name": str(label), "frequency": "f"} for label in labels]
    evaluation = COCOeval_faster(
        COCO({"images": listed, "annotations": truth, "categories": categories}),
        COCO({"images": listed, "annotations": results, "categories": categories}),
        "bbox" if kind == "box" else "segm",
        print_function=_silent,
        lvis_style=federated,
    )
    evaluation.params.maxDets = [limit]
    evaluation.evaluate()
    evaluation.accumulate()
    precision: NDArray[np.float64] = np.asarray(evaluation.eval["precision"])
    return precision[..., 0]


def _silent(*_: object) -> None:
    """Discards the library's output."""


def _objects(image: ImageAnnotations, number: int, wanted: NDArray[np.int64], kind: Kind) -> list[dict[str, Any]]:
    entries = []
    for index in np.flatnonzero(np.isin(image.labels, wanted)).tolist():
        x1, y1, x2, y2 = image.boxes[index].tolist()
        entry: dict[str, Any] = {
            "image_id": number,
            "category_id": int(image.labels[index]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": float(image.areas[index]),
            "iscrowd": int(image.crowd[index] or image.difficult[index]),
        }
        if kind == "mask":
            assert image.masks is not None
            entry["segmentation"] = as_rle(image.masks[index], image.height, image.width)
        entries.append(entry)
    return entries


def _results(found: Detections, number: int, wanted: NDArray[np.int64], kind: Kind) -> list[dict[str, Any]]:
    chosen = found.take(np.flatnonzero(np.isin(found.labels, wanted)))
    if kind == "box":
        chosen = replace(chosen, masks=None)
    entries = []
    for one in chosen.entries(lambda label: {"category_id": label}):
        area = mask_area(one["segmentation"]) if kind == "mask" else one["bbox"][2] * one["bbox"][3]
        entries.append({"image_id": number, **one, "area": float(area), "iscrowd": 0})
    return entries
