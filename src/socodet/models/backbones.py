"""Backbones without their classifier, with the names of `backbone.body` in torchvision's detectors.

Named `resnet18` to `resnet152`, torchvision's ResNets; or `timm/NAME`, such as `timm/convnext_tiny`: any network of
timm that gives feature maps at strides 4, 8, 16 and 32 for images of any size. A timm network bears the names of
`timm.create_model(NAME, features_only=True)`, whose state dict it is. Where its strided convolutions do not pad, as
ConvNeXt's, a side that 32 does not divide loses its last pixels: 112 gives 3 cells at stride 32, and a ResNet 4.
"""

import torch
import torchvision.models.resnet as resnet
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from socodet.errors import InputError
from socodet.models.backbone_names import TIMM

STAGES = ("layer1", "layer2", "layer3", "layer4")
STRIDES = (4, 8, 16, 32)
"""Of the four stages, and so of P2 to P5 (section 3.3)."""
FINEST = 2
"""P2, of the backbone's first stage."""
SINGLE_STAGE_FINEST = 3
"""P3, where the pyramids of RetinaNet and FCOS begin."""
COARSEST = FINEST + len(STAGES) - 1
"""P5, of its last."""
TRIED_SIZE = (64, 96)
"""Height and width that a timm network is tried with: small, and not the size it was designed for."""


def build_backbone(name: str) -> tuple[nn.Module, list[int]]:
    """A randomly initialised network, to be called by `stage_outputs`, and its four stages' channels.

    InputError when a timm network has no four feature maps of those strides, or takes one size of images only.
    """
    if name.startswith(TIMM):
        return _timm_backbone(name)
    network: resnet.ResNet = getattr(resnet, name)(weights=None)
    width = network.inplanes // 8
    body = IntermediateLayerGetter(network, {stage: str(level) for level, stage in enumerate(STAGES)})
    return body, [width * 2**level for level in range(len(STAGES))]


def stage_outputs(body: nn.Module, pixels_b3hw: Tensor) -> list[Tensor]:
    """The backbone's four feature maps, strides 4 to 32: list of (B, C_l, H/stride, W/stride)."""
    outputs = body(pixels_b3hw)  # torchvision's getter names them, timm's networks list them
    return list(outputs.values()) if isinstance(outputs, dict) else outputs


def split_backbone(name: str) -> tuple[nn.Module, nn.Module, int]:
    """A ResNet up to its third stage (C4), its last stage as a module of its own, and that stage's channels."""
    network: resnet.ResNet = getattr(resnet, name)(weights=None)
    body = IntermediateLayerGetter(network, {"layer3": "0"})
    return body, network.layer4, network.inplanes


def _timm_backbone(name: str) -> tuple[nn.Module, list[int]]:
    import timm

    architecture = name.removeprefix(TIMM)
    height, width = TRIED_SIZE
    try:
        strides = timm.create_model(architecture, pretrained=False, features_only=True).feature_info.reduction()
        levels = [strides.index(stride) for stride in STRIDES if stride in strides]
        body = timm.create_model(architecture, pretrained=False, features_only=True, out_indices=levels)
        with torch.no_grad():
            outputs = stage_outputs(body.eval(), torch.zeros(1, 3, height, width))
    except Exception as error:  # each network of timm has its own way to say that it cannot
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"backbone {name}: timm gives no feature maps of {height}x{width} images ({reason}); choose another"
        ) from error
    shapes = [tuple(output.shape[2:]) for output in outputs]
    if shapes != [(height // stride, width // stride) for stride in STRIDES]:
        raise InputError(
            f"backbone {name}: its feature maps have the strides {', '.join(map(str, strides))}, and "
            f"{'x'.join(map(str, TRIED_SIZE))} images give maps of {shapes}; a backbone needs channels first and "
            "strides 4, 8, 16 and 32"
        )
    return body.train(), [output.shape[1] for output in outputs]
