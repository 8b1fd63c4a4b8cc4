"""What the networks are made of."""

import re
from dataclasses import dataclass
from typing import Literal

from socodet.errors import SettingError
from socodet.models.backbone_names import RESNETS, TIMM, check_backbone
from socodet.runtime.extensions import Extension
from socodet.runtime.settings import REGISTER, NonNegativeFloat, PositiveFloat, PositiveInt, Settings

MOST_WEIGHTS = 2**31
"""Maximum number of weights in pyramid, box head and MLPs, 100 times the paper's: a recipe may come from anybody."""

WITH_PYRAMID = ("fpn", "fpn_no_head")
"""Architectures with a pyramid, on which an RPN head can be pretrained too."""
Architecture = Literal["fpn", "fpn_no_head", "c4", "c5", "image", "rt_detr"] | Extension


@dataclass(frozen=True)
class ModelSettings(Settings):
    """The detector's own modules and the two MLPs on top; the defaults are section 4.1's SoCo-R50-FPN.

    `socodet pretrain --help-all` explains each field.
    """

    architecture: Architecture = "fpn"
    """Network that encodes a box: FPN and box head; FPN alone; C4 and the fifth residual block; C5 alone; the whole
    image as one box; or RT-DETR's hybrid encoder and a box head (needs transformers). fpn and c4 are section 4.1's;
    fpn_no_head, c5 and image are in Table 4. module:name is your own `ObjectEncoder`."""
    backbone: str = "resnet50"
    """Network whose four stages feed the pyramid: resnet18, 34, 50, 101 or 152; timm/NAME, such as timm/convnext_tiny
    (needs timm); or module:name for your own."""
    fpn_channels: PositiveInt = 256
    """Channels of each pyramid level, or of RT-DETR's encoder."""
    head_convs: PositiveInt = 4
    """Number of 3x3 convolutions in the box head."""
    head_channels: PositiveInt = 256
    """Channels of those convolutions."""
    representation_size: PositiveInt = 1024
    """Width of the box head's fully connected layer, which is the size of h in Eq. 1."""
    pooled_size: PositiveInt = 7
    """Width and height of RoIAlign's output, in cells."""
    hidden_size: PositiveInt = 4096
    """Width of the hidden layer of projector and predictor."""
    embedding_size: PositiveInt = 256
    """Output size of projector and predictor: the size of v in Eq. 4."""
    rpn_weight: NonNegativeFloat = 0.0
    """Weight of the loss of an RPN head pretrained together with SoCo, which learns to find the first view's proposals;
    detectors with an RPN start from it. 0 pretrains none, as in the paper."""

    def __post_init__(self) -> None:
        if callable(self.backbone):
            raise SettingError(f"backbone must be text, not {self.backbone!r}; {REGISTER}")
        super().__post_init__()
        check_backbone(self.backbone)
        if self.architecture == "rt_detr" and not re.fullmatch(TIMM + r"resnet(18|34|50|101|152)d", self.backbone):
            raise SettingError(
                f"architecture rt_detr must have {TIMM}resnet18d to {TIMM}resnet152d as backbone, not {self.backbone}; "
                f"set --backbone {TIMM}resnet50d"
            )
        if self.architecture == "c4" and self.backbone not in RESNETS:
            raise SettingError(
                f"architecture c4 must have a ResNet as backbone, whose fifth block is the head, not {self.backbone}"
            )
        if self.rpn_weight > 0 and self.architecture not in WITH_PYRAMID:
            raise SettingError(
                f"rpn_weight needs a pyramid: it works with architecture {' or '.join(WITH_PYRAMID)}, not "
                f"{self.architecture}; set it to 0"
            )
        if self._weights() > MOST_WEIGHTS:
            raise SettingError(
                f"fpn_channels, head_convs, head_channels, representation_size, pooled_size, hidden_size and "
                f"embedding_size make some {self._weights():,} weights, which is more than {MOST_WEIGHTS:,}; lower them"
            )

    def _weights(self) -> int:
        """About how many weights the pyramid, the box head and the MLPs have."""
        pyramid = 4 * 9 * self.fpn_channels**2
        convolutions = 9 * self.head_channels * (self.fpn_channels + (self.head_convs - 1) * self.head_channels)
        head = convolutions + self.head_channels * self.pooled_size**2 * self.representation_size
        return pyramid + head + self.hidden_size * (self.representation_size + 3 * self.embedding_size)


@dataclass(frozen=True)
class ObjectiveSettings(Settings):
    """What is minimised; the defaults are the paper's loss (Eq. 5-6)."""

    loss: Literal["cosine", "infonce"] | Extension = "cosine"
    """How agreement of an object across views is measured: SoCo's cosine (Eq. 5-6), or InfoNCE against the boxes of the
    batch's other images. module:name is your own `Objective`."""
    temperature: PositiveFloat = 0.2
    """Temperature of InfoNCE."""
    variance_weight: NonNegativeFloat = 0.0
    """Weight of VICReg's variance term, a hinge that keeps each dimension's standard deviation at 1."""
    covariance_weight: NonNegativeFloat = 0.0
    """Weight of VICReg's covariance term, which keeps dimensions from being redundant."""
    decorrelate: Literal["projections", "representations"] = "projections"
    """What VICReg's terms act on: the online projector's outputs, or h (Eq. 1)."""
