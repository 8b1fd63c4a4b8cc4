"""RoIAlign on CUDA by Triton kernels, on channels-last maps in their own type.

torchvision's kernels need contiguous maps in float32 or float16: under bfloat16 autocast every level of the pyramid is
converted and laid out anew, forward and backward. Here a program pools one bin of one box for a block of channels,
which lie side by side in memory. Imported only where there is a CUDA device, or by tests in Triton's interpreter.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_align as torchvision_roi_align

CHANNELS = 256
"""Maximum number of channels per program."""
WARPS = 4


@triton.jit
def _axis(start, extent, bins, bin, samples, sample, cells):  # type: ignore[no-untyped-def]
    """The two cells of one sample along an axis, and their weights, which are 0 if the sample is off the map."""
    width = extent / bins
    at = start + bin * width + (sample + 0.5) * width / samples
    inside = tl.where(at < -1.0, 0.0, tl.where(at > cells, 0.0, 1.0))
    at = tl.minimum(tl.maximum(at, 0.0), cells - 1.0)
    low = at.to(tl.int32)
    part = at - low.to(tl.float32)
    return low, tl.minimum(low + 1, cells - 1), (1.0 - part) * inside, part * inside


@triton.jit
def _pool(  # type: ignore[no-untyped-def]
    maps, rois, pooled, channels, height, width, rows, columns, scale,
    BACKWARD: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """One bin of one box: writes `pooled` from `maps`, or, backward, adds to `maps` the gradient of `pooled`.

    maps (B, H, W, C), pooled (N, P, Q, C), rois (N, 5).
    """
    place = tl.program_id(0)
    n, p, q = place // (rows * columns), (place // columns) % rows, place % columns
    c = tl.program_id(1) * C + tl.arange(0, C)
    live = c < channels
    image = tl.load(rois + 5 * n).to(tl.int64)
    x = tl.load(rois + 5 * n + 1) * scale - 0.5
    y = tl.load(rois + 5 * n + 2) * scale - 0.5
    w = tl.load(rois + 5 * n + 3) * scale - 0.5 - x
    h = tl.load(rois + 5 * n + 4) * scale - 0.5 - y
    samples_y = tl.ceil(h / rows).to(tl.int32)
    samples_x = tl.ceil(w / columns).to(tl.int32)
    share = 1.0 / tl.maximum(samples_y * samples_x, 1)
    here = image * height * width
    out = pooled + place.to(tl.int64) * channels + c
    value = tl.zeros((C,), tl.float32)
    if BACKWARD:
        value = tl.load(out, mask=live, other=0.0).to(tl.float32) * share
    for i in range(samples_y):
        top, bottom, of_top, of_bottom = _axis(y, h, rows, p, samples_y, i, height)
        for j in range(samples_x):
            left, right, of_left, of_right = _axis(x, w, columns, q, samples_x, j, width)
            top_left = maps + (here + top * width + left) * channels + c
            top_right = maps + (here + top * width + right) * channels + c
            bottom_left = maps + (here + bottom * width + left) * channels + c
            bottom_right = maps + (here + bottom * width + right) * channels + c
            if BACKWARD:
                tl.atomic_add(top_left, value * (of_top * of_left), mask=live)
                tl.atomic_add(top_right, value * (of_top * of_right), mask=live)
                tl.atomic_add(bottom_left, value * (of_bottom * of_left), mask=live)
                tl.atomic_add(bottom_right, value * (of_bottom * of_right), mask=live)
            else:
                upper = tl.load(top_left, mask=live, other=0.0).to(tl.float32) * of_left
                upper += tl.load(top_right, mask=live, other=0.0).to(tl.float32) * of_right
                lower = tl.load(bottom_left, mask=live, other=0.0).to(tl.float32) * of_left
                lower += tl.load(bottom_right, mask=live, other=0.0).to(tl.float32) * of_right
                value += upper * of_top + lower * of_bottom
    if not BACKWARD:
        tl.store(out, (value * share).to(pooled.dtype.element_ty), mask=live)


def _run(backward: bool, maps_bhwc: Tensor, rois: Tensor, pooled_npqc: Tensor, scale: float) -> None:
    _, height, width, channels = maps_bhwc.shape
    count, rows, columns, _ = pooled_npqc.shape
    if pooled_npqc.numel() == 0:
        return
    block = min(CHANNELS, triton.next_power_of_2(channels))
    with torch.cuda.device_of(maps_bhwc):  # type: ignore[no-untyped-call]  # Triton launches on the current device
        _pool[(count * rows * columns, triton.cdiv(channels, block))](
            maps_bhwc, rois, pooled_npqc, channels, height, width, rows, columns, scale,
            BACKWARD=backward, C=block, num_warps=WARPS,
        )  # fmt: skip


class RoIAlignCUDA(torch.autograd.Function):
    """Pools boxes from a channels-last map (B, C, H, W); rois (N, 5) in float32 → (N, C, P, Q), channels last."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, features: Tensor, rois: Tensor, size: tuple[int, int], scale: float
    ) -> Tensor:
        """Pools."""
        maps = features.permute(0, 2, 3, 1)
        pooled = features.new_empty(len(rois), *size, maps.shape[3])
        ctx.save_for_backward(rois)
        ctx.shape, ctx.dtype, ctx.scale = maps.shape, features.dtype, scale
        _run(False, maps, rois, pooled, ctx.scale)
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The gradient of the map, summed in float32."""
        (rois,) = ctx.saved_tensors
        maps = torch.zeros(ctx.shape, dtype=torch.float32, device=grad.device)
        _run(True, maps, rois, grad.permute(0, 2, 3, 1).contiguous(), ctx.scale)
        return maps.permute(0, 3, 1, 2).to(ctx.dtype), None, None, None


@torch.enable_grad()
def is_faster(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether these kernels beat torchvision's here, forward and backward, on the P3 of 64 images of 224 pixels.

    AssertionError if the two do not agree.
    """
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(64, 256, 28, 28, generator=generator).to(device, dtype, memory_format=torch.channels_last)
    corner = torch.rand(256, 2, generator=generator) * 120
    size = 30 + torch.rand(256, 2, generator=generator) * 70
    image = torch.arange(256.0)[:, None] % 64
    rois = torch.cat([image, corner, corner + size], 1).to(device)
    maps.requires_grad_()
    ways: tuple[Callable[[], Tensor], ...] = (
        lambda: RoIAlignCUDA.apply(maps, rois, (7, 7), 1 / 8),
        lambda: _of_torchvision(maps, rois),
    )
    outputs, gradients, times = [], [], []
    for pool in ways:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        for repeat in range(6):
            if repeat == 1:  # the first compiles
                start.record()
            pooled = pool()
            (gradient,) = torch.autograd.grad(pooled.sum(), maps)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
        outputs.append(pooled.detach().float())
        gradients.append(gradient.float())
    for ours, theirs in (outputs, gradients):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    return bool(times[0] < times[1])


def _of_torchvision(maps: Tensor, rois: Tensor) -> Tensor:
    """torchvision's, as in training: autocast converts bfloat16, which they do not take, to float32 and back."""
    with torch.autocast("cuda", maps.dtype, enabled=maps.dtype is not torch.float32):
        pooled: Tensor = torchvision_roi_align(maps, rois, 7, 1 / 8, 0, True)
    return pooled
