"""What single-stage detectors on P3 to P7 have in common: Table 7. Backbone and pyramid are transferred, not the heads.

They follow MMDetection's 1x configurations as far as torchvision's parts allow. Both have an output for the background,
which is never a target.
"""

import math
from dataclasses import replace

from socodet.detection.detectors.schedules import COCO, REFERENCE_BATCH, REFERENCE_SHORT_SIDE, ScheduleSettings
from socodet.detection.detectors.torchvision_detector import TorchvisionDetector

MMDETECTION_1X_IMAGES = 117_266
"""Images of COCO's train2017 that have an object, which an epoch of MMDetection's passes over."""


class SingleStage(TorchvisionDetector):
    """A detector without proposals, trained as MMDetection's `retinanet_r50_fpn_1x_coco` (section 4.5)."""

    @property
    def float32_outputs(self) -> tuple[str, ...]:
        """The pyramid and the head."""
        return "backbone", "head"

    def schedule(self, name: str) -> ScheduleSettings:
        """Learning rate 0.01, weight decay 1e-4, 500 warm-up iterations from 0.001 of the rate, one size of images.

        On COCO 12 epochs with drops after 8 and 11; a schedule twice as long has twice the epochs. Other data sets keep
        their own length.
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
