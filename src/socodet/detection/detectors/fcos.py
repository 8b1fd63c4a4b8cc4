"""FCOS, with group norm in its head and P6 made from P5 as in MMDetection.

As in torchvision, centerness is predicted from the regression branch, only points near an object's centre are positive,
and boxes are trained with generalised IoU. Points lie at the upper left corners of cells, like the centres of anchors;
in MMDetection they lie in the middle of cells.
"""

from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from socodet.detection.detectors.pyramid import PyramidBackbone
from socodet.detection.detectors.retinanet import STRIDES, SingleStage
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.settings import InferenceSettings
from socodet.models.anchors import StridedAnchors
from socodet.models.backbones import SINGLE_STAGE_FINEST
from socodet.models.settings import ModelSettings

CHANNELS_A_GROUP = 8
"""Channels per group of FCOS's group norm: 32 groups for the usual 256 channels."""


def norm_groups(channels: int) -> int:
    """Number of groups for `channels`: `CHANNELS_A_GROUP` in each, or the next larger number that divides them."""
    return next(groups for groups in range(max(1, channels // CHANNELS_A_GROUP), 0, -1) if channels % groups == 0)


class FCOSFPN(SingleStage):
    """FCOS on P3 to P7."""

    name = "fcos_fpn"

    def assemble(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> FCOS:
        """Torchvision's FCOS on our pyramid."""
        channels = model.fpn_channels
        norm = partial(nn.GroupNorm, norm_groups(channels))
        head = SharedFCOSHead(channels, 1, num_classes, num_convs=0)  # its group norm would not fit every width
        head.classification_head = FCOSClassificationHead(channels, 1, num_classes, norm_layer=norm)
        head.regression_head = FCOSRegressionHead(channels, 1, norm_layer=norm)
        return FCOS(
            PyramidBackbone(
                model,
                self.norm_layer,
                finest=SINGLE_STAGE_FINEST,
                extra_blocks=LastLevelP6P7(channels, channels),
            ),
            num_classes,
            anchor_generator=StridedAnchors([(stride,) for stride in STRIDES], [(1.0,)] * len(STRIDES), STRIDES),
            head=head,
            score_thresh=inference.score_threshold,
            nms_thresh=0.5,
            detections_per_img=inference.detections,
        )

    def schedule(self, name: str) -> ScheduleSettings:
        """RetinaNet's schedule with the changes of MMDetection's `fcos_r50_caffe_fpn_gn-head_1x_coco`.

        Biases have twice the learning rate and no weight decay, gradients are clipped to a norm of 35, and warm-up is a
        constant third of the learning rate.
        """
        return replace(
            super().schedule(name),
            warmup_start=1 / 3,
            warmup_constant=True,
            bias_lr=2.0,
            decay_biases=False,
            clip_norm=35.0,
        )


class SharedFCOSHead(FCOSHead):  # type: ignore[misc]
    """torchvision's head, with losses divided by the number of positive points over all processes, as in MMDetection.

    If each process divided by its own number, points would count more in processes that have few.
    """

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """The losses by name, scaled so that their mean over all processes equals one process's loss on all images.

        matched_idxs: for each image, (points,), the index of the object that a point belongs to, or negative for none.
        """
        losses: dict[str, Tensor] = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        if not dist.is_initialized():
            return losses
        here = (torch.cat(matched_idxs) >= 0).sum().double()
        everywhere = here.clone()
        dist.all_reduce(everywhere)
        share = dist.get_world_size() * here.clamp_min(1) / everywhere.clamp_min(1)
        return {name: loss * share.to(loss.dtype) for name, loss in losses.items()}
