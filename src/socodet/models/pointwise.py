"""1×1 convolutions as matrix products, for training on a CPU.

A channels-last feature map already is a matrix of pixels and channels. oneDNN's convolution reorders the weights, and
in training their gradients, at every call; a matrix product does not.
"""

from collections.abc import Callable
from typing import Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

N = TypeVar("N", bound=nn.Module)


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 `Conv2d` that multiplies matrices on a CPU if its input is channels last."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "PointwiseConv2d":
        """One that holds the parameters of `conv`."""
        product = cls(conv.in_channels, conv.out_channels, 1, bias=conv.bias is not None, device="meta")
        product.weight, product.bias = conv.weight, conv.bias
        return product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """After `to(...)` on a CPU, the weight has the strides of a product's gradient: DDP wants them equal."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.weight.device.type == "cpu":
            self.weight.data = self.weight.data.flatten(1)[:, :, None, None]
        return self

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → (N, D, H, W)."""
        if (
            torch.compiler.is_compiling()
            or input.device.type != "cpu"
            or input.ndim != 4
            or not input.is_contiguous(memory_format=torch.channels_last)
        ):
            return super().forward(input)
        return functional.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def multiply_pointwise(network: N) -> N:
    """The network, with a `PointwiseConv2d` for every 1×1 `Conv2d` without stride, padding or groups."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Conv2d and _is_product(child):
                setattr(module, name, PointwiseConv2d.of(child))
    return network


def _is_product(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding in ((0, 0), "valid", "same")
        and conv.groups == 1
    )
