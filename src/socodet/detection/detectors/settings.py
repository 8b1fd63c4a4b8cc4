"""How a detector looks at a picture, how many boxes of it, and which of its detections it keeps."""

from dataclasses import dataclass

from socodet.errors import SettingError

BOXES_PER_IMAGE = 512
"""Detectron2's and torchvision's."""
MOST_PROPOSALS = 1000
"""Detectron2's for testing, on a pyramid of each level before non-maximum suppression as well as after it."""
MOST_TRAINING_PROPOSALS = 2000
"""Detectron2's of each level of a pyramid in training, before non-maximum suppression."""


@dataclass(frozen=True)
class InferenceSettings:
    """What decides a detector's answer beside its weights; the defaults are Detectron2's and MMDetection's for COCO."""

    short_side: int = 800
    """The shorter side of a picture is scaled to so many pixels."""
    max_side: int = 1333
    """But the longer one to no more than these."""
    score_threshold: float = 0.05
    """Detections below it are dropped before non-maximum suppression."""
    detections: int = 100
    """The most detections kept of a picture."""
    boxes_per_image: int = BOXES_PER_IMAGE
    """Of an R-CNN: boxes of a picture that the box head is trained on in a step. In testing it sees `proposals`."""

    def __post_init__(self) -> None:
        for field in ("short_side", "max_side", "detections", "boxes_per_image"):
            if getattr(self, field) < 1:
                raise SettingError(f"{field} must be at least 1, not {getattr(self, field)}")
        if not 0 <= self.score_threshold < 1:
            raise SettingError(f"score_threshold must be in [0, 1), not {self.score_threshold}")

    @property
    def proposals(self) -> int:
        """Boxes of a picture that an R-CNN's box head sees in testing: twice those of training, at most 1,000."""
        return min(MOST_PROPOSALS, 2 * self.boxes_per_image)

    @property
    def training_proposals(self) -> int:
        """Proposals of each pyramid level before non-maximum suppression in training: four times the boxes sampled."""
        return min(MOST_TRAINING_PROPOSALS, 4 * self.boxes_per_image)
