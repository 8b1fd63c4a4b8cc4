"""The torchvision detector that fits a run."""

from pathlib import Path

from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from socodet.detection.detectors.pyramid import PyramidBackbone
from socodet.detection.detectors.rcnn_fpn import MASK_CHANNELS, box_head
from socodet.models.settings import ModelSettings
from socodet.weights.pretrained_run import model_settings
from socodet.weights.transfer import load_pretrained


def mask_rcnn(settings: ModelSettings, num_classes: int = 91) -> MaskRCNN:
    """A randomly initialised Mask R-CNN around the modules a run pretrains.

    With the default settings it is torchvision's `maskrcnn_resnet50_fpn_v2`, module for module.
    `num_classes` counts the background.
    """
    return MaskRCNN(
        PyramidBackbone(settings),
        rpn_head=RPNHead(settings.fpn_channels, num_anchors=3, conv_depth=2),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], settings.pooled_size, sampling_ratio=2),
        box_head=box_head(settings),
        box_predictor=FastRCNNPredictor(settings.representation_size, num_classes),
        mask_head=MaskRCNNHeads(settings.fpn_channels, [MASK_CHANNELS] * 4, 1, norm_layer=nn.BatchNorm2d),
        mask_predictor=MaskRCNNPredictor(MASK_CHANNELS, MASK_CHANNELS, num_classes),
    )


def build_detector(run: str | Path, *, num_classes: int = 91, show_report: bool = True) -> MaskRCNN:
    """The Mask R-CNN that fits a run, whatever its backbone, with the run's weights loaded.

    `num_classes` counts the background. Pixels go in as torchvision's detectors take them (RGB in [0, 1]).
    InputError when `run` is not a run or has no checkpoint yet.
    """
    detector = mask_rcnn(model_settings(run), num_classes)
    load_pretrained(detector, run, show_report=show_report)
    return detector
