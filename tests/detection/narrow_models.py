"""Networks as small as possible, for tests of the code around them."""

import re
from functools import partial

import pytest
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from socodet.models import backbones
from socodet.models.settings import ModelSettings

NARROW = ModelSettings(
    backbone="resnet18",
    fpn_channels=16,
    head_convs=1,
    head_channels=16,
    representation_size=24,
    hidden_size=8,
    embedding_size=4,
)
"""What the networks are made of."""


class EighthResNet(ResNet):
    """torchvision's ResNets with an eighth of their channels: 0.2 million parameters where ResNet-18 has 11 million.

    Names and layers are the same. `NARROWED` says what it replaces.
    """

    @property
    def inplanes(self) -> int:
        return self._inplanes

    @inplanes.setter
    def inplanes(self, channels: int) -> None:
        stem = not hasattr(self, "_inplanes")  # torchvision hard-codes its 64 channels
        self._inplanes = channels // 8 if stem else channels

    def _make_layer(self, block, planes, *args, **options):
        return super()._make_layer(block, planes // 8, *args, **options)


def narrow_resnet18() -> EighthResNet:
    """`torchvision.models.resnet18`, as narrow as under the fixture `narrow_networks`."""
    return EighthResNet(BasicBlock, [2, 2, 2, 2])


timm_network = backbones.timm_network


def narrow_timm_network(architecture: str) -> nn.Module:
    """timm's network; a ResNet-d gets an eighth of its channels."""
    import timm

    with pytest.MonkeyPatch.context() as patch:
        if re.fullmatch(r"resnet\d+d", architecture):
            narrow = partial(timm.create_model, stem_width=4, channels=(8, 16, 32, 64))
            patch.setattr(timm, "create_model", narrow)
        return timm_network(architecture)


NARROWED = {
    "socodet.models.backbones.timm_network": narrow_timm_network,
    "socodet.models.rt_detr.STEM_CHANNELS": 8,
    "socodet.models.backbones.ResNet": EighthResNet,
    "socodet.detection.detectors.rcnn_fpn.MASK_CHANNELS": 16,
    "socodet.detection.detectors.rcnn_c4.MASK_CHANNELS": 16,
}
"""What the fixture `narrow_networks` replaces, and by what."""
