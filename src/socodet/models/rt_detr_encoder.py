"""RT-DETR's backbone, input projections and hybrid encoder, with a box head: SoCo for a current detector."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.functional import pad

from socodet.models.backbones import SINGLE_STAGE_FINEST, STRIDES, NormLayer, build_backbone, stage_outputs
from socodet.models.encoders import ObjectEncoder, build_box_head, over_views
from socodet.models.pyramid import pool_boxes
from socodet.models.rt_detr import depth_of, hybrid_encoder, rt_detr_config
from socodet.models.settings import ModelSettings
from socodet.views.batch import RoIs


class RTDETREncoder(ObjectEncoder):
    """Everything in RT-DETR before its decoder, RoIAlign on the hybrid encoder's three maps, and a box head.

    The maps have strides 8, 16 and 32 and `fpn_channels` channels; boxes of P2 are pooled from the first. The backbone
    is timm's, which computes what transformers' does. Only the box head is not in RT-DETR.
    """

    has_box_head = True

    def __init__(self, settings: ModelSettings, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        body, channels = build_backbone(settings.backbone, norm_layer)
        config = rt_detr_config(depth_of(settings.backbone), settings.fpn_channels)
        outputs = settings.fpn_channels
        projections = [
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)) for inputs in channels[1:]
        ]
        self.backbone = nn.ModuleDict(
            {"body": body, "input_proj": nn.ModuleList(projections), "encoder": hybrid_encoder(config)}
        )
        self.box_head = build_box_head(settings, norm_layer)
        self.pooled_size = settings.pooled_size
        self.representation_size = settings.representation_size

    def maps(self, pixels_b3hw: Tensor) -> list[Tensor]:
        """The hybrid encoder's outputs, strides 8, 16 and 32; images are padded to a multiple of 32 below and right."""
        height, width = pixels_b3hw.shape[-2:]
        padded = pad(pixels_b3hw, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
        stages = stage_outputs(self.backbone["body"], padded)[1:]
        projected = [
            projection(stage)
            for projection, stage in zip(self.backbone["input_proj"], stages, strict=True)  # type: ignore[call-overload]
        ]
        outputs: list[Tensor] = self.backbone["encoder"](projected).last_hidden_state
        return outputs

    def feature_maps(self, pixels_b3hw: Tensor) -> dict[str, Tensor]:
        """P3 to P5."""
        return {f"P{level}": one for level, one in enumerate(self.maps(pixels_b3hw), SINGLE_STAGE_FINEST)}

    def over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """Each box is pooled once, from its own level, and passes through the head once.

        The head's linear layer is a single matrix product for all views.
        """
        pooled = [
            pool_boxes([None, *self.maps(view)], _without_p2(boxes), self.pooled_size)
            for view, boxes in zip(pixels, rois, strict=True)
        ]
        return over_views(self.box_head, pooled)


def _without_p2(rois: RoIs) -> RoIs:
    """The same boxes with those of P2 counted among P3's, which follow them."""
    p2, p3, *coarser = rois.counts
    return replace(rois, counts=(0, p2 + p3, *coarser))
