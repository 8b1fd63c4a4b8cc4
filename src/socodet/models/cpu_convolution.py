"""3 × 3 convolutions of small maps whose weight gradients in bfloat16 on a CPU are faster than torch's.

oneDNN's kernel for them sums along a row of the map, 32 values at a time: on maps of 7 × 7 it has a quarter of the
forward pass's rate, on 4 × 4 a fifth. `benchmarks/cpu_convolution.py` measures the gain.

And strided 1 × 1 convolutions with few input channels, for whose weight gradients oneDNN writes outside its memory.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDEST = 8
"""Maps up to this wide are laid side by side; wider ones gain nothing."""
ROW = 64
"""Approximate width of the maps laid side by side."""


class CPUConv2d(nn.Conv2d):
    """`nn.Conv2d` with faster weight gradients under bfloat16 autocast on a CPU, where possible."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → (N, D, H', W')."""
        if (
            torch.compiler.is_compiling()
            or not (input.device.type == "cpu" and input.ndim == 4 and len(input))
            or not (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16)
            or not (torch.is_grad_enabled() and self.weight.requires_grad)
            or input.shape[3] > WIDEST
        ):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.bfloat16()
        output: Tensor = _Convolve.apply(input.bfloat16(), self.weight.bfloat16(), bias)
        return output


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.bias = None if bias is None else list(bias.shape)
        return torch.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, _, dbias = _gradients(dy, x, weight, ctx.bias, [ctx.needs_input_grad[0], False, bool(ctx.bias)])
        # the sum over several images' maps in one wide map is the same if zeros separate them
        _, dweight, _ = _gradients(_wide(dy), _wide(x), weight, None, [False, True, False])
        return dx, dweight, dbias


def _gradients(
    dy: Tensor, x: Tensor, weight: Tensor, bias: list[int] | None, which: list[bool]
) -> tuple[Tensor | None, ...]:
    """Torch's own gradients of x, weight and bias, as far as they are requested."""
    answer: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        dy, x, weight, bias, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, which
    )
    return answer


def _wide(maps: Tensor) -> Tensor:
    """(N, C, H, W) → (N / g, C, H, g·(W + 1)), channels last; a column of zeros follows each image."""
    count, channels, height, width = maps.shape
    group = min(count, max(1, ROW // (width + 1)))
    rows = -(-count // group)
    wide = maps.new_zeros(rows, height, group, width + 1, channels)
    images = maps.permute(0, 2, 3, 1)
    whole = count // group
    wide[:whole, :, :, :width] = images[: whole * group].view(whole, group, height, width, channels).transpose(1, 2)
    if whole < rows:
        wide[whole, :, : count - whole * group, :width] = images[whole * group :].transpose(0, 1)
    return wide.view(rows, height, group * (width + 1), channels).permute(0, 3, 1, 2)


BLOCK = 16
"""The input channels oneDNN takes at a time with AVX-512; 8 with AVX2."""


class StridedPointwise(nn.Conv2d):
    """A strided 1 × 1 convolution, computed as one without stride on every s-th pixel: the same sums.

    oneDNN gathers these pixels itself before it computes the weights' gradients of a channels-last map. With fewer
    input channels than `BLOCK`, it writes past the memory it gathers them in, so that with two or more threads the
    process crashes: https://github.com/uxlfoundation/oneDNN/issues/6035. The stems of MobileOne, RepVGG and FastViT
    have such a convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → (N, D, H', W')."""
        rows, columns = self.stride
        return torch.conv2d(input[..., ::rows, ::columns], self.weight, self.bias)


def keep_strided_pointwise_in_memory(network: nn.Module) -> None:
    """Replaces the convolutions of a network that need `StridedPointwise`; they keep their names and parameters."""
    for name, module in list(network.named_modules()):
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.padding == (0, 0)
            and module.groups == 1
            and module.in_channels < BLOCK
        ):
            _replace(network, name, module, StridedPointwise)


def speed_up_weight_gradients(network: nn.Module) -> None:
    """Replaces the convolutions of a network that `CPUConv2d` can speed up; they keep their names and parameters."""
    for name, module in list(network.named_modules()):
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (3, 3)
            and module.padding == module.stride == module.dilation == (1, 1)
            and module.groups == 1
            and module.padding_mode == "zeros"
        ):
            _replace(network, name, module, CPUConv2d)


def _replace(network: nn.Module, name: str, module: nn.Conv2d, by: type[nn.Conv2d]) -> None:
    """Replaces a convolution by one with the same parameters and settings."""
    other = by(1, 1, 1, device="meta")
    other.__dict__.update(module.__dict__)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, other)
