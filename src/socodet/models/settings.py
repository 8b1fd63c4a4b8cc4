"""What the networks are made of."""

import math
from dataclasses import dataclass
from typing import Literal

from socodet.errors import SettingError
from socodet.models.backbone_names import TIMM, check_backbone

Architecture = Literal["fpn", "fpn_no_head", "c4", "c5", "image"]


@dataclass(frozen=True)
class ModelSettings:
    """The detector's own modules and the two MLPs on top; the defaults are section 4.1's SoCo-R50-FPN."""

    architecture: Architecture = "fpn"
    """What encodes a box: FPN and box head; FPN alone; C4 and the fifth residual block; C5 alone; or the whole
    image as the one box. Section 4.1 has fpn and c4, Table 4 the others."""
    backbone: str = "resnet50"
    """Network whose four stages feed the pyramid: resnet18, 34, 50, 101 or 152, or timm/NAME, such as
    timm/convnext_tiny (needs timm)."""
    fpn_channels: int = 256
    """Channels of every pyramid level."""
    head_convs: int = 4
    """3x3 convolutions of the box head."""
    head_channels: int = 256
    """Channels of those convolutions."""
    representation_size: int = 1024
    """Width of the box head's fully connected layer: the size of h in Eq. 1."""
    pooled_size: int = 7
    """RoIAlign's output is this many cells wide and high."""
    hidden_size: int = 4096
    """Hidden layer of the projector and of the predictor."""
    embedding_size: int = 256
    """Output of the projector and of the predictor: the size of v in Eq. 4."""

    def __post_init__(self) -> None:
        for field in (
            "fpn_channels",
            "head_convs",
            "head_channels",
            "representation_size",
            "pooled_size",
            "hidden_size",
            "embedding_size",
        ):
            if getattr(self, field) < 1:
                raise SettingError(f"{field} must be at least 1, not {getattr(self, field)}")
        check_backbone(self.backbone)
        if self.architecture == "c4" and self.backbone.startswith(TIMM):
            raise SettingError(
                f"architecture c4 must have a ResNet as backbone, whose fifth block is the head, not {self.backbone}"
            )


@dataclass(frozen=True)
class ObjectiveSettings:
    """What is minimised; the defaults are the paper's loss (Eq. 5-6)."""

    loss: Literal["cosine", "infonce"] = "cosine"
    """Agreement of the same object across views: SoCo's cosine (Eq. 5-6), or InfoNCE against the boxes of the batch's
    other images."""
    temperature: float = 0.2
    """Of InfoNCE."""
    variance_weight: float = 0.0
    """Weight of VICReg's variance term, a hinge that keeps each dimension's standard deviation at 1."""
    covariance_weight: float = 0.0
    """Weight of VICReg's covariance term, which keeps dimensions from repeating each other."""
    decorrelate: Literal["projections", "representations"] = "projections"
    """What these two terms act on: the online projector's outputs or h (Eq. 1)."""

    def __post_init__(self) -> None:
        for name, values in (
            ("loss", ("cosine", "infonce")),
            ("decorrelate", ("projections", "representations")),
        ):
            if getattr(self, name) not in values:
                raise SettingError(f"{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        if not 0 < self.temperature < math.inf:
            raise SettingError(f"temperature must be above 0 and finite, not {self.temperature}")
        for name in ("variance_weight", "covariance_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} must be at least 0 and finite, not {getattr(self, name)}")
