"""Batch norm in torch's operations, split where processes exchange sums: for any device, type, layout and shape.

The functions of `norm_kernels_cuda` without residual and ReLU. Values are computed in float32, or float64 for float64
maps. Shapes: x (N, C, ...), which may be empty.
"""

import torch
from torch import Tensor


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))  # sums in half precision would overflow


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 2))


def _others(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]


def sums(x: Tensor) -> Tensor:
    """Sum and sum of squares of each channel and their count, (2 C + 1,) float64, to be added over processes."""
    channels = x.shape[1]
    total = x.new_zeros(2 * channels + 1, dtype=torch.float64)
    if x.numel():
        variance, mean = torch.var_mean(_exact(x), _others(x), correction=0)
        count = x.numel() // channels
        mean = mean.double()
        total[:channels] = count * mean
        total[channels:-1] = count * (variance.double() + mean.square())
        total[-1] = count
    return total


def apply(x: Tensor, residual: None, coefficients: Tensor, *, relu: bool) -> Tensor:
    """a·x + b."""
    _, _, scale, offset = coefficients
    return (_exact(x) * _per_channel(scale, x) + _per_channel(offset, x)).to(x.dtype)


def gradient_sums(dy: Tensor, x: Tensor, y: None, coefficients: Tensor, *, relu: bool) -> tuple[Tensor, Tensor]:
    """Gradient dy, and the sums of dy and of dy·x̂ of each channel, (2, C)."""
    gradient = _exact(dy)
    return dy, torch.stack([gradient.sum(_others(x)), (gradient * _normalized(x, coefficients)).sum(_others(x))])


def input_gradient(dz: Tensor, x: Tensor, coefficients: Tensor, sums: Tensor, *, mask: bool) -> Tensor:
    """Gradient of x. sums: of dz and of dz·x̂, (2, C), over the values of x."""
    mean_dz, mean_moment = sums / max(1, x.numel() // x.shape[1])
    constant = _exact(dz) - _per_channel(mean_dz, x)
    dx = constant - _normalized(x, coefficients) * _per_channel(mean_moment, x)
    return (dx * _per_channel(coefficients[2], x)).to(x.dtype)


def _normalized(x: Tensor, coefficients: Tensor) -> Tensor:
    mean, inverse, _, _ = coefficients
    return (_exact(x) - _per_channel(mean, x)) * _per_channel(inverse, x)
