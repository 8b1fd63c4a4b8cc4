"""At which size a detector sees an image, how many boxes an R-CNN considers, and which detections are kept."""

from dataclasses import dataclass
from typing import Annotated, Literal

from socodet.runtime.settings import PositiveInt, Range, Settings

ROIS_PER_IMAGE = 512
"""Detectron2's and torchvision's."""
TEST_PROPOSALS = 1000
"""Detectron2's limit of what the box head classifies at test time; on a pyramid also of each level before NMS."""
TRAINING_PRE_NMS = 2000
"""Detectron2's limit of each pyramid level before NMS in training."""


@dataclass(frozen=True)
class InferenceSettings(Settings):
    """What decides a detector's output besides its weights; defaults as in Detectron2 and MMDetection for COCO."""

    short_side: PositiveInt = 800
    """An image's shorter side is scaled to this many pixels."""
    max_side: PositiveInt = 1333
    """Its longer side is at most this many pixels."""
    score_threshold: Annotated[float, Range(0, below=1)] = 0.05
    """Detections below it are dropped before non-maximum suppression."""
    detections: PositiveInt = 100
    """At most this many detections are kept per image."""
    rois_per_image: PositiveInt = ROIS_PER_IMAGE
    """Of an R-CNN: boxes per image that the box head is trained on in a step (Detectron2's
    ROI_HEADS.BATCH_SIZE_PER_IMAGE). Fewer also shorten the lists of proposals, see below."""
    pooling: Literal["aligned", "torchvision"] = "aligned"
    """Of an R-CNN: RoIAlign as in pretraining, or as torchvision's own detectors have it."""

    @property
    def proposals(self) -> int:
        """Proposals per image that an R-CNN classifies at test time: twice the boxes of training, at most 1,000."""
        return min(TEST_PROPOSALS, 2 * self.rois_per_image)

    @property
    def training_pre_nms(self) -> int:
        """Proposals of each pyramid level before NMS in training: four times the boxes of a step, at most 2,000."""
        return min(TRAINING_PRE_NMS, 4 * self.rois_per_image)
