"""Our RoIAlign, forward and backward, against torchvision's."""

from importlib.util import find_spec

import pytest
import torch
from torchvision.ops import roi_align as reference

from socodet.models.roi_align import roi_align


def boxes(count: int, width: float, height: float, images: int, seed: int = 0) -> torch.Tensor:
    """Boxes of all sizes, some beyond the image, some without area."""
    generator = torch.Generator().manual_seed(seed)
    corner = (torch.rand(count, 2, generator=generator) * 1.4 - 0.2) * torch.tensor([width, height])
    side = torch.rand(count, 2, generator=generator) ** 2 * torch.tensor([width, height]) * 1.2
    side[0] = 0
    image = torch.randint(0, images, (count, 1), generator=generator).float()
    return torch.cat([image, corner, corner + side], dim=1)


@pytest.mark.parametrize(("size", "scale"), [(7, 0.25), (14, 1 / 16), (1, 1.0), ((3, 5), 0.25)])
def test_roi_align_matches_torchvision_forward_and_backward(size, scale):
    torch.manual_seed(0)
    maps = torch.randn(3, 40, 13, 21)
    rois = boxes(50, 21 / scale, 13 / scale, 3)
    ours, theirs = (maps.clone().requires_grad_() for _ in range(2))
    pooled = roi_align(ours.to(memory_format=torch.channels_last), rois, size, scale)
    expected = reference(theirs, rois, size, scale, 0, True)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(expected)
    (pooled * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4 * float(theirs.grad.abs().max()))


def test_threads_share_the_channels(monkeypatch):
    maps, rois = torch.randn(2, 128, 9, 9), boxes(20, 36, 36, 2)
    one = roi_align(maps, rois, 7, 0.25)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(roi_align(maps, rois, 7, 0.25), one)


def test_roi_align_without_boxes_and_in_half_precision():
    maps = torch.randn(2, 8, 9, 9, requires_grad=True)
    empty = roi_align(maps, torch.zeros(0, 5), 7, 0.25)
    assert empty.shape == (0, 8, 7, 7)
    empty.sum().backward()
    assert float(maps.grad.abs().sum()) == 0
    rois = boxes(20, 36, 36, 2)
    half = roi_align(maps.bfloat16(), rois, 7, 0.25)
    assert half.dtype is torch.bfloat16
    exact = reference(maps.bfloat16().float(), rois, 7, 0.25, 0, True)
    torch.testing.assert_close(half.float(), exact, rtol=1e-2, atol=1e-2)


def test_roi_align_in_double_precision_is_torchvisions():
    maps, rois = torch.randn(1, 4, 9, 9, dtype=torch.float64), boxes(5, 36, 36, 1).double()
    assert torch.equal(roi_align(maps, rois, 3, 0.25), reference(maps, rois, 3, 0.25, 0, True))


@pytest.mark.parametrize("image", [-1.0, 2.0, float("nan")])
def test_box_with_an_invalid_image_index_is_refused(image):
    with pytest.raises(ValueError, match="image index"):
        roi_align(torch.randn(2, 4, 9, 9), torch.tensor([[image, 0, 0, 8, 8]]), 7, 0.25)


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds")


@needs_triton
def test_cuda_kernels_compile_for_a_gpu():
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from socodet.models.roi_align_cuda import _pool

    types = {"maps": "*fp32", "rois": "*fp32", "pooled": "*bf16", "scale": "fp32"}
    types |= dict.fromkeys(("channels", "height", "width", "rows", "columns"), "i32")
    chosen = {"BACKWARD": True, "C": 256}
    source = ASTSource(_pool, types | dict.fromkeys(chosen, "constexpr"), chosen)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert compiled.asm["cubin"]
