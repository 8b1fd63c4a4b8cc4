"""Parameter groups of the detectors' optimizers."""

import torch

from socodet.detection.detectors.by_name import detector_named
from socodet.detection.detectors.detector import parameter_groups


def test_parameter_groups_follow_the_schedule():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2))
    rcnn = parameter_groups(network, detector_named("mask_rcnn_fpn").schedule("coco_1x"))
    assert [(len(g["params"]), g["weight_decay"], g["lr_factor"]) for g in rcnn] == [
        (2, 2.5e-5, 1.0),
        (2, 0.0, 1.0),
        (2, 2.5e-5, 1.0),
    ]
    fcos = parameter_groups(network, detector_named("fcos_fpn").schedule("coco_1x"))
    assert [(g["weight_decay"], g["lr_factor"]) for g in fcos] == [(1e-4, 1.0), (1e-4, 1.0), (0.0, 2.0)]
