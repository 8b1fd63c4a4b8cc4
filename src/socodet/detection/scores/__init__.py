"""Scores of detections, by the rules of their dataset."""

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.scores.coco import evaluate_coco, evaluate_lvis
from socodet.detection.scores.detections import (
    Detections,
    LeftOutCounts,
    Predictions,
    Scores,
    read_detections,
    write_detections,
)
from socodet.detection.scores.voc import evaluate_voc

__all__ = ["Detections", "LeftOutCounts", "Predictions", "Scores", "evaluate", "read_detections", "write_detections"]

_RULES = {"coco": evaluate_coco, "voc": evaluate_voc, "lvis": evaluate_lvis}


def evaluate(dataset: DetectionDataset, predictions: Predictions) -> Scores:
    """Scores in percent by the rules of the dataset's `style`, under keys such as `box_AP50` and `mask_AP`.

    COCO: AP, AP50, AP75, APs, APm, APl of boxes and masks. VOC: AP, AP50, AP75 of boxes. LVIS: COCO's and APr, APc,
    APf. A score is nan if the dataset has no object that counts for it. `of_classes` has AP and AP50 of each class.
    InputError for detections on images that the dataset lacks.
    """
    return _RULES[dataset.style](dataset, predictions)
