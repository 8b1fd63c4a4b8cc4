"""A backbone with a feature pyramid, with the module names of torchvision's detectors."""

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from socodet.models.backbones import FINEST, NormLayer, build_backbone, stage_outputs
from socodet.models.settings import ModelSettings


class PyramidBackbone(nn.Module):
    """torchvision's `BackboneWithFPN`, with its names `body` and `fpn`, around any backbone of `build_backbone`.

    The pyramid has batch norm, as in pretraining, and starts at level `finest`: P2 for R-CNNs, P3 for single-stage
    detectors. The first block of `fpn` belongs to that level. `extra_blocks` computes the levels above P5; by default
    P6 is every second pixel of P5.
    """

    def __init__(
        self,
        settings: ModelSettings,
        norm_layer: NormLayer = nn.BatchNorm2d,
        *,
        finest: int = FINEST,
        extra_blocks: ExtraFPNBlock | None = None,
    ):
        super().__init__()
        self.body, channels = build_backbone(settings.backbone, norm_layer)
        self._first_stage = finest - FINEST
        self.fpn = FeaturePyramidNetwork(
            channels[self._first_stage :],
            settings.fpn_channels,
            extra_blocks=extra_blocks or LastLevelMaxPool(),
            norm_layer=norm_layer,
        )
        self.out_channels = settings.fpn_channels

    def forward(self, images_b3hw: Tensor) -> dict[str, Tensor]:
        """The levels, finest first, then the extra levels; "0" is always P2, even if the pyramid starts later."""
        stages = stage_outputs(self.body, images_b3hw)
        named = {str(level): stage for level, stage in enumerate(stages)}
        levels: dict[str, Tensor] = self.fpn(dict(list(named.items())[self._first_stage :]))
        return levels
