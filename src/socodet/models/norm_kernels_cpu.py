"""Compiled kernels of batch norm in training on a CPU, fused with what follows it: a residual sum and ReLU.

A feature map (N, C, H, W) that lies channels last is a matrix of N·H·W rows and C columns. Each kernel goes over a
range of rows once, in vectors of 16 columns, and each of torch's threads takes one range. The maps are larger than the
caches, so that passes over memory are what it costs: with ReLU and no residual these read or write a map three times
forward and five times back, where torch's own do it five and eight times.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from socodet.runtime.kernel_cache import njit
from socodet.runtime.vectors import LANES, load, multiply_add, pick_at_most, pick_less, spread, store

_BLOCK = 64
"""Rows whose sums are taken in float32; those of the blocks are added in float64."""
_ENOUGH = 1 << 15
"""Elements from which a second thread is worth waking."""
_ZERO = np.float32(0)


@njit(nogil=True, cache=True)
def _column_means(x, begin, end, channels, means):  # type: ignore[no-untyped-def]
    for c in range(0, channels, LANES):
        total = spread(_ZERO)
        for row in range(begin, end):
            total = total + load(x, row * channels + c)
        store(means, c, total * spread(np.float32(1 / (end - begin))))


@njit(nogil=True, cache=True)
def _statistics(x, begin, end, channels, out):  # type: ignore[no-untyped-def]
    """Mean, and sum of squares about it, of each column over the rows begin to end - 1: out (2, C) float64.

    Summed from the mean of the first rows on: no digits are lost where a mean is far from 0.
    """
    shift = np.empty(channels, np.float32)
    _column_means(x, begin, min(begin + 16, end), channels, shift)
    total = np.zeros(2 * channels, np.float64)
    sums = np.empty(2 * channels, np.float32)
    for block in range(begin, end, _BLOCK):
        stop = min(block + _BLOCK, end)
        sums[:] = 0
        for row in range(block, stop, 8):
            last = min(row + 8, stop)
            for c in range(0, channels, LANES):
                centre, first, second = load(shift, c), load(sums, c), load(sums, channels + c)
                for r in range(row, last):
                    apart = load(x, r * channels + c) - centre
                    first = first + apart
                    second = multiply_add(apart, apart, second)
                store(sums, c, first)
                store(sums, channels + c, second)
        for c in range(2 * channels):
            total[c] += sums[c]
    count = end - begin
    for c in range(channels):
        apart_mean = total[c] / count
        out[0, c] = shift[c] + apart_mean
        out[1, c] = total[channels + c] - apart_mean * total[c]


@njit(nogil=True, cache=True)
def _coefficients(ranges, counts, weight, bias, running_mean, running_var, eps, momentum, out):  # type: ignore[no-untyped-def]
    """Mean, 1/σ, and a and b of a·x + b, a row each of `out`; updates the running statistics.

    ranges: (T, 2, C) of `_statistics`, over `counts` (T,) rows each; joined as Chan, Golub & LeVeque (1983) join
    variances.
    """
    for c in range(weight.shape[0]):
        count, mean, squares = 0.0, 0.0, 0.0
        for t in range(counts.shape[0]):
            both = count + counts[t]
            apart = ranges[t, 0, c] - mean
            squares += ranges[t, 1, c] + apart * apart * count * counts[t] / both
            mean += apart * counts[t] / both
            count = both
        variance = squares / count
        inverse = 1.0 / np.sqrt(variance + eps)
        out[0, c], out[1, c] = mean, inverse
        out[2, c] = weight[c] * inverse
        out[3, c] = bias[c] - mean * weight[c] * inverse
        running_mean[c] += momentum * (mean - running_mean[c])
        running_var[c] += momentum * (squares / (count - 1) - running_var[c])


@njit(nogil=True, cache=True)
def _apply(x, residual, begin, end, coefficients, y, add, relu):  # type: ignore[no-untyped-def]
    """Writes relu(a·x + b + residual), what of it is asked for, to y."""
    channels, zero = coefficients.shape[1], spread(_ZERO)
    scale, offset = coefficients[2], coefficients[3]
    for row in range(begin, end):
        for c in range(0, channels, LANES):
            p = row * channels + c
            value = multiply_add(load(x, p), load(scale, c), load(offset, c))
            if add:
                value = value + load(residual, p)
            if relu:
                value = pick_less(value, zero, zero, value)  # NaN stays NaN
            store(y, p, value)


@njit(nogil=True, cache=True)
def _gradient_sums(dy, x, y, begin, end, coefficients, dz, add, relu, out):  # type: ignore[no-untyped-def]
    """Sums of dz and of dz·x̂ of each column, dz being dy where ReLU let it through: out (2, C) float64.

    add: ReLU's mask is that of y, and dz is written; otherwise the mask is reckoned again from x.
    """
    channels, zero = coefficients.shape[1], spread(_ZERO)
    mean, inverse, scale, offset = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    sums = np.empty(2 * channels, np.float32)
    out[:] = 0
    for block in range(begin, end, _BLOCK):
        stop = min(block + _BLOCK, end)
        sums[:] = 0
        for row in range(block, stop, 4):
            last = min(row + 4, stop)
            for c in range(0, channels, LANES):
                centre, first, second = load(mean, c), load(sums, c), load(sums, channels + c)
                for r in range(row, last):
                    p = r * channels + c
                    value, gradient = load(x, p), load(dy, p)
                    if relu:
                        if add:
                            gradient = pick_at_most(load(y, p), zero, zero, gradient)
                            store(dz, p, gradient)
                        else:
                            out_of_norm = multiply_add(value, load(scale, c), load(offset, c))
                            gradient = pick_at_most(out_of_norm, zero, zero, gradient)
                    first = first + gradient
                    second = multiply_add(value - centre, gradient, second)
                store(sums, c, first)
                store(sums, channels + c, second)
        for c in range(channels):
            out[0, c] += sums[c]
            out[1, c] += sums[channels + c] * inverse[c]


@njit(nogil=True, cache=True)
def _input_gradient(dz, x, begin, end, coefficients, sums, rows, dx, mask):  # type: ignore[no-untyped-def]
    """To dx, a · (dz - mean of dz - x̂ · mean of dz·x̂); mask: dz is still dy, before ReLU's mask. sums: (2, C)."""
    channels, zero = coefficients.shape[1], spread(_ZERO)
    mean, inverse, scale, offset = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    constant, slope = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for c in range(channels):
        constant[c] = -scale[c] * sums[0, c] / rows
        slope[c] = -scale[c] * inverse[c] * sums[1, c] / rows
    for row in range(begin, end):
        for c in range(0, channels, LANES):
            p = row * channels + c
            value, gradient, factor = load(x, p), load(dz, p), load(scale, c)
            if mask:
                gradient = pick_at_most(multiply_add(value, factor, load(offset, c)), zero, zero, gradient)
            linear = multiply_add(value - load(mean, c), load(slope, c), load(constant, c))
            store(dx, p, multiply_add(gradient, factor, linear))


