import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from socodet.models import fused_norm
from socodet.models.architectures import build_encoder
from socodet.models.backbones import build_backbone, split_backbone, stage_outputs
from socodet.models.blocks import ConvNormReLU, FusedBasicBlock, FusedBottleneck
from socodet.models.fused_norm import FusedBatchNorm2d, kernels_of
from socodet.models.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds for Linux")


@pytest.fixture(autouse=True)
def forget_kernels():
    kernels_of.cache_clear()
    yield
    kernels_of.cache_clear()


def test_wrong_input_is_refused_by_torch():
    x = torch.randn(2, 32, 5, 5).contiguous(memory_format=torch.channels_last)
    for channels in (16, 512):
        with pytest.raises(RuntimeError, match="running_mean should contain 32 elements"):
            FusedBatchNorm2d(channels)(x)
    with pytest.raises(ValueError, match="expected 4D input"):
        FusedBatchNorm2d(16)(torch.randn(2, 16))


@needs_triton
def test_cuda_kernels_agree_with_float64_and_torchvision():
    script = Path(__file__).with_name("interpreted_norm.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "all agree", done.stderr


def pair(build):
    """The networks that `build` makes with torch's batch norm and with ours."""
    networks = []
    for norm_layer in (nn.BatchNorm2d, FusedBatchNorm2d):
        torch.manual_seed(0)
        networks.append(build(norm_layer))
    return networks


@pytest.mark.parametrize("training", [True, False])
def test_fused_norm_without_kernels_is_torchs(training):
    plain, fused = (body.train(training) for body in pair(lambda norm: build_backbone("resnet18", norm)[0]))
    x = torch.randn(2, 3, 64, 64)
    for one, other in zip(stage_outputs(plain, x), stage_outputs(fused, x), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(plain.state_dict().items(), fused.state_dict().items(), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("architecture", "depth"), [("fpn", 50), ("fpn_no_head", 18), ("c4", 18), ("c5", 18), ("image", 18)]
)
def test_encoder_with_fused_norms_has_the_same_names_and_weights(architecture, depth):
    settings = ModelSettings(architecture, f"resnet{depth}", 16, 2, 16, 16)
    plain, fused = (encoder.state_dict() for encoder in pair(lambda norm: build_encoder(settings, norm)))
    assert plain.keys() == fused.keys()
    for name, value in plain.items():
        assert torch.equal(fused[name], value), name
    for module in build_encoder(settings, FusedBatchNorm2d).modules():
        assert not isinstance(module, nn.BatchNorm2d) or type(module) is FusedBatchNorm2d


def test_c4_with_fused_norms_computes_the_same():
    (plain, plain_head, _), (fused, fused_head, channels) = pair(lambda norm: split_backbone("resnet50", norm))
    x = torch.randn(2, 3, 32, 32)
    (c4,), (fused_c4,) = stage_outputs(plain, x), stage_outputs(fused, x)
    assert torch.equal(c4, fused_c4)
    assert torch.equal(plain_head(c4), fused_head(c4))
    assert channels == 2048 // 8  # an eighth, since networks are narrow


def test_norms_of_a_block_are_fused_with_the_following_relu_and_residual(monkeypatch):
    seen = []

    class RecordedNorm(FusedBatchNorm2d):
        def forward(self, input, residual=None, *, relu=False):
            seen.append((residual is not None, relu))
            return super().forward(input, residual, relu=relu)

    downsample = nn.Sequential(nn.Conv2d(4, 16, 1), RecordedNorm(16))
    for block, asked in (
        (FusedBasicBlock(4, 4, norm_layer=RecordedNorm), [(False, True), (True, True)]),
        (FusedBottleneck(16, 4, norm_layer=RecordedNorm), [(False, True), (False, True), (True, True)]),
        (
            FusedBottleneck(4, 4, downsample=downsample, norm_layer=RecordedNorm),
            [(False, True), (False, True), (False, False), (True, True)],
        ),
        (ConvNormReLU(nn.Conv2d(4, 4, 1), RecordedNorm(4)), [(False, True)]),
    ):
        seen.clear()
        first = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
        out = block(torch.randn(2, first.in_channels, 5, 5))
        assert seen == asked
        assert out.min() == 0
    seen.clear()
    encoder = build_encoder(ModelSettings("fpn", "resnet18", 8, 2, 8, 8), RecordedNorm)
    encoder.pyramid(torch.randn(2, 3, 64, 64))
    encoder.box_head(torch.randn(2, 8, 7, 7))
    assert seen[0] == (False, True)  # the stem's
    assert seen[-2:] == [(False, True)] * 2  # the head's
    assert len(seen) == 20 + 8 + 2


def test_unfused_norm_is_used_if_kernels_cannot_be_built(monkeypatch):
    def fail(_):
        raise RuntimeError("no C compiler\nand more")

    monkeypatch.setattr(fused_norm, "TYPES", {"cpu": (torch.float32,)})
    monkeypatch.setattr(fused_norm, "import_module", fail)
    x = torch.randn(2, 16, 5, 5).contiguous(memory_format=torch.channels_last)
    norm = FusedBatchNorm2d(16)
    with pytest.warns(UserWarning, match="not fused, steps are slower: RuntimeError: no C compiler$") as caught:
        y = norm(norm(x))
    assert len(caught) == 1
    assert torch.equal(y, nn.BatchNorm2d(16)(nn.BatchNorm2d(16)(x)))


def test_compiled_network_uses_torchs_norm(monkeypatch):
    monkeypatch.setattr(fused_norm, "kernels_of", None)
    block = FusedBasicBlock(16, 16, norm_layer=FusedBatchNorm2d)
    x = torch.randn(2, 16, 5, 5).contiguous(memory_format=torch.channels_last)
    with pytest.raises(TypeError):
        block(x)
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="eager", fullgraph=True)(x)
    plain = BasicBlock(16, 16)
    plain.load_state_dict(block.state_dict())
    torch.testing.assert_close(compiled, plain(x))


def test_hooks_on_norms_of_a_block_run():
    block = FusedBottleneck(16, 4, norm_layer=FusedBatchNorm2d)
    called = []
    for norm in (block.bn1, block.bn2, block.bn3):
        norm.register_forward_hook(lambda norm, inputs, output: called.append(inputs[0].shape[1]))
    block(torch.randn(2, 16, 5, 5))
    assert called == [4, 4, 16]


@needs_triton
@pytest.mark.parametrize("images", [256, 4096])
def test_grids_of_large_batches_are_valid_in_cuda(images):
    from socodet.models import norm_statistics_cuda

    for side, channels in ((112, 64), (56, 64), (56, 256), (7, 2048)):
        rows = images * side * side
        programs = norm_statistics_cuda.programs(rows, channels)
        assert programs < 2**31
        assert programs * norm_statistics_cuda.TILE == rows * channels  # only whole tiles in these cases
