"""Batch norm fused with the residual sum and ReLU that follow it, on one process or over several.

`FusedBatchNorm2d` has the parameters and buffers of `nn.BatchNorm2d`. In training on CUDA it runs `norm_kernels_cuda`
if they support its input; otherwise, torch's operations.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from socodet.models import norm_operations

Maps = Tensor | list[Tensor]
"""A feature map, or one per view."""
TYPES = {"cuda": (torch.bfloat16, torch.float16, torch.float32)}
"""Input types of each device's kernels."""


class NormAddReLU(torch.autograd.Function):
    """relu(norm(x) + residual) of some maps and their gradients, by a module of kernels or `norm_operations`.

    Synchronised norms make one exchange forward, of (Σx, Σx², count) of every map in float64, and one backward, of
    (Σdz, Σdz·x̂). Gradients of weight and bias are those of this process's values.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        norms: "Sequence[FusedBatchNorm2d]",
        kernels: ModuleType,
        relu: bool,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """tensors: x, its norm's weight and bias, and the residual of each map in turn (`arguments`)."""
        maps: Any = tensors[::4]
        residuals = tensors[3::4]
        if norms[0].synchronized:
            coefficients = _shared_coefficients(maps, norms, kernels)
        else:
            coefficients = [kernels.coefficients(x, norm) for x, norm in zip(maps, norms, strict=True)]
        calls = list(zip(maps, residuals, coefficients, strict=True))
        outputs = tuple(kernels.apply(x, residual, values, relu=relu) for x, residual, values in calls)
        kept = [None if residual is None else y for y, residual in zip(outputs, residuals, strict=True)]
        ctx.save_for_backward(*maps, *kept, *coefficients)
        ctx.relu, ctx.kernels, ctx.synchronized, ctx.group = relu, kernels, norms[0].synchronized, norms[0].group
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x, weight, bias and the residual of each map."""
        count, saved = len(output_gradients), ctx.saved_tensors
        maps, outputs, coefficients = saved[:count], saved[count : 2 * count], saved[2 * count :]
        dzs, sums = [], []
        for dy, x, y, values in zip(output_gradients, maps, outputs, coefficients, strict=True):
            if ctx.kernels is not norm_operations:
                dy = dy.contiguous(memory_format=torch.channels_last)
            dz, of_map = ctx.kernels.gradient_sums(dy, x, y, values, relu=ctx.relu)
            dzs.append(dz)
            sums.append(of_map.to(values.dtype))
        totals = _shared_gradient_sums(sums, coefficients, ctx.group) if ctx.synchronized else sums
        gradients: list[Tensor | None] = []
        for x, y, values, dz, (bias, weight), total in zip(maps, outputs, coefficients, dzs, sums, totals, strict=True):
            dx = ctx.kernels.input_gradient(dz, x, values, total, mask=ctx.relu and y is None)
            gradients += [dx, weight, bias, None if y is None else dz]
        return None, None, None, *gradients


def arguments(
    norms: "Sequence[FusedBatchNorm2d]", maps: Sequence[Tensor], residuals: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The tensors of `NormAddReLU`; weight and bias are among them so that they get gradients."""
    return [
        tensor
        for norm, x, residual in zip(norms, maps, residuals, strict=True)
        for tensor in (x, norm.weight, norm.bias, residual)
    ]


def _shared_coefficients(maps: Sequence[Tensor], norms: Sequence[Any], kernels: ModuleType) -> list[Tensor]:
    """(5, C) per map, over all processes: mean, 1/σ, a and b of a·x + b, and this process's share of the values."""
    sizes = [2 * x.shape[1] + 1 for x in maps]
    exchanged = torch.empty(sum(sizes), dtype=torch.float64, device=maps[0].device)
    parts = torch.split(exchanged, sizes)
    for x, part in zip(maps, parts, strict=True):
        kernels.sums(x, part)
    dist.all_reduce(exchanged, group=norms[0].group)
    return [kernels.shared_coefficients(part, x, norm) for part, x, norm in zip(parts, maps, norms, strict=True)]


def _shared_gradient_sums(
    sums: Sequence[Tensor], coefficients: Sequence[Tensor], group: dist.ProcessGroup | None
) -> list[Tensor]:
    """The share of each of the sums over all processes that falls to this one, by its number of values."""
    exchanged = torch.cat([of_map.flatten() for of_map in sums])
    dist.all_reduce(exchanged, group=group)
    parts = torch.split(exchanged, [of_map.numel() for of_map in sums])
    return [part.view_as(own) * values[4] for part, own, values in zip(parts, sums, coefficients, strict=True)]


class FusedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that can also add a residual and apply ReLU, in the same pass over memory where kernels can.

    With `synchronized`, statistics in training are over all processes of `group`, or over all processes if it is None;
    `synchronize_batch_norm` sets both.
    """

    synchronized = False
    group: dist.ProcessGroup | None = None

    def forward(  # type: ignore[override]
        self, input: Maps, residual: Maps | None = None, *, relu: bool = False
    ) -> Maps:
        """relu(norm(input) + residual); the residual and ReLU only if given. Shapes: all (N, C, H, W).

        Each of a list of maps is normalised by its own statistics; synchronised, these are exchanged together.
        """
        if isinstance(input, list):
            return normalize_together([self] * len(input), input, residual, relu=relu)  # type: ignore[arg-type]
        if self.synchronized and self.training:
            return _normalize_synchronized([self], [input], [residual], relu=relu)[0]  # type: ignore[list-item]
        kernels = self.kernels(input, residual)  # type: ignore[arg-type]
        if kernels is not None:
            (y,) = NormAddReLU.apply([self], kernels, relu, input, self.weight, self.bias, residual)
            return y  # type: ignore[no-any-return]
        return _add_relu(super().forward(input), residual, relu=relu)  # type: ignore[arg-type]

    def kernels(self, x: Tensor, residual: Tensor | None) -> ModuleType | None:
        """The kernels of the input's device, if they take this input in training."""
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


class SyncedBatchNorm(FusedBatchNorm2d):
    """Batch norm over the batches of several processes, of any shape and on any device.

    Unlike torch's SyncBatchNorm, it runs on CPUs too, never waits for the device, and exchanges the statistics of
    several inputs at once. Parameters and buffers are those of BatchNorm.
    """

    synchronized = True

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def normalize_together(
    norms: Sequence[FusedBatchNorm2d],
    maps: Sequence[Tensor],
    residuals: Sequence[Tensor] | None = None,
    *,
    relu: bool = False,
) -> list[Tensor]:
    """relu(norm(x) + residual) of maps that do not depend on each other, each with its norm.

    Norms that are synchronised in training make one exchange for all; their forward hooks are then not called.
    """
    if norms[0].synchronized and norms[0].training:
        return _normalize_synchronized(norms, maps, residuals or [None] * len(maps), relu=relu)
    if residuals is None:
        return [norm(x, relu=relu) if relu else norm(x) for norm, x in zip(norms, maps, strict=True)]
    return [norm(x, residual, relu=relu) for norm, x, residual in zip(norms, maps, residuals, strict=True)]


def _normalize_synchronized(
    norms: Sequence[FusedBatchNorm2d],
    maps: Sequence[Tensor],
    residuals: Sequence[Tensor | None],
    *,
    relu: bool,
) -> list[Tensor]:
    found = set()
    for norm, x, residual in zip(norms, maps, residuals, strict=True):
        norm._check_input_dim(x)
        found.add(norm.kernels(x, residual))
    kernels = found.pop() if len(found) == 1 else None
    if kernels is not None:
        return list(NormAddReLU.apply(norms, kernels, relu, *arguments(norms, maps, residuals)))
    plain = arguments(norms, maps, [None] * len(maps))
    outputs = NormAddReLU.apply(norms, norm_operations, False, *plain)
    return [_add_relu(y, residual, relu=relu) for y, residual in zip(outputs, residuals, strict=True)]


def _add_relu(y: Tensor, residual: Tensor | None, *, relu: bool) -> Tensor:
    if residual is not None:
        y += residual
    return torch.relu_(y) if relu else y


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
    except Exception as error:  # Triton's own exceptions, a missing compiler, an unknown GPU
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"batch norm is not fused, steps are slower: {type(error).__name__}: {reason}", stacklevel=2)
        return None
    return kernels


@torch.no_grad()
def _try(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> None:
    x = torch.ones(2, 16, 2, 2, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(16, device=device)
    sums = torch.empty(2 * 16 + 1, device=device, dtype=torch.float64)
    kernels.sums(x, sums)
    kernels.shared_coefficients(sums, x, norm)
    coefficients = kernels.coefficients(x, norm)
    y = kernels.apply(x, x, coefficients, relu=True)
    dz, sums = kernels.gradient_sums(y, x, y, coefficients, relu=True)
    kernels.input_gradient(dz, x, coefficients, sums, mask=False)
