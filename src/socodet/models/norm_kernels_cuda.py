"""Triton kernels of batch norm in training, fused with what follows it: a residual sum and ReLU.

For batch norm and ReLU, torch's own kernels read or write a feature map five times forward and eight times backward,
these three and five times. The statistics are in `norm_statistics_cuda`, which also says how a map is traversed.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from socodet.models.norm_statistics_cuda import (
    WARPS,
    coefficients,
    matrix_of,
    place,
    programs,
    reduction_of,
    shared_coefficients,
    sums,
    tile_of,
)

__all__ = ["apply", "coefficients", "gradient_sums", "input_gradient", "shared_coefficients", "sums"]


@triton.jit
def _apply(  # type: ignore[no-untyped-def]
    x, residual, coefficients, y, rows, channels,
    ADD: tl.constexpr, RELU: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Writes relu(a·x + b + residual) to y."""
    tile, columns = place(channels, C)
    row = tile.to(tl.int64) * R + tl.arange(0, R)
    live = columns < channels
    mask = (row < rows)[:, None] & live[None, :]
    at = row[:, None] * channels + columns[None, :]
    scale = tl.load(coefficients + 2 * channels + columns, mask=live, other=0.0)
    offset = tl.load(coefficients + 3 * channels + columns, mask=live, other=0.0)
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * scale[None, :] + offset[None, :]
    if ADD:
        value += tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        value = tl.where(value < 0.0, 0.0, value)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _gradient_sums(  # type: ignore[no-untyped-def]
    dy, x, y, coefficients, dz, partial, rows, channels, rows_each, splits,
    ADD: tl.constexpr, RELU: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Each channel's sums of dz and dz·x̂; dz is dy where ReLU let it through. With a residual, writes dz too."""
    split, columns = place(channels, C)
    live = columns < channels
    mean = tl.load(coefficients + columns, mask=live, other=0.0)
    inverse = tl.load(coefficients + channels + columns, mask=live, other=0.0)
    scale = tl.load(coefficients + 2 * channels + columns, mask=live, other=0.0)
    offset = tl.load(coefficients + 3 * channels + columns, mask=live, other=0.0)
    total = tl.zeros((R, C), tl.float32)
    moment = tl.zeros((R, C), tl.float32)
    first = split.to(tl.int64) * rows_each
    for begin in range(0, rows_each, R):
        row = first + begin + tl.arange(0, R)
        mask = (row < rows)[:, None] & live[None, :]
        at = row[:, None] * channels + columns[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        gradient = tl.load(dy + at, mask=mask, other=0.0).to(tl.float32)
        if RELU:
            if ADD:
                stopped = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) <= 0.0
            else:
                stopped = value * scale[None, :] + offset[None, :] <= 0.0
            gradient = tl.where(stopped, 0.0, gradient)
            if ADD:
                tl.store(dz + at, gradient.to(dz.dtype.element_ty), mask=mask)
        total += gradient
        moment += gradient * (value - mean[None, :]) * inverse[None, :]
    tl.store(partial + split * channels + columns, tl.sum(total, 0), mask=live)
    tl.store(partial + (splits + split) * channels + columns, tl.sum(moment, 0), mask=live)


@triton.jit
def _input_gradient(  # type: ignore[no-untyped-def]
    dz, x, coefficients, sums, dx, rows, channels, MASK: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):
    """Writes dx = a · (dz - mean of dz - x̂ · mean of dz·x̂). MASK: dz is still dy, without ReLU's mask."""
    tile, columns = place(channels, C)
    row = tile.to(tl.int64) * R + tl.arange(0, R)
    live = columns < channels
    mask = (row < rows)[:, None] & live[None, :]
    at = row[:, None] * channels + columns[None, :]
    mean = tl.load(coefficients + columns, mask=live, other=0.0)
    inverse = tl.load(coefficients + channels + columns, mask=live, other=0.0)
    scale = tl.load(coefficients + 2 * channels + columns, mask=live, other=0.0)
    offset = tl.load(coefficients + 3 * channels + columns, mask=live, other=0.0)
    mean_dz = tl.load(sums + columns, mask=live, other=0.0) / rows
    mean_moment = tl.load(sums + channels + columns, mask=live, other=0.0) / rows
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    gradient = tl.load(dz + at, mask=mask, other=0.0).to(tl.float32)
    if MASK:
        gradient = tl.where(value * scale[None, :] + offset[None, :] <= 0.0, 0.0, gradient)
    normalised = (value - mean[None, :]) * inverse[None, :]
    result = scale[None, :] * (gradient - mean_dz[None, :] - normalised * mean_moment[None, :])
    tl.store(dx + at, result.to(dx.dtype.element_ty), mask=mask)


def apply(x: Tensor, residual: Tensor | None, coefficients: Tensor, *, relu: bool) -> Tensor:
    """relu(a·x + b + residual); x and residual are channels last and of one type."""
    rows, channels = matrix_of(x)
    R, C = tile_of(channels)
    y = torch.empty_like(x)
    _apply[(programs(rows, channels),)](
        x, x if residual is None else residual, coefficients, y, rows, channels,
        ADD=residual is not None, RELU=relu, R=R, C=C, num_warps=WARPS,
    )  # fmt: skip
    return y


def gradient_sums(
    dy: Tensor, x: Tensor, y: Tensor | None, coefficients: Tensor, *, relu: bool
) -> tuple[Tensor, Tensor]:
    """Gradient before ReLU, dz, and the sums of dz and of dz·x̂ of each channel, (2, C) float32.

    y: the output, if there was a residual. Only then is ReLU's mask applied to dz; without one, dz is dy itself.
    """
    rows, channels = matrix_of(x)
    R, C = tile_of(channels)
    count, rows_each, splits = reduction_of(rows, channels)
    partial = torch.empty(2, splits, channels, dtype=torch.float32, device=x.device)
    dz = torch.empty_like(x) if relu and y is not None else dy
    _gradient_sums[(count,)](
        dy, x, x if y is None else y, coefficients, dz, partial, rows, channels, rows_each, splits,
        ADD=y is not None, RELU=relu, R=R, C=C, num_warps=WARPS,
    )  # fmt: skip
    return dz, partial.sum(dim=1)


def input_gradient(dz: Tensor, x: Tensor, coefficients: Tensor, sums: Tensor, *, mask: bool) -> Tensor:
    """Gradient of x. mask: dz is still without ReLU's mask. sums: of dz and of dz·x̂, (2, C), over the rows of x."""
    rows, channels = matrix_of(x)
    R, C = tile_of(channels)
    dx = torch.empty_like(x)
    _input_gradient[(programs(rows, channels),)](
        dz, x, coefficients, sums, dx, rows, channels, MASK=mask, R=R, C=C, num_warps=WARPS
    )
    return dx
