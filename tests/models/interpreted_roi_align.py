"""RoIAlign's CUDA kernels in Triton's interpreter, against torchvision's; run by `interpreted_norm.py`."""

import torch
from test_roi_align import boxes
from torchvision.ops import roi_align as reference

from socodet.models import roi_align_cuda

roi_align_cuda.CHANNELS = 8  # several blocks of channels
torch.manual_seed(0)
for size, scale in (((2, 1), 0.5), ((1, 2), 1 / 16)):
    maps = torch.randn(2, 10, 4, 5)
    rois = boxes(6, 5 / scale, 4 / scale, 2)
    ours, theirs = (maps.clone().requires_grad_() for _ in range(2))
    last = ours.contiguous(memory_format=torch.channels_last)
    pooled = roi_align_cuda.RoIAlignCUDA.apply(last, rois, size, scale)
    expected = reference(theirs, rois, size, scale, 0, True)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(expected)
    (pooled * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
maps = torch.randn(2, 6, 4, 5).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
rois = boxes(3, 20, 16, 2)
pooled = roi_align_cuda.RoIAlignCUDA.apply(maps, rois, (2, 2), 0.25)
assert pooled.dtype is torch.bfloat16
assert pooled.is_contiguous(memory_format=torch.channels_last)
exact = reference(maps.detach().float(), rois, (2, 2), 0.25, 0, True)
torch.testing.assert_close(pooled.float(), exact, rtol=1e-2, atol=1e-2)
pooled.sum().backward()
assert maps.grad.dtype is torch.bfloat16
empty = roi_align_cuda.RoIAlignCUDA.apply(maps, torch.zeros(0, 5), (2, 2), 0.25)
assert empty.shape == (0, 6, 2, 2)