@lru_cache(maxsize=1)
def _helpers(threads: int) -> ThreadPoolExecutor:
    """Threads beside the caller's; a forked process makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="norm")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def _ranges(rows: int, channels: int) -> list[tuple[int, int]]:
    """First row and end of what each thread takes."""
    threads = min(torch.get_num_threads(), max(rows * channels // _ENOUGH, 1), rows)
    ends = [rows * t // threads for t in range(threads + 1)]
    return list(pairwise(ends))


def _share(kernel: Callable[[int, int, int], Any], ranges: list[tuple[int, int]]) -> None:
    """kernel(number, begin, end) of every range, the first one in this thread."""
    others = []
    if len(ranges) > 1:
        pool = _helpers(torch.get_num_threads())
        others = [pool.submit(kernel, t, *ranges[t]) for t in range(1, len(ranges))]
    kernel(0, *ranges[0])
    for other in others:
        other.result()


def _flat(x: Tensor) -> NDArray[Any]:
    """The memory of a map that lies channels last; bfloat16 as uint16."""
    x = x.detach().as_strided((x.numel(),), (1,))
    return (x.view(torch.uint16) if x.dtype is torch.bfloat16 else x).numpy()


def _statistics_of_ranges(x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sum of squares about it of each range of rows, (T, 2, C), and the rows of each, (T,)."""
    channels, rows = x.shape[1], x.numel() // x.shape[1]
    ranges = _ranges(rows, channels)
    partial = np.empty((len(ranges), 2, channels), np.float64)
    flat = _flat(x)
    _share(lambda t, begin, end: _statistics(flat, begin, end, channels, partial[t]), ranges)
    return partial, np.array([end - begin for begin, end in ranges], np.float64)


