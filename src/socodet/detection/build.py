"""The detector that fits a pretraining run."""

from pathlib import Path
from typing import Literal

from torch import nn

from socodet.detection.detectors.by_name import detector_named, new_detector
from socodet.detection.detectors.settings import InferenceSettings
from socodet.errors import InputError
from socodet.weights.hub import reads_hub
from socodet.weights.load import load_pretrained
from socodet.weights.pretrained_run import model_settings


@reads_hub("run")
def build_detector(
    run: str | Path,
    *,
    num_classes: int = 91,
    detector: str = "mask_rcnn_fpn",
    pooling: Literal["aligned", "torchvision"] = "aligned",
    show_report: bool = True,
) -> nn.Module:
    """The detector that `finetune` trains from this run, whatever its backbone, with the run's weights loaded.

    `num_classes` counts the background. It is called as torchvision's detectors are, with RGB in [0, 1], except that in
    training mode it does not scale images: scale them, their boxes and masks first (shorter side 640 to 800 pixels in
    `finetune`); RT-DETR scales them itself. An R-CNN pools boxes as in pretraining, or as torchvision's own do with
    `pooling="torchvision"`. InputError for a folder that is not a run or has no checkpoint yet, and for a detector that
    is unknown or pools no boxes.
    """
    if pooling != "aligned" and not detector_named(detector).has_box_head:
        raise InputError(f"pooling {pooling!r}: {detector} pools no boxes; leave it out, or choose an R-CNN")
    sizes = detector_named(detector).schedule("auto")  # as `finetune` takes them
    inference = InferenceSettings(
        short_side=sizes.test_short_side,
        max_side=sizes.max_side,
        score_threshold=sizes.score_threshold,
        detections=sizes.detections,
        pooling=pooling,
    )
    network = new_detector(detector, model_settings(run), num_classes, inference=inference)
    load_pretrained(network, run, show_report=show_report)
    return network
