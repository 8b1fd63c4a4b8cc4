"""torchvision's residual blocks and convolution blocks, with ReLU and the residual sum given to a fused batch norm."""

from typing import TypeVar

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import Conv2dNormActivation

H = TypeVar("H", bound=nn.Sequential)


def _shortcut(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    shortcut: Tensor = x if block.downsample is None else block.downsample(x)
    return shortcut


class FusedBasicBlock(BasicBlock):  # type: ignore[misc]
    """torchvision's block of ResNet-18 and 34; its norms are `FusedBatchNorm2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, D, H/stride, W/stride)."""
        out = self.bn1(self.conv1(x), relu=True)
        result: Tensor = self.bn2(self.conv2(out), residual=_shortcut(self, x), relu=True)
        return result


class FusedBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's block of ResNet-50 and larger; its norms are `FusedBatchNorm2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, D, H/stride, W/stride)."""
        out = self.bn1(self.conv1(x), relu=True)
        out = self.bn2(self.conv2(out), relu=True)
        result: Tensor = self.bn3(self.conv3(out), residual=_shortcut(self, x), relu=True)
        return result


class FusedStages(IntermediateLayerGetter):  # type: ignore[misc]
    """The stem and stages of a ResNet whose norms are `FusedBatchNorm2d`, under torchvision's names."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) → the outputs of the stages in `return_layers`."""
        out = self["maxpool"](self["bn1"](self["conv1"](x), relu=True))
        outputs = {}
        for name, stage in self.items():
            if name.startswith("layer"):
                out = stage(out)
                if name in self.return_layers:
                    outputs[self.return_layers[name]] = out
        return outputs


class ConvNormReLU(nn.Sequential):
    """A convolution and a `FusedBatchNorm2d` that applies ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, D, H, W)."""
        convolution, norm = self
        out: Tensor = norm(convolution(x), relu=True)
        return out


def fuse_relu(head: H) -> H:
    """The head, with a `ConvNormReLU` of the same names instead of each of torchvision's blocks."""
    for index, block in enumerate(head):
        if isinstance(block, Conv2dNormActivation):
            head[index] = ConvNormReLU(block[0], block[1])
    return head
