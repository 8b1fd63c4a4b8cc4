"""Object encoders: an image and boxes in, one vector a box out (Eq. 1), made of the detector's own modules.

`FPNEncoder` and `C4Encoder` are the paper's two; `C5Encoder`, `FPNEncoder` without its head and `ImageEncoder` are
rows of Table 4.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.ops import FeaturePyramidNetwork, roi_align

from socodet.models.backbones import STAGES, STRIDES, build_backbone, split_backbone, stage_outputs
from socodet.models.pyramid import pool_boxes, pyramid_levels
from socodet.models.settings import ModelSettings
from socodet.views.batch import RoIs


class ObjectEncoder(nn.Module, ABC):
    """Maps an image and its boxes to one vector a box: h = f^H(RoIAlign(f^I(V), b)) (Eq. 1)."""

    representation_size: int
    """Length of h."""
    backbone: nn.ModuleDict
    """Its `body`, and the `fpn` where there is one."""

    @abstractmethod
    def forward(self, pixels_b3hw: Tensor, rois: RoIs) -> Tensor:
        """Normalised pixels (B, 3, H, W) → (B·K, representation_size), in (image, box) order."""

    def over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """`forward` of every view; what treats each box alone may see all views at once."""
        return [self(p, r) for p, r in zip(pixels, rois, strict=True)]


def over_views(chain: Iterable[nn.Module], views: Sequence[Tensor]) -> list[Tensor]:
    """Every view through a chain of modules, linear layers and the ReLU after them once for all views.

    Their weights are read, and the gradient written, once and not once a view. Batch norm and the rest see the views
    one after another, so that each is normalised by its own statistics. Shapes: (N_v, ...) → (N_v, ...) a view.
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
            apart = [module(view) for view in apart]
    return apart if together is None else list(torch.split(together, sizes))


class FPNEncoder(ObjectEncoder):
    """Backbone, FPN with batch norm, RoIAlign, box head with batch norm (section 4.1, SoCo-R50-FPN).

    The modules are torchvision's, under the names its detectors give them (`backbone.body`, `backbone.fpn`,
    `box_head`), so that transfer is loading a state dict. Without a head, h is the pooled feature's average.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        body, channels = build_backbone(settings.backbone)
        fpn = FeaturePyramidNetwork(channels, settings.fpn_channels, norm_layer=nn.BatchNorm2d)
        self.backbone = nn.ModuleDict({"body": body, "fpn": fpn})
        self.pooled_size = settings.pooled_size
        self.box_head: FastRCNNConvFCHead | None = None
        self.representation_size = settings.fpn_channels
        if settings.architecture == "fpn":
            self.box_head = FastRCNNConvFCHead(
                (settings.fpn_channels, settings.pooled_size, settings.pooled_size),
                [settings.head_channels] * settings.head_convs,
                [settings.representation_size],
                norm_layer=nn.BatchNorm2d,
            )
            self.representation_size = settings.representation_size

    def stages(self, pixels_b3hw: Tensor) -> list[Tensor]:
        """The backbone's four feature maps, strides 4 to 32: list of (B, C_l, H/stride, W/stride)."""
        return stage_outputs(self.backbone["body"], pixels_b3hw)

    def pyramid(self, pixels_b3hw: Tensor) -> list[Tensor | None]:
        """P2 to P5 of normalised pixels (B, 3, H, W): four maps of `fpn_channels` channels."""
        return pyramid_levels(self.backbone["fpn"], self.stages(pixels_b3hw), [True] * len(STAGES))

    def forward(self, pixels_b3hw: Tensor, rois: RoIs) -> Tensor:
        """Each box is pooled once, from its own level, and passes the head once."""
        return self.over_views([pixels_b3hw], [rois])[0]

    def over_views(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """The same of every view, with one product of the head's linear layer for all."""
        pooled = []
        for view, boxes in zip(pixels, rois, strict=True):
            levels = pyramid_levels(self.backbone["fpn"], self.stages(view), boxes.needed)
            pooled.append(pool_boxes(levels, boxes, self.pooled_size))
        if self.box_head is None:
            return [features.mean(dim=(2, 3)) for features in pooled]
        return over_views(self.box_head, pooled)


class C4Encoder(ObjectEncoder):
    """RoIAlign on C4, the whole fifth residual block as the head, averaged (section 4.1, SoCo-R50-C4).

    The paper does not give the pooled size. Its public code pools 14x14, as Detectron2's C4 detector does: the residual
    network sets that size itself, and the recipe's `--output_size 7` is read nowhere on the way.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        body, self.box_head, self.representation_size = split_backbone(settings.backbone)
        self.backbone = nn.ModuleDict({"body": body})
        self.pooled_size = settings.pooled_size

    def forward(self, pixels_b3hw: Tensor, rois: RoIs) -> Tensor:
        """Levels play no part: every box is pooled from C4."""
        (c4,) = stage_outputs(self.backbone["body"], pixels_b3hw)
        pooled = roi_align(c4, rois.rois, self.pooled_size, 1 / STRIDES[2], sampling_ratio=0, aligned=True)
        h: Tensor = self.box_head(pooled).mean(dim=(2, 3))[rois.order]
        return h


class C5Encoder(ObjectEncoder):
    """Boxes pooled from the backbone's last stage and averaged: Table 4's second row, no FPN, no head."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        body, channels = build_backbone(settings.backbone)
        self.backbone = nn.ModuleDict({"body": body})
        self.representation_size = channels[-1]
        self.pooled_size = settings.pooled_size

    def forward(self, pixels_b3hw: Tensor, rois: RoIs) -> Tensor:
        """Levels play no part: every box is pooled from C5."""
        c5 = stage_outputs(self.backbone["body"], pixels_b3hw)[-1]
        pooled = roi_align(c5, rois.rois, self.pooled_size, 1 / STRIDES[3], sampling_ratio=0, aligned=True)
        h: Tensor = pooled.mean(dim=(2, 3))[rois.order]
        return h


class ImageEncoder(ObjectEncoder):
    """The whole image is the one box: Table 4's first row, the image-level baseline in the manner of BYOL."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        body, channels = build_backbone(settings.backbone)
        self.backbone = nn.ModuleDict({"body": body})
        self.representation_size = channels[-1]

    def forward(self, pixels_b3hw: Tensor, rois: RoIs) -> Tensor:
        """C5's average over the image, (B, representation_size); the boxes, one an image, are not looked at."""
        h: Tensor = stage_outputs(self.backbone["body"], pixels_b3hw)[-1].mean(dim=(2, 3))
        return h


def build_encoder(settings: ModelSettings) -> ObjectEncoder:
    """The encoder of that architecture, randomly initialised."""
    kinds: dict[str, type[ObjectEncoder]] = {
        "fpn": FPNEncoder,
        "fpn_no_head": FPNEncoder,
        "c4": C4Encoder,
        "c5": C5Encoder,
        "image": ImageEncoder,
    }
    return kinds[settings.architecture](settings)  # type: ignore[call-arg]
