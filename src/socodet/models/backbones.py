"""Residual networks without their classifier, with the names of `backbone.body` in torchvision's detectors."""

import torchvision.models.resnet as resnet
from torchvision.models._utils import IntermediateLayerGetter

from socodet.models.settings import BackboneName

STAGES = ("layer1", "layer2", "layer3", "layer4")
STRIDES = (4, 8, 16, 32)
"""Of the four stages, and so of P2 to P5 (section 3.3)."""


def build_backbone(name: BackboneName) -> tuple[IntermediateLayerGetter, list[int]]:
    """A randomly initialised network that returns its four stages' outputs, and their channels."""
    network: resnet.ResNet = getattr(resnet, name)(weights=None)
    width = network.inplanes // 8
    body = IntermediateLayerGetter(network, {stage: str(level) for level, stage in enumerate(STAGES)})
    return body, [width * 2**level for level in range(len(STAGES))]


def split_backbone(name: BackboneName) -> tuple[IntermediateLayerGetter, resnet.nn.Module, int]:
    """The network up to its third stage (C4), its last stage as a module of its own, and that stage's channels."""
    network: resnet.ResNet = getattr(resnet, name)(weights=None)
    body = IntermediateLayerGetter(network, {"layer3": "0"})
    return body, network.layer4, network.inplanes
