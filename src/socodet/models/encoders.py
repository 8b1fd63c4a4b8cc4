"""Object encoders: an image and boxes in, one vector a box out (Eq. 1), made of the detector's own modules."""

from functools import partial

import torchvision.models.resnet as resnet
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.ops import FeaturePyramidNetwork

from socodet.models.pyramid import pool_boxes, pyramid_levels
from socodet.models.settings import BackboneName, ModelSettings
from socodet.views.batch import RoIs

STAGES = ("layer1", "layer2", "layer3", "layer4")


def build_backbone(name: BackboneName) -> tuple[IntermediateLayerGetter, list[int]]:
    """A randomly initialised residual network without its classifier, and the channels of its four stages.

    Its module names are those of `backbone.body` in torchvision's detectors.
    """
    network: resnet.ResNet = getattr(resnet, name)(weights=None)
    width = network.inplanes // 8
    body = IntermediateLayerGetter(network, {stage: str(level) for level, stage in enumerate(STAGES)})
    return body, [width * 2**level for level in range(len(STAGES))]


class FPNEncoder(nn.Module):
    """h = f^H(RoIAlign(f^I(V), b)): backbone, FPN with batch norm, RoIAlign, box head with batch norm (Eq. 1).

    The modules are torchvision's, under the names its detectors give them (`backbone.body`, `backbone.fpn`,
    `box_head`), so that transfer is loading a state dict.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        body, channels = build_backbone(settings.backbone)
        fpn = FeaturePyramidNetwork(channels, settings.fpn_channels, norm_layer=nn.BatchNorm2d)
        self.backbone = nn.ModuleDict({"body": body, "fpn": fpn})
        self.box_head = FastRCNNConvFCHead(
            (settings.fpn_channels, settings.pooled_size, settings.pooled_size),
            [settings.head_channels] * settings.head_convs,
            [settings.representation_size],
            norm_layer=partial(nn.BatchNorm2d),
        )
        self.pooled_size = settings.pooled_size
        self.representation_size = settings.representation_size

    def stages(self, pixels_b3hw: Tensor) -> list[Tensor]:
        """The backbone's four feature maps, strides 4 to 32: list of (B, C_l, H/stride, W/stride)."""
        return list(self.backbone["body"](pixels_b3hw).values())

    def pyramid(self, pixels_b3hw: Tensor) -> list[Tensor | None]:
        """P2 to P5 of normalised pixels (B, 3, H, W): four maps of `fpn_channels` channels."""
        return pyramid_levels(self.backbone["fpn"], self.stages(pixels_b3hw), [True] * len(STAGES))

    def forward(self, pixels_b3hw: Tensor, rois: RoIs) -> Tensor:
        """One vector a box, in (image, box) order: normalised pixels (B, 3, H, W) → (B·K, representation_size)."""
        needed = [count > 0 for count in rois.counts]
        levels = pyramid_levels(self.backbone["fpn"], self.stages(pixels_b3hw), needed)
        h: Tensor = self.box_head(pool_boxes(levels, rois, self.pooled_size))
        return h
