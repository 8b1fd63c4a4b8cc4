"""RoIAlign (He et al. 2017) on channels-last maps: on a CPU by compiled kernels, on CUDA by `roi_align_cuda`.

On other devices, and on a GPU on which ours turn out to be slower, by torchvision's.

The samples of a box lie on a grid, so bilinear interpolation and the mean over a bin's samples are a weighted sum over
rows of a weighted sum over columns. A box of h x w cells then costs about h·w·C multiplications, whatever the number
of samples, and its gradient reaches each cell once. torchvision's CPU kernels visit four cells per sample.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_align as torchvision_roi_align

from socodet.runtime.kernel_cache import njit

CHANNELS_PER_THREAD = 32
"""Minimum number of channels that is worth a thread of its own."""


def roi_align(features: Tensor, rois: Tensor, output_size: int | tuple[int, int], scale: float) -> Tensor:
    """Pools boxes from one map: features (B, C, H, W), rois (N, 5) of image index and xyxy → (N, C, P, Q).

    output_size: P and Q, the rows and columns of bins, or one number for both. scale: from box coordinates to the map's
    cells. A bin has as many samples per axis as it has cells, rounded up, and half a cell is subtracted from corners.

    Equals `torchvision.ops.roi_align(…, sampling_ratio=0, aligned=True)` to float32's rounding, and is differentiable
    in the features. On a CPU the result is channels-last in memory. If torch must use deterministic algorithms, other
    devices use the CPU's kernels, as torchvision's backward adds with atomics. On a CPU, ValueError for a box whose
    image index does not exist.
    """
    if features.device.type != "cpu" and torch.are_deterministic_algorithms_enabled():
        pooled = roi_align(features.cpu(), rois.cpu(), output_size, scale)
        return pooled.to(features.device)
    if features.dtype is torch.float64 or torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
        return torchvision_roi_align(features, rois, output_size, scale, 0, True)  # type: ignore[no-any-return]
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if features.device.type == "cpu":
        return _RoIAlign.apply(features, rois, size, scale)  # type: ignore[no-untyped-call,no-any-return]
    if features.device.type == "cuda" and features.is_contiguous(memory_format=torch.channels_last):
        kernels = cuda_kernels(features.device, features.dtype)
        if kernels is not None:
            return kernels.RoIAlignCUDA.apply(features, rois.float().contiguous(), size, scale)  # type: ignore[no-any-return]
    return torchvision_roi_align(features, rois, output_size, scale, 0, True)  # type: ignore[no-any-return]


@cache
def cuda_kernels(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """`roi_align_cuda`, if a trial on this GPU shows that it agrees with torchvision's kernels and is faster."""
    try:
        module = import_module("socodet.models.roi_align_cuda")
        return module if module.is_faster(device, dtype) else None
    except Exception as error:  # Triton's own exceptions, a missing compiler, an unknown GPU
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"RoIAlign is torchvision's, which is slower: {type(error).__name__}: {reason}", stacklevel=2)
        return None


class _RoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, features: Tensor, rois: Tensor, size: tuple[int, int], scale: float
    ) -> Tensor:
        maps = features.detach().float().permute(0, 2, 3, 1).contiguous()
        boxes = rois.detach().float().contiguous()
        if len(boxes) and not (boxes[:, 0].min() >= 0 and boxes[:, 0].max() < len(maps)):
            raise ValueError(f"rois: image index outside 0..{len(maps) - 1}")  # a kernel would write out of bounds
        pooled = torch.zeros((len(boxes), *size, maps.shape[3]))
        ctx.save_for_backward(boxes)
        ctx.given = maps.shape, features.dtype, scale
        _by_channels(False, maps.numpy(), boxes.numpy(), pooled.numpy(), scale)
        return pooled.permute(0, 3, 1, 2).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (boxes,) = ctx.saved_tensors
        shape, dtype, scale = ctx.given
        maps = torch.zeros(shape)
        given = grad.detach().float().permute(0, 2, 3, 1).contiguous()
        _by_channels(True, maps.numpy(), boxes.numpy(), given.numpy(), scale)
        return maps.permute(0, 3, 1, 2).to(dtype), None, None, None


