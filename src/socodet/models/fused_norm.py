"""Batch norm fused with the residual sum and ReLU that follow it, on one process or over all of them.

`FusedBatchNorm2d` is `nn.BatchNorm2d` with the same parameters and buffers. In training on CUDA, `norm_kernels_cuda`
compute it where they take its input; elsewhere torch's operations do.
"""

import warnings
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from socodet.models import norm_operations

TYPES = {"cuda": (torch.bfloat16, torch.float16, torch.float32)}
"""Input types of each device's kernels."""


class NormAddReLU(torch.autograd.Function):
    """relu(norm(x) + residual) with its gradients, by the functions of a module of kernels or `norm_operations`.

    Over several processes, one exchange forward and one backward: (Σx, Σx², count), and (Σdz, Σdz·x̂), each in float64.
    Gradients of weight and bias are those of this process's values.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        norm: "FusedBatchNorm2d | SyncedBatchNorm",
        relu: bool,
        kernels: ModuleType,
    ) -> Tensor:
        """Weight and bias are the norm's own: arguments so that they get gradients."""
        count = None
        if norm.synchronized:
            sums = kernels.sums(x)
            dist.all_reduce(sums)
            coefficients, count = _coefficients(sums, norm)
        else:
            coefficients = kernels.coefficients(x, norm)
        y: Tensor = kernels.apply(x, residual, coefficients, relu=relu)
        ctx.save_for_backward(x, None if residual is None else y, coefficients, count)
        ctx.relu, ctx.kernels = relu, kernels
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x, weight, bias and the residual."""
        x, y, coefficients, count = ctx.saved_tensors
        if ctx.kernels is not norm_operations:
            dy = dy.contiguous(memory_format=torch.channels_last)
        dz, sums = ctx.kernels.gradient_sums(dy, x, y, coefficients, relu=ctx.relu)
        bias, weight = sums.to(coefficients.dtype)
        if count is not None:
            sums = sums.to(torch.float64, copy=True)
            dist.all_reduce(sums)
            rows = x.numel() // x.shape[1]
            sums = (sums * (rows / count)).to(coefficients.dtype)  # this process's share of the rows
        dx = ctx.kernels.input_gradient(dz, x, coefficients, sums, mask=ctx.relu and y is None)
        return dx, weight, bias, None if y is None else dz, None, None, None


def _coefficients(sums: Tensor, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Mean, 1/σ, and a and b of a·x + b, (4, C), and the count, from (Σx, Σx², count); updates running statistics."""
    (mean, square), count = (sums[:-1] / sums[-1]).chunk(2), sums[-1]
    variance = (square - mean.square()).clamp_min(0)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        unbiased = variance * (count / (count - 1).clamp_min(1))
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)
    inverse = (variance + norm.eps).rsqrt()
    scale = inverse * norm.weight
    offset = norm.bias - mean * scale
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    return torch.stack([mean, inverse, scale, offset]).to(dtype), count


class FusedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that can also add a residual and apply ReLU, in the same pass over memory where kernels can.

    With `synchronized`, statistics in training are those of all processes; set by `synchronize_batch_norm`.
    """

    synchronized = False

    def forward(self, input: Tensor, residual: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """relu(norm(input) + residual); the residual and ReLU only if given. Shapes: all (N, C, H, W)."""
        kernels = self._kernels(input, residual)
        if kernels is not None:
            return _normalize(input, self, residual, relu, kernels)
        if self.synchronized and self.training:
            self._check_input_dim(input)
            y = _normalize(input, self, None, False, norm_operations)
        else:
            y = super().forward(input)
        if residual is not None:
            y += residual
        return torch.relu_(y) if relu else y

    def _kernels(self, x: Tensor, residual: Tensor | None) -> ModuleType | None:
        """The kernels of the input's device, if they take this input in this mode."""
        if torch.compiler.is_compiling() or not (
            self.training
            and x.ndim == 4
            and self.momentum is not None
            and self.weight is not None
            and self.running_mean is not None
            and self.running_var is not None
            and all(
                p.dtype is torch.float32 and len(p) == x.shape[1]
                for p in (self.weight, self.bias, self.running_mean, self.running_var)
            )
            and x.numel() > x.shape[1]  # torch's error for one value per channel is clear
            and all(
                map_.dtype is x.dtype
                and map_.shape == x.shape
                and map_.is_contiguous(memory_format=torch.channels_last)
                for map_ in (x, x if residual is None else residual)
            )
        ):
            return None
        return kernels_of(x.device, x.dtype)


class SyncedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, of any shape and on any device.

    torch's SyncBatchNorm is faster but takes CUDA tensors only. Parameters and buffers are those of BatchNorm.
    """

    synchronized = True

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) → the same shape; in training normalised over N and the rest, of all processes together."""
        if not self.training:
            return super().forward(input)
        return _normalize(input, self, None, False, norm_operations)


def _normalize(
    x: Tensor, norm: FusedBatchNorm2d | SyncedBatchNorm, residual: Tensor | None, relu: bool, kernels: ModuleType
) -> Tensor:
    y: Tensor = NormAddReLU.apply(x, norm.weight, norm.bias, residual, norm, relu, kernels)
    return y


@cache
def kernels_of(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The module of kernels that take inputs of this type on this device.

    None, with a warning, where they cannot be built: Triton, which comes with torch's CUDA builds, needs a C compiler.
    """
    if dtype not in TYPES.get(device.type, ()):
        return None
    try:
        kernels = import_module(f"socodet.models.norm_kernels_{device.type}")
        _try(kernels, device, dtype)
    except Exception as error:  # Triton's own exceptions, a missing compiler, an unknown card
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"batch norm is not fused, steps are slower: {type(error).__name__}: {reason}", stacklevel=2)
        return None
    return kernels


@torch.no_grad()
def _try(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> None:
    x = torch.ones(2, 16, 2, 2, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    coefficients = kernels.coefficients(x, nn.BatchNorm2d(16, device=device))
    y = kernels.apply(x, x, coefficients, relu=True)
    dz, sums = kernels.gradient_sums(y, x, y, coefficients, relu=True)
    kernels.input_gradient(dz, x, coefficients, sums, mask=False)
