"""Triton kernels for the statistics of batch norm in training, over one process or several, and the tiles of a map.

A channels-last feature map (N, C, H, W) is a matrix of N·H·W rows and C columns; every kernel traverses it tile by
tile. Imported only where there is a CUDA device, or by tests in Triton's interpreter.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

TILE = 2048
"""Elements of a tile."""
WARPS = 4
PROGRAMS = 1056
"""Approximate maximum of a reduction: eight for each multiprocessor of an H200. Each leaves partial sums."""


@triton.jit
def place(channels, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows and columns of this program: consecutive programs go along the rows, as memory does."""
    blocks = tl.cdiv(channels, C)
    program = tl.program_id(0)
    return program // blocks, (program % blocks) * C + tl.arange(0, C)


@triton.jit
def _statistics(x, partial, rows, channels, rows_each, splits, R: tl.constexpr, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """Mean of each split of the rows and sum of squares about it, accumulated about the mean of its first tile.

    So no digits are lost where a mean is far from 0, as they would be in a mean of squares.
    """
    split, columns = place(channels, C)
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
    """Writes mean, 1/σ, and a and b of a·x + b, a row each of `out`; updates running statistics and their counter.

    Splits are combined as Chan, Golub & LeVeque (1983) combine variances, with means relative to the first split's.
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
    unbiased = variance * (rows / (rows - 1.0))
    _finish(
        mean, variance, unbiased, weight, bias, running_mean, running_var, batches,
        out, channels, columns, live, eps, momentum,
    )  # fmt: skip


@triton.jit
def _finish(  # type: ignore[no-untyped-def]
    mean, variance, unbiased, weight, bias, running_mean, running_var, batches,
    out, channels, columns, live, eps, momentum,
):  # fmt: skip
    """Writes mean, 1/σ, and a and b of a·x + b, a row each of `out`; updates running statistics and their counter."""
    inverse = 1.0 / tl.sqrt(variance + eps)
    scale = inverse * tl.load(weight + columns, mask=live, other=0.0)
    tl.store(out + columns, mean, mask=live)
    tl.store(out + channels + columns, inverse, mask=live)
    tl.store(out + 2 * channels + columns, scale, mask=live)
    offset = tl.load(bias + columns, mask=live, other=0.0) - mean * scale
    tl.store(out + 3 * channels + columns, offset, mask=live)
    old_mean = tl.load(running_mean + columns, mask=live, other=0.0)
    old_var = tl.load(running_var + columns, mask=live, other=0.0)
    tl.store(running_mean + columns, old_mean + momentum * (mean - old_mean), mask=live)
    tl.store(running_var + columns, old_var + momentum * (unbiased - old_var), mask=live)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit
def _sums(partial, out, rows, channels, rows_each, splits, S: tl.constexpr, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sum and sum of squares of each channel from those of the splits, and the number of rows, in float64.

    In float64, sums of squares lose no digits that float32 values have.
    """
    program = tl.program_id(0)
    columns = program * C + tl.arange(0, C)
    live = columns < channels
    total = tl.zeros((S, C), tl.float64)
    squares = tl.zeros((S, C), tl.float64)
    for begin in range(0, splits, S):
        split = begin + tl.arange(0, S)
        mask = (split < splits)[:, None] & live[None, :]
        count = tl.minimum(rows - split * rows_each, rows_each).to(tl.float64)
        at = split[:, None] * channels + columns[None, :]
        mean = tl.load(partial + at, mask=mask, other=0.0).to(tl.float64)
        about = tl.load(partial + splits * channels + at, mask=mask, other=0.0).to(tl.float64)
        total += count[:, None] * mean
        squares += about + count[:, None] * mean * mean
    tl.store(out + columns, tl.sum(total, 0), mask=live)
    tl.store(out + channels + columns, tl.sum(squares, 0), mask=live)
    if program == 0:
        tl.store(out + 2 * channels, (program + rows).to(tl.float64))


@triton.jit
def _shared_coefficients(  # type: ignore[no-untyped-def]
    sums, weight, bias, running_mean, running_var, batches, out, rows, channels, eps, momentum, C: tl.constexpr
):
    """As `_coefficients`, from sums over all processes; row five of `out` is this process's share of all rows."""
    columns = tl.program_id(0) * C + tl.arange(0, C)
    live = columns < channels
    count = tl.load(sums + 2 * channels)
    mean = tl.load(sums + columns, mask=live, other=0.0) / count
    variance = tl.load(sums + channels + columns, mask=live, other=0.0) / count - mean * mean
    variance = tl.where(variance < 0.0, 0.0, variance)
    unbiased = (variance * (count / (count - 1.0))).to(tl.float32)
    _finish(
        mean.to(tl.float32), variance.to(tl.float32), unbiased, weight, bias, running_mean, running_var, batches,
        out, channels, columns, live, eps, momentum,
    )  # fmt: skip
    share = (rows / count).to(tl.float32)
    tl.store(out + 4 * channels + columns, tl.zeros((C,), tl.float32) + share, mask=live)


def matrix_of(x_bchw: Tensor) -> tuple[int, int]:
    """Rows and columns of a map as a matrix."""
    return x_bchw.numel() // x_bchw.shape[1], x_bchw.shape[1]


def tile_of(channels: int) -> tuple[int, int]:
    """Rows and columns of a tile."""
    columns = min(128, triton.next_power_of_2(channels))
    return TILE // columns, columns


def programs(rows: int, channels: int) -> int:
    """How many programs cover every tile once, on a grid's first axis: it may be 2³¹ - 1 long, the others 65,535."""
    tile_rows, columns = tile_of(channels)
    return int(triton.cdiv(rows, tile_rows) * triton.cdiv(channels, columns))


def reduction_of(rows: int, channels: int) -> tuple[int, int, int]:
    """Programs, rows of each, and splits of the rows."""
    tile_rows, columns = tile_of(channels)
    blocks = triton.cdiv(channels, columns)
    splits = max(1, min(triton.cdiv(rows, tile_rows), PROGRAMS // blocks))
    rows_each = triton.cdiv(triton.cdiv(rows, splits), tile_rows) * tile_rows
    splits = triton.cdiv(rows, rows_each)
    return splits * blocks, rows_each, splits


def _statistics_of_splits(x: Tensor) -> tuple[Tensor, int]:
    """Mean and sum of squares about it of each split of the rows, (2, splits, C), and the rows of a split."""
    rows, channels = matrix_of(x)
    R, C = tile_of(channels)
    count, rows_each, splits = reduction_of(rows, channels)
    partial = torch.empty(2, splits, channels, dtype=torch.float32, device=x.device)
    _statistics[(count,)](x, partial, rows, channels, rows_each, splits, R=R, C=C, num_warps=WARPS)
    return partial, rows_each


def coefficients(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Mean, 1/σ, and a and b of a·x + b, (4, C); updates the running statistics.

    x: (N, C, H, W), channels last; the norm's parameters and statistics are float32.
    """
    rows, channels = matrix_of(x)
    partial, rows_each = _statistics_of_splits(x)
    out = torch.empty(4, channels, dtype=torch.float32, device=x.device)
    _coefficients[(triton.cdiv(channels, 16),)](
        partial, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked,
        out, rows, channels, rows_each, partial.shape[1], norm.eps, norm.momentum, S=256, C=16, num_warps=WARPS,
    )  # fmt: skip
    return out


def sums(x: Tensor, out: Tensor) -> None:
    """Writes each channel's sum and sum of squares, and the count, to out (2 C + 1,) float64, to add over processes."""
    rows, channels = matrix_of(x)
    partial, rows_each = _statistics_of_splits(x)
    _sums[(triton.cdiv(channels, 16),)](
        partial, out, rows, channels, rows_each, partial.shape[1], S=256, C=16, num_warps=WARPS
    )


def shared_coefficients(sums: Tensor, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """(5, C) from sums over all processes: mean, 1/σ, a and b of a·x + b, and x's share of the values.

    Updates the norm's running statistics.
    """
    rows, channels = matrix_of(x)
    out = torch.empty(5, channels, dtype=torch.float32, device=x.device)
    _shared_coefficients[(triton.cdiv(channels, 16),)](
        sums, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked,
        out, rows, channels, norm.eps, norm.momentum, C=16, num_warps=WARPS,
    )  # fmt: skip
    return out
