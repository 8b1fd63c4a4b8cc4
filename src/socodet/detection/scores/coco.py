"""COCO's average precision of boxes and masks, computed by faster-coco-eval."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.detection.datasets.masks import as_rle, mask_area
from socodet.detection.scores.detections import Detections, Predictions, in_order
from socodet.detection.scores.scores import Scores, begin_scores

Kind = Literal["box", "mask"]
SIZES = ("all", "small", "medium", "large")
"""Areas: any, under 32², to 96², and above, in square pixels."""
MAX_DETECTIONS = 100
"""Detections that count, per image and category."""


def evaluate_coco(dataset: DetectionDataset, predictions: Predictions) -> Scores:
    """AP over IoU 0.50:0.95, AP50, AP75, and AP of small, medium and large objects, of boxes and, if found, masks.

    Keys are `box_AP`, `box_AP50`, …, `mask_AP`, …; values in percent, nan where the set has no such object. Detections
    in crowd regions are ignored. An object's size is its area in the file, a detection's the area of its box or mask,
    whichever is scored.
    """
    found = in_order(dataset, predictions)
    labels = range(1, len(dataset.categories) + 1)
    scores = begin_scores(dataset)
    for kind in kinds_scored(dataset, found):
        add_scores(scores, kind, precisions(dataset.images, found, labels, kind, MAX_DETECTIONS))
    return scores


def kinds_scored(dataset: DetectionDataset, found: Sequence[Detections]) -> list[Kind]:
    """Boxes always; masks if the set and every detection have them."""
    with_masks = all(one.masks is not None for one in found if len(one))
    return ["box", "mask"] if dataset.has_masks and with_masks else ["box"]


def add_scores(scores: Scores, kind: Kind, precision: NDArray[np.float64]) -> None:
    """Adds COCO's six figures from the `precisions` of all classes, and AP and AP50 of each class, in percent."""
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

    -1 where a label has no object of that size. `limit`: detections that count per image and label.
    `federated` follows LVIS: a detection of a label counts only in images which have such an object or are known to
    have none, and an unmatched one not where the label is annotated incompletely.
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
    # The library asks for a frequency; the caller groups categories by their own.
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
    """Silences the library."""


def _objects(image: ImageAnnotations, number: int, wanted: NDArray[np.int64], kind: Kind) -> list[dict[str, Any]]:
    entries = []
    for index in np.flatnonzero(np.isin(image.labels, wanted)).tolist():
        entry: dict[str, Any] = {
            "image_id": number,
            "category_id": int(image.labels[index]),
            "bbox": _xywh(image.boxes[index]),
            "area": float(image.areas[index]),
            "iscrowd": int(image.crowd[index]),
        }
        if kind == "mask":
            assert image.masks is not None
            entry["segmentation"] = as_rle(image.masks[index], image.height, image.width)
        entries.append(entry)
    return entries


def _results(found: Detections, number: int, wanted: NDArray[np.int64], kind: Kind) -> list[dict[str, Any]]:
    entries = []
    for index in np.flatnonzero(np.isin(found.labels, wanted)).tolist():
        x, y, w, h = _xywh(found.boxes[index])
        entry: dict[str, Any] = {
            "image_id": number,
            "category_id": int(found.labels[index]),
            "bbox": [x, y, w, h],
            "area": w * h,
            "score": float(found.scores[index]),
            "iscrowd": 0,
        }
        if kind == "mask":
            assert found.masks is not None
            entry["segmentation"] = found.masks[index]
            entry["area"] = float(mask_area(found.masks[index]))
        entries.append(entry)
    return entries


def _xywh(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = (float(side) for side in box)
    return [x1, y1, x2 - x1, y2 - y1]
