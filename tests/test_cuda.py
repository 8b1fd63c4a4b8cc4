"""On a CUDA device: from images to a fine-tuned detector, and back to a machine without a GPU."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
from narrow_models import NARROW
from photograph_sets import coco_file
from torchvision.models.resnet import BasicBlock, Bottleneck

from socodet.models.blocks import FusedBasicBlock, FusedBottleneck
from socodet.models.fused_norm import FusedBatchNorm2d, NormAddReLU, kernels_of
from socodet.models.roi_align import roi_align
from socodet.models.soco import build_soco
from socodet.pretraining.pretrain import pretrain
from socodet.pretraining.recipes import recipe
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import Trainer
from socodet.training.distributed import synchronize_batch_norm
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.views.batch import Batch, collate
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import SampleSettings

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROUNDING = 5e-2
"""Tolerance relative to a gradient's norm, in float32. Changing the weights by 1e-6 of their values changes these
gradients by up to 0.014 on a CPU, since ReLUs near zero switch; an H200 differs from a CPU by 0.010."""
UNUSED = {"online.projector.0.bias", "online.projector.3.bias", "predictor.0.bias"}
"""Biases with only linear layers before the next norm: their gradient is zero except for rounding."""

SMALL = dataclasses.replace(NARROW, hidden_size=16, embedding_size=8)
ON_GPU = ExecutionSettings(device="cuda", workers=2, log_every=1)


def noise_batch(size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    samples = []
    for index in range(size):
        image = torch.randint(0, 256, (96, 128, 3), generator=generator, dtype=torch.uint8).numpy()
        corner = torch.rand(20, 2, generator=generator) * torch.tensor([60.0, 40.0])
        boxes = torch.cat([corner, corner + 30 + 20 * torch.rand(20, 2, generator=generator)], dim=1).numpy()
        samples.append((index, make_sample(image, boxes, SampleSettings(), sample_rng(0, 0, index))))
    return collate(samples)


def trainer(device: str, precision: str = "float32") -> Trainer:
    execution = ExecutionSettings(device=device, precision=precision)
    settings = TrainingSettings(epochs=4, warmup_epochs=1, batch_size=8)
    return Trainer(build_soco(SMALL, 0, norm_layer=FusedBatchNorm2d), settings, 100, execution)


def test_loss_and_gradients_match_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    batch = noise_batch()
    outputs = {}
    for device in ("cpu", "cuda"):
        norm_layer = FusedBatchNorm2d if device == "cuda" else torch.nn.BatchNorm2d
        soco = build_soco(SMALL, 0, norm_layer=norm_layer).to(device, memory_format=torch.channels_last).train()
        loss = soco(batch.to(device).views).loss
        loss.backward()
        outputs[device] = (
            float(loss.detach()),
            {n: p.grad.cpu() for n, p in soco.named_parameters() if p.grad is not None},
        )
    (cpu_loss, cpu), (gpu_loss, gpu) = outputs["cpu"], outputs["cuda"]
    assert gpu_loss == pytest.approx(cpu_loss, abs=1e-4)
    assert cpu.keys() == gpu.keys()
    for name in cpu.keys() - UNUSED:
        assert (gpu[name] - cpu[name]).norm() <= ROUNDING * cpu[name].norm(), name


@pytest.mark.parametrize(
    ("block", "fused_block"),
    [(BasicBlock, FusedBasicBlock), (Bottleneck, FusedBottleneck)],
    ids=["basic", "bottleneck"],
)
def test_fused_batch_norm_matches_torchs(block, fused_block, monkeypatch):
    norm_kernels_cuda = pytest.importorskip("socodet.models.norm_kernels_cuda")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    channels = 64 * block.expansion
    pair = []
    for kind, norm_layer in ((block, torch.nn.BatchNorm2d), (fused_block, FusedBatchNorm2d)):
        shortcut = torch.nn.Sequential(torch.nn.Conv2d(64, channels, 1, bias=False), norm_layer(channels))
        residual = kind(64, 64, downsample=shortcut, norm_layer=norm_layer)
        pair.append(torch.nn.Sequential(residual, torch.nn.Conv2d(channels, 8, 1)))
    plain, fused = pair
    for norm in (module for module in plain.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.weight, 1, 0.5)
        torch.nn.init.normal_(norm.bias)
    fused.load_state_dict(plain.state_dict())
    plain, fused = (network.cuda().to(memory_format=torch.channels_last) for network in pair)
    assert kernels_of(torch.device("cuda", 0), torch.float32) is norm_kernels_cuda
    x = (5 + torch.randn(4, 64, 37, 29, device="cuda")).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(4, 8, 37, 29, device="cuda")
    calls = []
    monkeypatch.setattr(
        norm_kernels_cuda, "apply", lambda *a, f=norm_kernels_cuda.apply, **k: calls.append(1) or f(*a, **k)
    )
    found = []
    for network, dtype in ((fused, torch.float32), (plain.double(), torch.float64)):
        inputs = x.detach().to(dtype).requires_grad_()
        out = network(inputs)
        (out * weights.to(dtype)).sum().backward()
        gradients = {name: p.grad for name, p in network.named_parameters()}
        found.append(({"out": out, **dict(network.named_buffers())}, {"inputs": inputs.grad, **gradients}))
    assert len(calls) == (3 if block is BasicBlock else 4)
    # Where ReLU's input is almost 0, rounding may put it on either side: one implementation passes a gradient, the
    # other does not.
    for ours, exact, tolerance in zip(*found, (1e-4, 1e-2), strict=True):
        for name, value in ours.items():
            difference = (value.double() - exact[name].double()).norm() / exact[name].double().norm()
            assert difference <= tolerance, name


def test_synchronised_norms_use_the_same_kernels(monkeypatch):
    """The exchange is forced in a single process: what two processes over NCCL would do, except that none receives."""
    kernels = pytest.importorskip("socodet.models.norm_kernels_cuda")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    calls = {name: [] for name in ("coefficients", "shared_coefficients", "input_gradient")}
    for name, called in calls.items():
        function = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, f=function, c=called, **k: c.append(1) or f(*a, **k))
    try:
        views, found, used = noise_batch().to("cuda").views, [], []
        for synchronized in (False, True):
            soco = build_soco(SMALL, 0, norm_layer=FusedBatchNorm2d)
            soco = soco.to("cuda", memory_format=torch.channels_last).train()
            if synchronized:
                synchronize_batch_norm(soco)
            loss = soco(views).loss
            loss.backward()
            found.append({"loss": loss, **{n: p.grad for n, p in soco.named_parameters() if p.grad is not None}})
            used.append({name: len(called) for name, called in calls.items()})
    finally:
        dist.destroy_process_group()
    alone, both = used
    assert both["coefficients"] == alone["coefficients"] == both["shared_coefficients"] > 0
    assert both["input_gradient"] == 2 * alone["input_gradient"]
    for name in found[0].keys() - UNUSED:
        assert (found[1][name] - found[0][name]).norm() <= ROUNDING * found[0][name].norm(), name


def test_batches_may_exceed_the_second_axis_of_a_grid():
    norm_kernels_cuda = pytest.importorskip("socodet.models.norm_kernels_cuda")
    norm_statistics_cuda = pytest.importorskip("socodet.models.norm_statistics_cuda")
    x = torch.randn(343, 64, 112, 112, device="cuda", dtype=torch.bfloat16).contiguous(
        memory_format=torch.channels_last
    )
    assert x.numel() // norm_statistics_cuda.TILE > 65_535
    norm = FusedBatchNorm2d(64, device="cuda")
    (y,) = NormAddReLU.apply([norm], norm_kernels_cuda, False, x, norm.weight, norm.bias, None)
    exact = (x[-1].float() - x.float().mean(dim=(0, 2, 3))[:, None, None]) / x.float().std(dim=(0, 2, 3))[:, None, None]
    assert (y[-1].float() - exact).norm() <= 1e-2 * exact.norm()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close_to_float32(precision):
    batch = noise_batch()
    losses = {p: float(trainer("cuda", p).step(batch)[0]) for p in ("float32", precision)}
    assert losses[precision] == pytest.approx(losses["float32"], abs=0.15)  # of -4 to 4; on a CPU up to 0.07


def test_pretraining_resumes_and_is_readable_without_a_gpu(tmp_path):
    from socodet.detection.build import build_detector
    from socodet.images.photographs import photographs

    tiny = recipe("tiny")
    asked = dataclasses.replace(
        tiny, model=SMALL, training=dataclasses.replace(tiny.training, epochs=8, warmup_epochs=1)
    )
    begun = pretrain(
        photographs(), asked, tmp_path / "run", execution=dataclasses.replace(ON_GPU, max_steps=3), show_progress=False
    )
    assert begun.steps == 3
    done = pretrain(photographs(), asked, tmp_path / "run", execution=ON_GPU, show_progress=False)
    assert done.finished
    lines = [line for line in RunFolder(tmp_path / "run").log_lines() if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, done.total_steps + 1))
    assert all(-8 <= line["loss"] <= 8 for line in lines)
    state = RunFolder(tmp_path / "run").load_checkpoint()
    assert {value.device.type for value in state["model"].values()} == {"cpu"}
    detector = build_detector(tmp_path / "run", num_classes=3, show_report=False)
    name = "backbone.body.layer1.0.conv1.weight"
    assert torch.equal(dict(detector.named_parameters())[name], state["model"][f"online.encoder.{name}"])


def test_a_detector_is_fine_tuned_and_scored(tmp_path):
    from socodet.finetuning.finetune import finetune
    from socodet.finetuning.settings import FinetuneSettings

    data = coco_file(tmp_path / "set.json")
    tuned = finetune(
        data,
        tmp_path / "detector",
        FinetuneSettings("faster_rcnn_fpn", iterations=2, batch_size=2, size=64, precise_bn=1),
        val=data,
        init="scratch",
        model=SMALL,
        execution=ON_GPU,
        show_progress=False,
    )
    assert tuned.finished
    assert 0 <= tuned.evaluation.scores["box_AP"] <= 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_roi_align_matches_the_cpu(dtype):
    from socodet.models import roi_align_cuda

    maps = torch.randn(4, 64, 20, 30).to(dtype)
    corner = torch.rand(50, 2) * 100
    rois = torch.cat([torch.arange(50.0)[:, None] % 4, corner, corner + 10 + 100 * torch.rand(50, 2)], 1)
    results = []
    roi_align_cuda.is_faster(torch.device("cuda"), dtype)  # asserts that it agrees with torchvision's
    for device in ("cpu", "cuda"):
        own = maps.to(device, memory_format=torch.channels_last).requires_grad_()
        kernels = roi_align if device == "cpu" else roi_align_cuda.RoIAlignCUDA.apply
        pooled = kernels(own, rois.to(device), (7, 7), 0.25)
        pooled.float().square().sum().backward()
        results.append((pooled.detach().float().cpu(), own.grad.float().cpu()))
    for ours, expected in zip(*results, strict=True):
        assert float((ours - expected).norm()) < 0.01 * float(expected.norm())