def _by_channels(
    backward: bool,
    maps_bhwc: NDArray[np.float32],
    rois: NDArray[np.float32],
    pooled_npqc: NDArray[np.float32],
    scale: float,
) -> None:
    """Runs the kernel on all channels, shared by torch's threads: no two threads write the same value."""
    channels = maps_bhwc.shape[3]
    threads = max(1, min(torch.get_num_threads(), channels // CHANNELS_PER_THREAD))
    bounds = [channels * k // threads for k in range(threads + 1)]
    fixed = backward, maps_bhwc, rois, pooled_npqc, np.float32(scale)
    if threads == 1:
        _pool(*fixed, 0, channels)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda begin, end: _pool(*fixed, begin, end), bounds[:-1], bounds[1:]))


@njit(nogil=True, cache=True)
def _axis(start: np.float32, extent: np.float32, weights: NDArray[np.float32]) -> tuple[int, int, int]:
    """Fills weights (bins, cells): of each cell in each bin along one axis. Returns samples, first and last cell.

    The last cell is exclusive; the range is empty if no sample falls on the map.
    """
    bins, cells = weights.shape
    width = np.float32(extent / np.float32(bins))
    samples = int(np.ceil(width))
    first, last = cells, 0
    for b in range(bins):
        for c in range(cells):
            weights[b, c] = np.float32(0)
        for s in range(samples):
            at = np.float32(
                start
                + np.float32(b) * width
                + np.float32(np.float32(np.float32(s) + np.float32(0.5)) * width) / np.float32(samples)
            )
            if at < -1 or at > cells:
                continue
            at = max(at, np.float32(0))
            low = int(at)
            if low >= cells - 1:
                low = cells - 1
                weights[b, low] += np.float32(1)
                high = low
            else:
                high = low + 1
                part = np.float32(at - np.float32(low))
                weights[b, low] += np.float32(1) - part
                weights[b, high] += part
            first, last = min(first, low), max(last, high + 1)
    return samples, first, last


@njit(nogil=True, cache=True)
def _weights(
    roi: NDArray[np.float32], scale: np.float32, rows_ph: NDArray[np.float32], columns_qw: NDArray[np.float32]
) -> tuple[int, int, int, int]:
    """`_axis` for both axes of a box, the rows' weights divided by the samples; returns its cells: y0, y1, x0, x1."""
    offset = np.float32(0.5)
    x, y = np.float32(roi[1] * scale) - offset, np.float32(roi[2] * scale) - offset
    w, h = np.float32(roi[3] * scale) - offset - x, np.float32(roi[4] * scale) - offset - y
    rows, y0, y1 = _axis(y, h, rows_ph)
    columns, x0, x1 = _axis(x, w, columns_qw)
    share = np.float32(1) / np.float32(max(rows * columns, 1))
    for p in range(len(rows_ph)):
        for c in range(y0, y1):
            rows_ph[p, c] *= share
    return y0, y1, x0, x1


@njit(nogil=True, cache=True)
def _pool(
    backward: bool,
    maps_bhwc: NDArray[np.float32],
    rois: NDArray[np.float32],
    pooled_npqc: NDArray[np.float32],
    scale: np.float32,
    begin: int,
    end: int,
) -> None:
    """Adds to `pooled` what the boxes pool, or, backward, to `maps` the gradient of `pooled`; channels begin to end."""
    _, height, width, _ = maps_bhwc.shape
    _, rows, columns, _ = pooled_npqc.shape
    rows_ph, columns_qw = np.zeros((rows, height), np.float32), np.zeros((columns, width), np.float32)
    line_qc = np.zeros((columns, end - begin), np.float32)  # a row of cells, weighted into columns of bins
    for n in range(len(rois)):
        y0, y1, x0, x1 = _weights(rois[n], scale, rows_ph, columns_qw)
        image = int(rois[n, 0])
        for y in range(y0, y1):
            line_qc[:] = np.float32(0)
            if backward:
                _between_bins_and_line(True, pooled_npqc[n], line_qc, rows_ph[:, y], begin)
            for q in range(columns):
                line = line_qc[q]
                for x in range(x0, x1):
                    weight = columns_qw[q, x]
                    if weight != 0:
                        cell = maps_bhwc[image, y, x, begin:end]
                        if backward:
                            _add(cell, weight, line)
                        else:
                            _add(line, weight, cell)
            if not backward:
                _between_bins_and_line(False, pooled_npqc[n], line_qc, rows_ph[:, y], begin)


@njit(nogil=True, cache=True)
def _between_bins_and_line(
    backward: bool,
    bins_pqc: NDArray[np.float32],
    line_qc: NDArray[np.float32],
    weights_p: NDArray[np.float32],
    begin: int,
) -> None:
    """Adds a row of cells to the bins of a box, by its weight in each row of bins; backward, the reverse."""
    for p in range(len(bins_pqc)):
        if weights_p[p] != 0:
            for q in range(len(line_qc)):
                line = line_qc[q]
                some = bins_pqc[p, q, begin : begin + len(line)]
                if backward:
                    _add(line, weights_p[p], some)
                else:
                    _add(some, weights_p[p], line)


@njit(nogil=True, cache=True)
def _add(to: NDArray[np.float32], weight: np.float32, values: NDArray[np.float32]) -> None:
    for c in range(len(to)):
        to[c] += weight * values[c]
