"""Object encoders: from an image and its boxes to one vector per box (Eq. 1), made of the detector's own modules.

`FPNEncoder` and `C4Encoder` are the paper's two; `HeadlessFPNEncoder`, `C5Encoder` and `ImageEncoder` are rows of
Table 4. These classes own what differs between architectures: what is transferred, whether boxes are encoded, which
feature maps there are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.ops import FeaturePyramidNetwork

from socodet.models.backbones import FINEST, STAGES, STRIDES, NormLayer, build_backbone, split_backbone, stage_outputs
from socodet.models.blocks import ConvNormReLU, FusedStages, fuse_relu
from socodet.models.fused_norm import SyncedBatchNorm
from socodet.models.pyramid import pool_boxes, pyramid_levels, pyramids
from socodet.models.region_proposals import build_rpn_head
from socodet.models.roi_align import roi_align
from socodet.models.settings import ModelSettings
from socodet.views.batch import RoIs


class ObjectEncoder(nn.Module, ABC):
    """Maps an image and its boxes to one vector per box: h = f^H(RoIAlign(f^I(V), b)) (Eq. 1)."""

    has_pyramid: ClassVar[bool] = False
    """An FPN is pretrained on the backbone."""
    has_box_head: ClassVar[bool] = False
    """A detector's box head of convolutions and a fully connected layer is pretrained."""
    head_is_fifth_block: ClassVar[bool] = False
    """The head is the residual network's layer4, which is transferred as part of the backbone."""
    encodes_boxes: ClassVar[bool] = True
    """h depends on the box; a whole-image network has one h per image."""

    representation_size: int
    """Length of h."""
    backbone: nn.ModuleDict
    """The backbone's `body`, and the `fpn` if there is one."""

    def forward(self, pixels_b3hw: Tensor, rois: RoIs) -> Tensor:
        """Normalised pixels (B, 3, H, W) → (B·K, representation_size), in (image, box) order."""
        return self.over_views([pixels_b3hw], [rois])[0]

    @abstractmethod
    def over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """`forward` of every view; layers that treat each box alone may process all views at once."""

    def stages(self, pixels_b3hw: Tensor) -> list[Tensor]:
        """The backbone's feature maps from stride 4 on, at most four: list of (B, C_l, H/stride, W/stride)."""
        return stage_outputs(self.backbone["body"], pixels_b3hw)

    @property
    def side_by_side(self) -> bool:
        """Whether views pass the residual blocks side by side, so that synchronised norms exchange once for all."""
        body = self.backbone["body"]
        return isinstance(body, FusedStages) and body.synchronized

    def stages_over_views(self, pixels: Sequence[Tensor]) -> list[list[Tensor]]:
        """`stages` of every view."""
        if not self.side_by_side:
            return [self.stages(view) for view in pixels]
        by_stage = stage_outputs(self.backbone["body"], list(pixels))
        return [list(maps) for maps in zip(*by_stage, strict=True)]

    def feature_maps(self, pixels_b3hw: Tensor) -> dict[str, Tensor]:
        """Feature maps by name, finest first, from stride 8 on: normalised pixels (B, 3, H, W) → (B, C_l, h, w)."""
        return {f"C{level}": one for level, one in enumerate(self.stages(pixels_b3hw), FINEST) if level > FINEST}


TAKE_LISTS = (ConvNormReLU, SyncedBatchNorm)
"""Modules that take all views at once and normalise each by its own statistics."""


def over_views(chain: Iterable[nn.Module], views: Sequence[Tensor]) -> list[Tensor]:
    """Every view through a chain of modules, with linear layers and the ReLU after them run once for all views.

    So their weights are read and their gradients written once, not once per view. Batch norm and the rest take the
    views one by one, each normalised by its own statistics; synchronised norms exchange those of all views at once.
    Shapes: (N_v, ...) → (N_v, ...) per view.
    """
    apart = list(views)
    sizes = [len(view) for view in views]
    together: Tensor | None = None
    for module in chain:
        if isinstance(module, nn.Linear):
            together = module(torch.cat(apart) if together is None else together)
        elif together is not None and isinstance(module, nn.ReLU):
            together = module(together)
        else:
            if together is not None:
                apart, together = list(torch.split(together, sizes)), None
            apart = module(apart) if isinstance(module, TAKE_LISTS) else [module(view) for view in apart]
    return apart if together is None else list(torch.split(together, sizes))


def build_box_head(settings: ModelSettings, norm_layer: NormLayer = nn.BatchNorm2d) -> FastRCNNConvFCHead:
    """A detector's box head on FPN: convolutions with batch norm and one fully connected layer (section 4.1)."""
    head = FastRCNNConvFCHead(
        (settings.fpn_channels, settings.pooled_size, settings.pooled_size),
        [settings.head_channels] * settings.head_convs,
        [settings.representation_size],
        norm_layer=norm_layer,
    )
    return fuse_relu(head)


