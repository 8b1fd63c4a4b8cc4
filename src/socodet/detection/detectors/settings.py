"""How a detector looks at a picture and which of its detections it keeps."""

from dataclasses import dataclass

from socodet.errors import SettingError


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

    def __post_init__(self) -> None:
        for field in ("short_side", "max_side", "detections"):
            if getattr(self, field) < 1:
                raise SettingError(f"{field} must be at least 1, not {getattr(self, field)}")
        if not 0 <= self.score_threshold < 1:
            raise SettingError(f"score_threshold must be in [0, 1), not {self.score_threshold}")
