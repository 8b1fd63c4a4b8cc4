"""Backbones without their classifier, with the names of `backbone.body` in torchvision's detectors.

They are named `resnet18` to `resnet152` (torchvision's ResNets); or `timm/NAME`, such as `timm/convnext_tiny`, for any
timm network that gives feature maps at strides 4, 8, 16 and 32 for images of any size; or `module:name` for the user's
class or function that makes such a network: its forward turns (B, 3, H, W) into the four maps (B, C, H/4, W/4) to
(B, C, H/32, W/32), as a list or a dict. A timm network's state dict has the names of
`timm.create_model(NAME, features_only=True)`. If its strided convolutions do not pad, as in ConvNeXt, a side that 32
does not divide loses its last pixels: 112 pixels give 3 cells at stride 32, but 4 in a ResNet.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from socodet.errors import InputError
from socodet.models.backbone_names import TIMM
from socodet.models.blocks import FusedBasicBlock, FusedBottleneck, FusedStages
from socodet.models.fused_norm import FusedBatchNorm2d, Maps
from socodet.runtime.extensions import find, is_extension

NormLayer = type[nn.BatchNorm2d]
"""Batch norm of a network's convolutions: torch's, or `FusedBatchNorm2d` and blocks that make use of it."""

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Residual blocks of each stage of a ResNet, by its depth; bottlenecks from 50 layers on."""
STAGES = ("layer1", "layer2", "layer3", "layer4")
STRIDES = (4, 8, 16, 32)
"""Strides of the four stages, and so of P2 to P5 (section 3.3)."""
FINEST = 2
"""P2, from the backbone's first stage."""
SINGLE_STAGE_FINEST = 3
"""P3, where the pyramids of RetinaNet and FCOS begin."""
COARSEST = FINEST + len(STAGES) - 1
"""P5, from its last stage."""
EPSILON = 1e-5
"""What torch's batch norms, and those of all ResNets here and in transformers, add to the variance."""
TRIED_SIZE = (64, 96)
"""Height and width of the image that timm's or the user's network is tested with: small, and not its default size."""


def build_backbone(name: str, norm_layer: NormLayer = nn.BatchNorm2d) -> tuple[nn.Module, list[int]]:
    """A randomly initialised network, to be called by `stage_outputs`, and the channels of its four stages.

    timm networks and the user's keep their own norms. InputError if one lacks feature maps of the four strides, or
    accepts images of only one size.
    """
    if name.startswith(TIMM):
        return _checked_backbone(name, partial(timm_network, name.removeprefix(TIMM)))
    if is_extension(name):
        return _checked_backbone(name, find(name))
    network = _resnet(name, norm_layer)
    width = network.inplanes // 8
    body = _stages(network, {stage: str(level) for level, stage in enumerate(STAGES)}, norm_layer)
    return body, [width * 2**level for level in range(len(STAGES))]


def stage_outputs(body: nn.Module, pixels_b3hw: Maps) -> list[Any]:
    """The backbone's four feature maps, strides 4 to 32: list of (B, C_l, H/stride, W/stride).

    If `FusedStages` is given several views, each item is a list of their maps.
    """
    outputs = body(pixels_b3hw)  # torchvision's getter names them, timm's networks list them
    return list(outputs.values()) if isinstance(outputs, dict) else outputs


def split_backbone(name: str, norm_layer: NormLayer = nn.BatchNorm2d) -> tuple[nn.Module, nn.Module, int]:
    """A ResNet up to its third stage (C4), its last stage as a separate module, and that stage's channels."""
    network = _resnet(name, norm_layer)
    return _stages(network, {"layer3": "0"}, norm_layer), network.layer4, network.inplanes


def _resnet(name: str, norm_layer: NormLayer) -> ResNet:
    depth = int(name.removeprefix("resnet"))
    fused = issubclass(norm_layer, FusedBatchNorm2d)
    if depth < 50:
        block = FusedBasicBlock if fused else BasicBlock
    else:
        block = FusedBottleneck if fused else Bottleneck
    return ResNet(block, list(BLOCKS[depth]), norm_layer=norm_layer)


def resnet_depth(blocks: tuple[int, ...], *, bottleneck: bool) -> int | None:
    """Layers of the ResNet with these blocks in its stages; None if there is none."""
    return next((depth for depth, known in BLOCKS.items() if known == blocks and (depth >= 50) == bottleneck), None)


def _stages(network: ResNet, outputs: dict[str, str], norm_layer: NormLayer) -> nn.Module:
    getter = FusedStages if issubclass(norm_layer, FusedBatchNorm2d) else IntermediateLayerGetter
    return getter(network, outputs)


def timm_network(architecture: str) -> nn.Module:
    """A timm network that gives the maps of those of the four strides that it has."""
    import timm

    network: nn.Module = timm.create_model(
        architecture, pretrained=False, features_only=True, out_indices=timm_levels(architecture)
    )
    return network


def timm_levels(architecture: str) -> list[int]:
    """Which of a timm network's feature maps have the four strides."""
    import timm

    strides = timm.create_model(architecture, pretrained=False, features_only=True).feature_info.reduction()
    return [strides.index(stride) for stride in STRIDES if stride in strides]


def has_activations_in_norms(network: nn.Module) -> bool:
    """Whether it has timm's batch norms that also apply the activation."""
    from timm.layers import BatchNormAct2d

    norms = (module for module in network.modules() if isinstance(module, BatchNormAct2d))
    return any(not isinstance(norm.act, nn.Identity) for norm in norms)


def has_other_epsilons(network: nn.Module) -> bool:
    """Whether it has batch norms that do not add `EPSILON` to the variance."""
    return any(isinstance(module, nn.BatchNorm2d) and module.eps != EPSILON for module in network.modules())


def _checked_backbone(name: str, make: Callable[[], nn.Module]) -> tuple[nn.Module, list[int]]:
    """The network and the channels of its four maps. InputError if an image gives no maps of the four strides."""
    height, width = TRIED_SIZE
    try:
        body = make()
        with torch.no_grad():
            outputs = stage_outputs(body.eval(), torch.zeros(1, 3, height, width))
        shapes = [tuple(output.shape[2:]) for output in outputs]
    except Exception as error:  # networks of others raise all sorts of exceptions
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"backbone {name}: gives no feature maps of {height}x{width} images ({reason}); choose another"
        ) from error
    if shapes != [(height // stride, width // stride) for stride in STRIDES]:
        raise InputError(
            f"backbone {name}: {height}x{width} images give maps of {shapes}; a backbone needs channels first and "
            "strides 4, 8, 16 and 32"
        )
    return body.train(), [output.shape[1] for output in outputs]
