"""The size to which a detector scales images, the number of RoIs of an R-CNN, and which detections are kept."""

from dataclasses import dataclass
from typing import Annotated, Literal

from socodet.runtime.settings import PositiveInt, Range, Settings

ROIS_PER_IMAGE = 512
"""Default of Detectron2 and torchvision."""
TEST_PROPOSALS = 1000
"""Detectron2's limit on proposals classified at test time; on a pyramid also on proposals per level before NMS."""
TRAINING_PRE_NMS = 2000
"""Detectron2's limit on proposals per pyramid level before NMS in training."""


@dataclass(frozen=True)
class InferenceSettings(Settings):
    """What determines a detector's output besides its weights; defaults as in Detectron2 and MMDetection for COCO."""

    short_side: PositiveInt = 800
    """An image's shorter side is scaled to this many pixels."""
    max_side: PositiveInt = 1333
    """Its longer side is at most this many pixels."""
    score_threshold: Annotated[float, Range(0, below=1)] = 0.05
    """Detections below it are dropped before non-maximum suppression."""
    detections: PositiveInt = 100
    """Maximum number of detections per image."""
    rois_per_image: PositiveInt = ROIS_PER_IMAGE
    """For an R-CNN: RoIs per image on which a step trains the box head (Detectron2's ROI_HEADS.BATCH_SIZE_PER_IMAGE).
    A smaller number also reduces the number of proposals, see below."""
    pooling: Literal["aligned", "torchvision"] = "aligned"
    """For an R-CNN: RoIAlign as in pretraining, or as in torchvision's own detectors."""

    @property
    def proposals(self) -> int:
        """Proposals per image that an R-CNN classifies at test time: twice `rois_per_image`, at most 1,000."""
        return min(TEST_PROPOSALS, 2 * self.rois_per_image)

    @property
    def training_pre_nms(self) -> int:
        """Proposals of each pyramid level before NMS in training: four times `rois_per_image`, at most 2,000."""
        return min(TRAINING_PRE_NMS, 4 * self.rois_per_image)
