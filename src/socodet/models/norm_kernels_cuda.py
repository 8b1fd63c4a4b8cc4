"""Triton kernels of batch norm in training, fused with what follows it: a residual sum and ReLU.

A feature map (N, C, H, W) that lies channels last is a matrix of N·H·W rows and C columns; every kernel goes over it
tile by tile. torch's own kernels read or write such a map five times forward for batch norm and ReLU and eight times
back, these three and five times. Imported only where there is a CUDA device, or by tests in Triton's interpreter.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

TILE = 2048
"""Elements of a tile."""
WARPS = 4
PROGRAMS = 1056
"""About the most of a reduction: eight for each multiprocessor of an H200. Each leaves partial sums."""


@triton.jit
def _place(channels, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows and columns of this program: consecutive programs go along the rows, as memory does."""
    blocks = tl.cdiv(channels, C)
    program = tl.program_id(0)
    return program // blocks, (program % blocks) * C + tl.arange(0, C)


@triton.jit
def _statistics(x, partial, rows, channels, rows_each, splits, R: tl.constexpr, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """Mean of each split of the rows and sum of squares about it, summed from the mean of its first tile on.

    So no digits are lost where a mean is far from 0, as they would be by the mean of squares.
    """
    split, columns = _place(channels, C)
    live = columns < channels
    first = split.to(tl.int64) * rows_each
    row = first + tl.arange(0, R)
    mask = (row < rows)[:, None] & live[None, :]
    value = tl.load(x + row[:, None] * channels + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    there = tl.minimum(rows - first, R).to(tl.float32)
    shift = tl.sum(value, 0) / there
    total = tl.zeros((R, C), tl.float32)
    squares = tl.zeros((R, C), tl.float32)
    for begin in range(0, rows_each, R):
        row = first + begin + tl.arange(0, R)
        mask = (row < rows)[:, None] & live[None, :]
        value = tl.load(x + row[:, None] * channels + columns[None, :], mask=mask, other=0.0).to(tl.float32)
        apart = tl.where(mask, value - shift[None, :], 0.0)
        total += apart
        squares += apart * apart
    count = tl.minimum(rows - first, rows_each).to(tl.float32)
    apart_sum = tl.sum(total, 0)
    about_mean = tl.sum(squares, 0) - apart_sum * apart_sum / count
    tl.store(partial + split * channels + columns, shift + apart_sum / count, mask=live)
    tl.store(partial + (splits + split) * channels + columns, about_mean, mask=live)


@triton.jit
def _coefficients(  # type: ignore[no-untyped-def]
    partial, weight, bias, running_mean, running_var, batches, out, rows, channels, rows_each, splits, eps, momentum,
    S: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Mean, 1/σ, and a and b of a·x + b, a row each of `out`; updates running statistics and their counter.

    Splits are joined as Chan, Golub & LeVeque (1983) join variances, means being taken from that of the first split.
    """
    columns = tl.program_id(0) * C + tl.arange(0, C)
    live = columns < channels
    shift = tl.load(partial + columns, mask=live, other=0.0)
    weighted = tl.zeros((S, C), tl.float32)
    squares = tl.zeros((S, C), tl.float32)
    for begin in range(0, splits, S):
        split = begin + tl.arange(0, S)
        mask = (split < splits)[:, None] & live[None, :]
        count = tl.minimum(rows - split * rows_each, rows_each).to(tl.float32)
        at = split[:, None] * channels + columns[None, :]
        apart = tl.where(mask, tl.load(partial + at, mask=mask, other=0.0) - shift[None, :], 0.0)
        weighted += apart * count[:, None]
        about = tl.load(partial + splits * channels + at, mask=mask, other=0.0)
        squares += about + count[:, None] * apart * apart
    apart_mean = tl.sum(weighted, 0) / rows
    mean = shift + apart_mean
    variance = tl.sum(squares, 0) / rows - apart_mean * apart_mean
    variance = tl.where(variance < 0.0, 0.0, variance)  # as below, NaN must stay NaN: maximum would hide it
    inverse = 1.0 / tl.sqrt(variance + eps)
    scale = inverse * tl.load(weight + columns, mask=live, other=0.0)
    tl.store(out + columns, mean, mask=live)
    tl.store(out + channels + columns, inverse, mask=live)
    tl.store(out + 2 * channels + columns, scale, mask=live)
    offset = tl.load(bias + columns, mask=live, other=0.0) - mean * scale
    tl.store(out + 3 * channels + columns, offset, mask=live)
    old_mean = tl.load(running_mean + columns, mask=live, other=0.0)
    old_var = tl.load(running_var + columns, mask=live, other=0.0)
    unbiased = variance * (rows / (rows - 1.0))
    tl.store(running_mean + columns, old_mean + momentum * (mean - old_mean), mask=live)
    tl.store(running_var + columns, old_var + momentum * (unbiased - old_var), mask=live)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit
def _apply(  # type: ignore[no-untyped-def]
    x, residual, coefficients, y, rows, channels,
    ADD: tl.constexpr, RELU: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Writes relu(a·x + b + residual) to y."""
    tile, columns = _place(channels, C)
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
    """Sums of dz and of dz·x̂ a channel, dz being dy where ReLU let it through; with a residual, dz is written too."""
    split, columns = _place(channels, C)
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
    """To dx, a · (dz - mean of dz - x̂ · mean of dz·x̂); MASK: dz is still dy, before ReLU's mask."""
    tile, columns = _place(channels, C)
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


def _matrix(x_bchw: Tensor) -> tuple[int, int]:
    return x_bchw.numel() // x_bchw.shape[1], x_bchw.shape[1]


def _tile(channels: int) -> tuple[int, int]:
    columns = min(128, triton.next_power_of_2(channels))
    return TILE // columns, columns


def programs(rows: int, channels: int) -> int:
    """How many go over every tile once, in one axis: that may be 2³¹ - 1 long, a grid's others 65,535."""
    tile_rows, columns = _tile(channels)
    return int(triton.cdiv(rows, tile_rows) * triton.cdiv(channels, columns))


def _reduction(rows: int, channels: int) -> tuple[int, int, int]:
    """Programs, rows of each, and splits of the rows."""
    tile_rows, columns = _tile(channels)
    blocks = triton.cdiv(channels, columns)
    splits = max(1, min(triton.cdiv(rows, tile_rows), PROGRAMS // blocks))
    rows_each = triton.cdiv(triton.cdiv(rows, splits), tile_rows) * tile_rows
    splits = triton.cdiv(rows, rows_each)
    return splits * blocks, rows_each, splits


def _statistics_of_splits(x: Tensor) -> tuple[Tensor, int]:
    """Mean and sum of squares about it of each split of the rows, (2, splits, C), and the rows of a split."""
    rows, channels = _matrix(x)
    R, C = _tile(channels)
    reduction, rows_each, splits = _reduction(rows, channels)
    partial = torch.empty(2, splits, channels, dtype=torch.float32, device=x.device)
    _statistics[(reduction,)](x, partial, rows, channels, rows_each, splits, R=R, C=C, num_warps=WARPS)
    return partial, rows_each


def coefficients(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Mean, 1/σ, and a and b of a·x + b, (4, C); updates the running statistics.

    x: (N, C, H, W), channels last; the norm's parameters and statistics are float32.
    """
    rows, channels = _matrix(x)
    partial, rows_each = _statistics_of_splits(x)
    out = torch.empty(4, channels, dtype=torch.float32, device=x.device)
    _coefficients[(triton.cdiv(channels, 16),)](
        partial, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked,
        out, rows, channels, rows_each, partial.shape[1], norm.eps, norm.momentum, S=256, C=16, num_warps=WARPS,
    )  # fmt: skip
    return out


def sums(x: Tensor) -> Tensor:
    """Sum and sum of squares of each channel and their count, (2 C + 1,) float64, to be added over processes.

    In float64, sums of squares lose no digits that float32 values have.
    """
    rows, _ = _matrix(x)
    partial, rows_each = _statistics_of_splits(x)
    mean, about_mean = partial.double()
    begins = torch.arange(0, rows, rows_each, device=x.device)
    count = (rows - begins).clamp_max(rows_each).double()
    total = count[:, None] * mean
    return torch.cat([total.sum(0), (about_mean + total * mean).sum(0), count.sum(0, keepdim=True)])


def apply(x: Tensor, residual: Tensor | None, coefficients: Tensor, *, relu: bool) -> Tensor:
    """relu(a·x + b + residual); x and residual are channels last and of one type."""
    rows, channels = _matrix(x)
    R, C = _tile(channels)
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

    y: the output where there was a residual. Only then is ReLU applied to dz; without one, dz is dy itself.
    """
    rows, channels = _matrix(x)
    R, C = _tile(channels)
    reduction, rows_each, splits = _reduction(rows, channels)
    partial = torch.empty(2, splits, channels, dtype=torch.float32, device=x.device)
    dz = torch.empty_like(x) if relu and y is not None else dy
    _gradient_sums[(reduction,)](
        dy, x, x if y is None else y, coefficients, dz, partial, rows, channels, rows_each, splits,
        ADD=y is not None, RELU=relu, R=R, C=C, num_warps=WARPS,
    )  # fmt: skip
    return dz, partial.sum(dim=1)


def input_gradient(dz: Tensor, x: Tensor, coefficients: Tensor, sums: Tensor, *, mask: bool) -> Tensor:
    """Gradient of x. mask: dz has not passed ReLU yet. sums: of dz and of dz·x̂, (2, C), over the rows of x."""
    rows, channels = _matrix(x)
    R, C = _tile(channels)
    dx = torch.empty_like(x)
    _input_gradient[(programs(rows, channels),)](
        dz, x, coefficients, sums, dx, rows, channels, MASK=mask, R=R, C=C, num_warps=WARPS
    )
    return dx