class FPNEncoder(ObjectEncoder):
    """Backbone, FPN with batch norm, RoIAlign, box head with batch norm (section 4.1, SoCo-R50-FPN).

    The modules are torchvision's, under the names its detectors give them (`backbone.body`, `backbone.fpn`,
    `box_head`), so that transfer is loading a state dict.
    """

    has_pyramid = True
    has_box_head = True

    def __init__(self, settings: ModelSettings, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        body, channels = build_backbone(settings.backbone, norm_layer)
        fpn = FeaturePyramidNetwork(channels, settings.fpn_channels, norm_layer=norm_layer)
        self.backbone = nn.ModuleDict({"body": body, "fpn": fpn})
        self.pooled_size = settings.pooled_size
        self.box_head: FastRCNNConvFCHead | None = None
        self.representation_size = settings.fpn_channels
        if self.has_box_head:
            self.box_head = build_box_head(settings, norm_layer)
            self.representation_size = settings.representation_size
        self.rpn_head = build_rpn_head(settings.fpn_channels) if settings.rpn_weight > 0 else None

    def pyramid(self, pixels_b3hw: Tensor) -> list[Tensor | None]:
        """P2 to P5 of normalised pixels (B, 3, H, W): four maps of `fpn_channels` channels."""
        return pyramid_levels(self.backbone["fpn"], self.stages(pixels_b3hw), [True] * len(STAGES))

    def feature_maps(self, pixels_b3hw: Tensor) -> dict[str, Tensor]:
        """P3 to P5."""
        levels = enumerate(self.pyramid(pixels_b3hw), FINEST)
        return {f"P{level}": one for level, one in levels if one is not None and level > FINEST}

    def over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """Each box is pooled once, from its own level, and passes through the head once.

        The head's linear layer is a single matrix product for all views.
        """
        return self.of_levels(self.levels_over_views(pixels, rois), rois)

    def levels_over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[list[Tensor | None]]:
        """P2 to P5 of every view; None for those that no box needs."""
        return pyramids(self.backbone["fpn"], self.stages_over_views(pixels), [boxes.needed for boxes in rois])

    def of_levels(self, levels: Sequence[Sequence[Tensor | None]], rois: Sequence[RoIs]) -> list[Tensor]:
        """The rest of `over_views`: from pyramid levels and boxes to (B·K, representation_size) per view."""
        pooled = [pool_boxes(maps, boxes, self.pooled_size) for maps, boxes in zip(levels, rois, strict=True)]
        if self.box_head is None:
            return [features.mean(dim=(2, 3)) for features in pooled]
        return over_views(self.box_head, pooled)


class HeadlessFPNEncoder(FPNEncoder):
    """Backbone, FPN, RoIAlign; h is the mean of the pooled feature. Table 4's third row."""

    has_box_head = False


class C4Encoder(ObjectEncoder):
    """RoIAlign on C4, the whole fifth residual block as the head, averaged (section 4.1, SoCo-R50-C4).

    The paper does not give the pooled size. The public code pools 14x14, as Detectron2's C4 detector does: its residual
    network sets that size itself and ignores the recipe's `--output_size 7`.
    """

    head_is_fifth_block = True

    def __init__(self, settings: ModelSettings, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        body, self.box_head, self.representation_size = split_backbone(settings.backbone, norm_layer)
        self.backbone = nn.ModuleDict({"body": body})
        self.pooled_size = settings.pooled_size

    def over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """Every box is pooled from C4, whatever its level."""
        pooled = [
            roi_align(c4, boxes.rois, self.pooled_size, 1 / STRIDES[2])
            for (c4,), boxes in zip(self.stages_over_views(pixels), rois, strict=True)
        ]
        c5 = self.box_head(pooled) if self.side_by_side else [self.box_head(boxes) for boxes in pooled]
        return [maps.mean(dim=(2, 3))[boxes.order] for maps, boxes in zip(c5, rois, strict=True)]

    def feature_maps(self, pixels_b3hw: Tensor) -> dict[str, Tensor]:
        """C4."""
        return {"C4": self.stages(pixels_b3hw)[0]}


class C5Encoder(ObjectEncoder):
    """Boxes pooled from the backbone's last stage and averaged: Table 4's second row, no FPN, no head."""

    def __init__(self, settings: ModelSettings, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        body, channels = build_backbone(settings.backbone, norm_layer)
        self.backbone = nn.ModuleDict({"body": body})
        self.representation_size = channels[-1]
        self.pooled_size = settings.pooled_size

    def over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """Every box is pooled from C5, whatever its level."""
        h = []
        for (*_, c5), boxes in zip(self.stages_over_views(pixels), rois, strict=True):
            pooled = roi_align(c5, boxes.rois, self.pooled_size, 1 / STRIDES[3])
            h.append(pooled.mean(dim=(2, 3))[boxes.order])
        return h


class ImageEncoder(ObjectEncoder):
    """The whole image is the only box: Table 4's first row, an image-level baseline like BYOL."""

    encodes_boxes = False

    def __init__(self, settings: ModelSettings, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        body, channels = build_backbone(settings.backbone, norm_layer)
        self.backbone = nn.ModuleDict({"body": body})
        self.representation_size = channels[-1]

    def over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """C5's average over the image, (B, representation_size); the boxes, one per image, are ignored."""
        return [c5.mean(dim=(2, 3)) for *_, c5 in self.stages_over_views(pixels)]