def coefficients(x: Tensor, norm: torch.nn.BatchNorm2d) -> Tensor:
    """Mean, 1/σ, and a and b of a·x + b, (4, C); updates the running statistics.

    x: (N, C, H, W), channels last, float32 or bfloat16, C a multiple of 16; the norm's parameters and statistics are
    float32.
    """
    partial, counts = _statistics_of_ranges(x)
    out = torch.empty(4, x.shape[1], dtype=torch.float32)
    parameters = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    numbers = (p.detach().numpy() for p in parameters if p is not None)
    _coefficients(partial, counts, *numbers, norm.eps, norm.momentum, out.numpy())
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return out


def sums(x: Tensor) -> Tensor:
    """Sum and sum of squares of each channel and their count, (2 C + 1,) float64, to be added over processes."""
    partial, counts = _statistics_of_ranges(x)
    mean, about_mean = partial[:, 0], partial[:, 1]
    total = counts[:, None] * mean
    return torch.from_numpy(np.concatenate([total.sum(0), (about_mean + total * mean).sum(0), [counts.sum()]]))


def apply(x: Tensor, residual: Tensor | None, coefficients: Tensor, *, relu: bool) -> Tensor:
    """relu(a·x + b + residual); x and residual are channels last and of one type."""
    channels, rows = x.shape[1], x.numel() // x.shape[1]
    y = torch.empty_like(x)
    add = residual is not None
    flat, numbers, out = _flat(x), coefficients.numpy(), _flat(y)
    added = flat if residual is None else _flat(residual)
    _share(lambda _, begin, end: _apply(flat, added, begin, end, numbers, out, add, relu), _ranges(rows, channels))
    return y


def gradient_sums(
    dy: Tensor, x: Tensor, y: Tensor | None, coefficients: Tensor, *, relu: bool
) -> tuple[Tensor, Tensor]:
    """Gradient before ReLU, dz, and the sums of dz and of dz·x̂ of each channel, (2, C) float64.

    y: the output where there was a residual. Only then is ReLU applied to dz; without one, dz is dy itself.
    """
    channels, rows = x.shape[1], x.numel() // x.shape[1]
    ranges = _ranges(rows, channels)
    partial = np.empty((len(ranges), 2, channels), np.float64)
    add = relu and y is not None
    dz = torch.empty_like(x) if add else dy
    numbers, flat, flat_dy, flat_dz = coefficients.numpy(), _flat(x), _flat(dy), _flat(dz)
    flat_y = flat if y is None else _flat(y)

    def sum_gradients(t: int, begin: int, end: int) -> None:
        _gradient_sums(flat_dy, flat, flat_y, begin, end, numbers, flat_dz, add, relu, partial[t])

    _share(sum_gradients, ranges)
    return dz, torch.from_numpy(partial.sum(axis=0))


def input_gradient(dz: Tensor, x: Tensor, coefficients: Tensor, sums: Tensor, *, mask: bool) -> Tensor:
    """Gradient of x. mask: dz has not passed ReLU yet. sums: of dz and of dz·x̂, (2, C), over the rows of x."""
    channels, rows = x.shape[1], x.numel() // x.shape[1]
    dx = torch.empty_like(x)
    flat_dz, flat, flat_dx = _flat(dz), _flat(x), _flat(dx)
    numbers, totals = coefficients.numpy(), sums.numpy()
    _share(
        lambda _, begin, end: _input_gradient(flat_dz, flat, begin, end, numbers, totals, rows, flat_dx, mask),
        _ranges(rows, channels),
    )
    return dx
