"""Batch norm in torch's operations, split where processes exchange sums: for any device, type, layout and shape.

The functions of `norm_kernels_cuda` without residual and ReLU. Values are computed in float32, or float64 for float64
maps. Shapes: x (N, C, ...), which may be empty.
"""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))  # sums in half precision would overflow


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 2))


def _others(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]


def sums(x: Tensor, out: Tensor) -> None:
    """Writes each channel's sum and sum of squares, and the count, to out (2 C + 1,) float64, to add over processes."""
    channels = x.shape[1]
    if not x.numel():
        out.zero_()
        return
    variance, mean = torch.var_mean(_exact(x), _others(x), correction=0)
    count = x.numel() // channels
    mean = mean.double()
    out[:channels] = count * mean
    out[channels:-1] = count * (variance.double() + mean.square())
    out[-1] = count


def shared_coefficients(sums: Tensor, x: Tensor, norm: _BatchNorm) -> Tensor:
    """(5, C) from sums over all processes: mean, 1/σ, a and b of a·x + b, and x's share of the values.

    Updates the norm's running statistics, unless no process has a value, as torch's own norm does.
    """
    there, count = sums[-1] > 0, sums[-1].clamp_min(1)
    mean, square = (sums[:-1] / count).chunk(2)
    variance = (square - mean.square()).clamp_min(0)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        unbiased = variance * (count / (count - 1).clamp_min(1))
        for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            running.lerp_(torch.where(there, now.to(running.dtype), running), momentum)
    inverse = (variance + norm.eps).rsqrt()
    scale = inverse * norm.weight
    offset = norm.bias - mean * scale
    share = (x.numel() // x.shape[1] / count).expand_as(mean)
    return torch.stack([mean, inverse, scale, offset, share]).to(torch.promote_types(norm.weight.dtype, torch.float32))


def apply(x: Tensor, residual: None, coefficients: Tensor, *, relu: bool) -> Tensor:
    """a·x + b."""
    _, _, scale, offset, _ = coefficients
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
    mean, inverse, *_ = coefficients
    return (_exact(x) - _per_channel(mean, x)) * _per_channel(inverse, x)
