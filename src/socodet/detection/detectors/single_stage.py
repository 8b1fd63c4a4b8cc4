"""Single-stage detectors on P3 to P7: Table 7. Backbone and pyramid are transferred, heads are fresh.

As MMDetection's 1x configurations have them, where torchvision's parts allow it: RetinaNet makes P6 from C5, FCOS
from P5. Left as torchvision has it: the loss of a batch is the mean over pictures of each picture's loss (RetinaNet),
centerness stands on the regression branch, points near an object's centre alone are positive, and boxes are learned by
generalised IoU (FCOS). Both have an output for the background, which no target asks for.
"""

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from socodet.detection.detectors.pyramid import PyramidBackbone
from socodet.detection.detectors.settings import InferenceSettings
from socodet.models.backbones import build_backbone
from socodet.models.settings import ModelSettings

FINEST_LEVEL = 3
CHANNELS_A_GROUP = 8
"""Of FCOS's group norm: 32 groups of the usual 256 channels."""


class SharedFCOSHead(FCOSHead):  # type: ignore[misc]
    """torchvision's head, its losses divided by the number of positive points in the pictures of all processes.

    As in MMDetection. Each process's own number would weigh its points by how few they are.
    """

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """The losses by name, scaled so that their mean over all processes is that of one process with every picture.

        matched_idxs: a picture's, (points,), the object that each point belongs to, negative where to none.
        """
        losses: dict[str, Tensor] = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        if not dist.is_initialized():
            return losses
        here = (torch.cat(matched_idxs) >= 0).sum().double()
        everywhere = here.clone()
        dist.all_reduce(everywhere)
        share = dist.get_world_size() * here.clamp_min(1) / everywhere.clamp_min(1)
        return {name: loss * share.to(loss.dtype) for name, loss in losses.items()}


def retinanet(settings: ModelSettings, num_classes: int, inference: InferenceSettings) -> RetinaNet:
    """RetinaNet; P6 is made from C5. `num_classes` counts the background, label 0."""
    c5_channels = build_backbone(settings.backbone)[1][-1]
    return RetinaNet(
        PyramidBackbone(settings, finest=FINEST_LEVEL, extra_blocks=LastLevelP6P7(c5_channels, settings.fpn_channels)),
        num_classes,
        score_thresh=inference.score_threshold,
        detections_per_img=inference.detections,
    )


def fcos(settings: ModelSettings, num_classes: int, inference: InferenceSettings) -> FCOS:
    """FCOS with group norm in its head; P6 is made from P5. `num_classes` counts the background, label 0."""
    channels = settings.fpn_channels
    norm = partial(nn.GroupNorm, max(1, channels // CHANNELS_A_GROUP))
    head = SharedFCOSHead(channels, 1, num_classes, num_convs=0)  # whose group norm does not fit every width
    head.classification_head = FCOSClassificationHead(channels, 1, num_classes, norm_layer=norm)
    head.regression_head = FCOSRegressionHead(channels, 1, norm_layer=norm)
    return FCOS(
        PyramidBackbone(settings, finest=FINEST_LEVEL, extra_blocks=LastLevelP6P7(channels, channels)),
        num_classes,
        head=head,
        score_thresh=inference.score_threshold,
        nms_thresh=0.5,
        detections_per_img=inference.detections,
    )
