"""RetinaNet, and what single-stage detectors on P3 to P7 have in common (Table 7).

Backbone and pyramid are transferred, the heads are not. The detectors follow MMDetection's 1x configurations as far as
torchvision's parts allow. Both have an output for the background, which is never a target.
"""

import math
from dataclasses import replace

from torchvision.models.detection import RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from socodet.detection.detectors.pyramid import PyramidBackbone
from socodet.detection.detectors.schedules import COCO, REFERENCE_BATCH, REFERENCE_SHORT_SIDE, ScheduleSettings
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.torchvision_detector import TorchvisionDetector
from socodet.models.anchors import StridedAnchors
from socodet.models.backbones import SINGLE_STAGE_FINEST, build_backbone
from socodet.models.settings import ModelSettings

STRIDES = (8, 16, 32, 64, 128)
"""Strides of P3 to P7."""
ANCHOR_SIZES = tuple((4 * stride, int(4 * stride * 2 ** (1 / 3)), int(4 * stride * 2 ** (2 / 3))) for stride in STRIDES)
"""Sides of the anchors of each level in pixels, as in torchvision."""
MMDETECTION_1X_IMAGES = 117_266
"""Number of images with an object in COCO's train2017, which make one epoch in MMDetection."""


class SingleStage(TorchvisionDetector):
    """A detector without proposals, trained like MMDetection's `retinanet_r50_fpn_1x_coco` (section 4.5)."""

    def schedule(self, name: str) -> ScheduleSettings:
        """Learning rate 0.01, weight decay 1e-4, 500 warm-up iterations from 0.001 of the rate, one image size.

        On COCO, 12 epochs with drops after 8 and 11; a schedule twice as long has twice the epochs. Schedules of other
        datasets keep their own length.
        """
        chosen = super().schedule(name)
        epochs = 12 * chosen.iterations // COCO.iterations
        on_coco = name.startswith("coco_")
        return replace(
            chosen,
            iterations=epochs * math.ceil(MMDETECTION_1X_IMAGES / REFERENCE_BATCH) if on_coco else chosen.iterations,
            lr=0.01,
            warmup_iterations=500,
            drops=(8 / 12, 11 / 12),
            weight_decay=1e-4,
            decay_norms=True,
            short_sides=(REFERENCE_SHORT_SIDE,),
        )


class RetinaNetFPN(SingleStage):
    """RetinaNet on P3 to P7, with P6 made from C5 as in MMDetection, or from P5 if both have equally many channels.

    As in torchvision, the loss of a batch is the mean of the losses of its images.
    """

    name = "retinanet_fpn"

    def assemble(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> RetinaNet:
        """Torchvision's RetinaNet on our pyramid."""
        c5_channels = build_backbone(model.backbone)[1][-1]
        return RetinaNet(
            PyramidBackbone(
                model,
                self.norm_layer,
                finest=SINGLE_STAGE_FINEST,
                extra_blocks=LastLevelP6P7(c5_channels, model.fpn_channels),
            ),
            num_classes,
            anchor_generator=StridedAnchors(ANCHOR_SIZES, [(0.5, 1.0, 2.0)] * len(STRIDES), STRIDES),
            score_thresh=inference.score_threshold,
            detections_per_img=inference.detections,
        )
