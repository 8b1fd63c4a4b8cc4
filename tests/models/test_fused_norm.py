import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import norm_checks
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from socodet.models import fused_norm, norm_kernels_cpu
from socodet.models.backbones import build_backbone, stage_outputs
from socodet.models.fused_norm import fuse_batch_norm, norm_add_relu

HERE = torch.device("cpu")


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_kernels_of_the_cpu_agree_with_float64(add, relu, threads, monkeypatch):
    monkeypatch.setattr(norm_kernels_cpu, "_ENOUGH", 1)  # several threads on small maps
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.manual_seed(0)
    for shape in ((3, 16, 7, 6), (2, 144, 5, 4), (5, 32, 23, 31), (9, 16, 1, 1)):
        norm_checks.check(norm_kernels_cpu, shape, add=add, relu=relu, dtype=torch.float32, tolerance=2e-6)
    norm_checks.check(norm_kernels_cpu, (2, 16, 8, 8), add=add, relu=relu, dtype=torch.bfloat16, tolerance=6e-3)


def test_kernels_of_the_cpu_keep_nan_and_digits():
    torch.manual_seed(0)
    norm_checks.check_nan(norm_kernels_cpu)
    norm_checks.check_outlier(norm_kernels_cpu)


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_block_on_the_cpu_is_the_block(kind, monkeypatch):
    calls = []
    forward = norm_kernels_cpu.forward
    monkeypatch.setattr(norm_kernels_cpu, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    torch.manual_seed(0)
    norm_checks.check_block(kind, width=16)
    assert len(calls) == (4 if kind is Bottleneck else 3) + 1  # one that tries the kernels


def test_what_the_cpu_s_kernels_do_not_take_is_left_to_torch():
    norm = nn.BatchNorm2d(16)
    with pytest.warns(UserWarning, match="not fused, steps are slower: TypeError: no kernels for torch.float16 on cpu"):
        assert fuse_batch_norm(nn.Sequential(norm), HERE, torch.float16) == 0
    assert fuse_batch_norm(nn.Sequential(nn.BatchNorm2d(24)), HERE) == 1
    narrow, wide = nn.BatchNorm2d(16), nn.BatchNorm2d(512)
    x = torch.randn(2, 32, 5, 5).contiguous(memory_format=torch.channels_last)
    for norm in (narrow, wide):  # torch says what is wrong
        fuse_batch_norm(norm, HERE)
        with pytest.raises(RuntimeError, match="running_mean should contain 32 elements"):
            norm(x)
    for x in (torch.randn(2, 24, 5, 5).contiguous(memory_format=torch.channels_last), torch.randn(2, 16, 5, 5)):
        one, other = nn.BatchNorm2d(x.shape[1]), nn.BatchNorm2d(x.shape[1])
        fuse_batch_norm(one, HERE)
        assert torch.equal(one(x), other(x))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds for Linux")
def test_kernels_of_cuda_agree_with_float64():
    script = Path(__file__).with_name("interpreted_norm.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "all agree", done.stderr


def networks(monkeypatch):
    """A backbone, and its twin with the forwards replaced, as if the kernels could be built here."""
    monkeypatch.setattr(fused_norm, "_try_kernels", lambda *_: None)
    pair = []
    for _ in range(2):
        torch.manual_seed(0)
        pair.append(build_backbone("resnet18")[0])
    assert fuse_batch_norm(pair[1], HERE) == 20
    return pair


@pytest.mark.parametrize("training", [True, False])
def test_where_the_kernels_do_not_fit_nothing_changes(training, monkeypatch):
    plain, fused = (network.train(training) for network in networks(monkeypatch))
    x = torch.randn(2, 3, 64, 64)
    for one, other in zip(stage_outputs(plain, x), stage_outputs(fused, x), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(plain.state_dict().items(), fused.state_dict().items(), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])


def test_every_norm_of_a_block_meets_the_relu_and_the_residual_that_follow_it(monkeypatch):
    monkeypatch.setattr(fused_norm, "_try_kernels", lambda *_: None)
    seen = []
    monkeypatch.setattr(
        fused_norm,
        "norm_add_relu",
        lambda x, norm, residual=None, *, relu=False: (
            seen.append((residual is not None, relu)) or norm_add_relu(x, norm)
        ),
    )
    downsample = nn.Sequential(nn.Conv2d(4, 16, 1), nn.BatchNorm2d(16))
    for block, asked in (
        (BasicBlock(4, 4), [(False, True), (True, True)]),
        (Bottleneck(16, 4), [(False, True), (False, True), (True, True)]),
        (Bottleneck(4, 4, downsample=downsample), [(False, True), (False, True), (False, False), (True, True)]),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()), [(False, True)]),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), [(False, False)]),
    ):
        seen.clear()
        fuse_batch_norm(block, HERE)
        first = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
        block(torch.randn(2, first.in_channels, 5, 5))
        assert seen == asked


def test_kernels_that_cannot_be_built_are_done_without(monkeypatch):
    def fail(*_):
        raise RuntimeError("no C compiler\nand more")

    monkeypatch.setattr(fused_norm, "_try_kernels", fail)
    network = BasicBlock(4, 4)
    with pytest.warns(UserWarning, match="not fused, steps are slower: RuntimeError: no C compiler$"):
        assert fuse_batch_norm(network, HERE) == 0
    assert "forward" not in vars(network)


def test_a_relu_that_is_used_twice_stays(monkeypatch):
    monkeypatch.setattr(fused_norm, "_try_kernels", lambda *_: None)
    relu = nn.ReLU()
    chain = nn.Sequential(nn.BatchNorm2d(4), relu, nn.Conv2d(4, 4, 1), relu)
    x = torch.randn(2, 4, 5, 5)
    before = chain(x)
    fuse_batch_norm(chain, HERE)
    assert torch.equal(chain(x), before)
    assert before.min() == 0


def test_hooks_of_a_block_s_norms_run(monkeypatch):
    monkeypatch.setattr(fused_norm, "_try_kernels", lambda *_: None)
    block = Bottleneck(16, 4)
    fuse_batch_norm(block, HERE)
    called = []
    for norm in (block.bn1, block.bn2, block.bn3):
        norm.register_forward_hook(lambda norm, inputs, output: called.append(inputs[0].shape[1]))
    block(torch.randn(2, 16, 5, 5))
    assert called == [4, 4, 16]


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds for Linux")
@pytest.mark.parametrize("images", [256, 4096])
def test_grids_of_large_batches_are_ones_that_cuda_takes(images):
    from socodet.models import norm_kernels_cuda

    for side, channels in ((112, 64), (56, 64), (56, 256), (7, 2048)):
        rows = images * side * side
        programs = norm_kernels_cuda.programs(rows, channels)
        assert programs < 2**31
        assert programs * norm_kernels_cuda.TILE == rows * channels  # whole tiles, in each of these
