"""torchvision's residual blocks and convolution blocks, with ReLU and the residual sum given to a fused batch norm.

They take a feature map, or a list of one per view, which go through the layers side by side: synchronised norms then
exchange the statistics of all views at once.
"""

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import Conv2dNormActivation

from socodet.models.fused_norm import FusedBatchNorm2d, Maps, normalize_together

H = TypeVar("H", bound=nn.Sequential)


def apply_each(module: nn.Module, maps: Maps) -> Maps:
    """The module's output for a map, or for each of a list."""
    return [module(one) for one in maps] if isinstance(maps, list) else module(maps)


def convolve_together(blocks: Sequence[nn.Sequential], maps: Sequence[Tensor]) -> list[Tensor]:
    """Each map through its block, a convolution and batch norm; synchronised norms make one exchange for all."""
    norm = blocks[0][-1]
    if isinstance(norm, FusedBatchNorm2d) and norm.synchronized:
        convolved = [block[0](x) for block, x in zip(blocks, maps, strict=True)]
        return normalize_together([block[-1] for block in blocks], convolved)  # type: ignore[misc]
    return [block(x) for block, x in zip(blocks, maps, strict=True)]


def _shortcut(block: BasicBlock | Bottleneck, x: Maps) -> Maps:
    if block.downsample is None:
        return x
    convolution, norm = block.downsample
    shortcut: Maps = norm(apply_each(convolution, x))
    return shortcut


class FusedBasicBlock(BasicBlock):  # type: ignore[misc]
    """torchvision's block of ResNet-18 and 34; its norms are `FusedBatchNorm2d`."""

    def forward(self, x: Maps) -> Maps:
        """(N, C, H, W) → (N, D, H/stride, W/stride)."""
        out = self.bn1(apply_each(self.conv1, x), relu=True)
        result: Maps = self.bn2(apply_each(self.conv2, out), residual=_shortcut(self, x), relu=True)
        return result


class FusedBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's block of ResNet-50 and larger; its norms are `FusedBatchNorm2d`."""

    def forward(self, x: Maps) -> Maps:
        """(N, C, H, W) → (N, D, H/stride, W/stride)."""
        out = self.bn1(apply_each(self.conv1, x), relu=True)
        out = self.bn2(apply_each(self.conv2, out), relu=True)
        result: Maps = self.bn3(apply_each(self.conv3, out), residual=_shortcut(self, x), relu=True)
        return result


class FusedStages(IntermediateLayerGetter):  # type: ignore[misc]
    """The stem and stages of a ResNet whose norms are `FusedBatchNorm2d`, under torchvision's names."""

    @property
    def synchronized(self) -> bool:
        """Whether its norms exchange statistics with other processes."""
        return bool(self["bn1"].synchronized)

    def forward(self, x: Maps) -> dict[str, Maps]:
        """(N, 3, H, W) → the outputs of the stages in `return_layers`."""
        out = apply_each(self["maxpool"], self["bn1"](apply_each(self["conv1"], x), relu=True))
        outputs = {}
        for name, stage in self.items():
            if name.startswith("layer"):
                out = stage(out)
                if name in self.return_layers:
                    outputs[self.return_layers[name]] = out
        return outputs


class ConvNormReLU(nn.Sequential):
    """A convolution and a `FusedBatchNorm2d` that applies ReLU."""

    def forward(self, x: Maps) -> Maps:
        """(N, C, H, W) → (N, D, H, W)."""
        convolution, norm = self
        out: Maps = norm(apply_each(convolution, x), relu=True)
        return out


def fuse_relu(head: H) -> H:
    """The head with each of torchvision's blocks that has a fused norm as a `ConvNormReLU` of the same names."""
    for index, block in enumerate(head):
        if isinstance(block, Conv2dNormActivation) and isinstance(block[1], FusedBatchNorm2d):
            head[index] = ConvNormReLU(block[0], block[1])
    return head
