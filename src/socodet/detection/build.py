"""Builds the detector that fits a pretraining run or a file of weights."""

from pathlib import Path
from typing import Literal

from torch import nn

from socodet.detection.detectors.by_name import detector_named, new_detector
from socodet.detection.detectors.settings import InferenceSettings
from socodet.errors import InputError
from socodet.weights.hub import reads_hub
from socodet.weights.load import load_pretrained
from socodet.weights.sizes import settings_of


@reads_hub("run")
def build_detector(
    run: str | Path,
    *,
    num_classes: int = 91,
    detector: str = "mask_rcnn_fpn",
    pooling: Literal["aligned", "torchvision"] = "aligned",
    show_report: bool = True,
) -> nn.Module:
    """Builds the detector that `finetune` trains from this run, whatever its backbone, and loads the run's weights.

    `run`: a run's folder, or a file of weights as `finetune` takes it, whose tensors show the sizes of the modules. All
    modules are loaded, also of a short run, of which `finetune` loads only the backbone (`load_pretrained` can, too).

    `num_classes` includes the background. Call the detector like torchvision's, with RGB in [0, 1]; the one difference
    is that in training mode it does not scale images, so scale them, their boxes and their masks first (`finetune` uses
    a shorter side of 640 to 800 pixels). RT-DETR scales them itself. An R-CNN pools boxes as in pretraining, or with
    `pooling="torchvision"` as torchvision's own detectors do. InputError for a folder that is not a run or has no
    checkpoint yet, for an unknown detector, and for `pooling` with a detector that pools no boxes.
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
    network = new_detector(detector, settings_of(run), num_classes, inference=inference)
    load_pretrained(network, run, show_report=show_report)
    return network
