"""One training step of SoCo-R50-FPN: ours compared with the plain design, on the same inputs and weights.

    python benchmarks/training_step.py [--batch-size 8] [--steps 5] [--device cpu|cuda] [--compile float32 bf16]

Prints one JSON object. Steps of the designs are interleaved; on a CPU each design has its own process. Times are
medians, and a speedup is the median of the ratio within a round of consecutive steps. First asserts that the designs'
losses are equal with the same weights, in float32, in evaluation mode (frozen batch norm) and with torch's modules.
Memory is the peak of one design in its own process. Ours is also timed with torch's own modules ("torch_modules"):
without fused batch norm and, on a CPU, with 1×1 convolutions as convolutions and freed memory returned to the system;
on CUDA also with torchvision's RoIAlign. `--compile` also times ours under torch.compile, in those precisions;
`first_step_s` is the duration of each design's first step. On CUDA the plain design is also timed under bf16 autocast
and channels_last, which is what ours with bf16 is compared with; float32 there means convolutions in TF32, torch's
default. Waiting threads sleep, as in the command `socodet`.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from machine import machine
from plain_design import LoopLARS, correspondence, loop_average, plain_loss
from socodet.models.backbones import NormLayer
from socodet.models.encoders import FPNEncoder
from socodet.models.fused_norm import FusedBatchNorm2d
from socodet.models.normalization import normalize
from socodet.models.pyramid import pool_boxes, pyramid_levels
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo, build_soco
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import Trainer
from socodet.training.distributed import synchronize_batch_norm
from socodet.training.settings import ExecutionSettings
from socodet.views.batch import Batch, collate
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import SampleSettings

TORCHVISION_ROIS = "ours_bf16_torchvision_roi_align"
DESIGNS = {
    "cpu": ("plain", "ours", "ours_bf16", "ours_torch_modules", "ours_bf16_torch_modules"),
    "cuda": (
        "plain",
        "ours",
        "ours_bf16",
        "plain_bf16",
        "ours_bf16_torch_modules",
        "ours_bf16_synchronised",
        TORCHVISION_ROIS,
    ),
}
COMPILED = {"float32": "ours_compiled", "bf16": "ours_bf16_compiled"}


def a_batch(size: int) -> Batch:
    """Samples of the paper's views, from noise images with random boxes that pass the paper's filter."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(size):
        image = rng.integers(0, 256, (256, 341, 3), dtype=np.uint8)
        scale, aspect = rng.uniform(0.3, 0.8, 30), np.exp(rng.uniform(-1, 1, 30) * np.log(3))
        side = scale * np.sqrt(256 * 341)
        w, h = side * np.sqrt(aspect), side / np.sqrt(aspect)
        fits = (w < 341) & (h < 256)
        w, h = w[fits], h[fits]
        x, y = rng.random(len(w)) * (341 - w), rng.random(len(h)) * (256 - h)
        boxes = np.stack([x, y, x + w, y + h], axis=1).astype(np.float32)
        samples.append((index, make_sample(image, boxes, SampleSettings(), sample_rng(0, 0, index))))
    return collate(samples)


def our_step(
    precision: str,
    batch: Batch,
    device: str,
    *,
    compiled: bool = False,
    norm_layer: NormLayer = FusedBatchNorm2d,
) -> tuple[Trainer, Callable[[], None]]:
    """Our trainer and its step."""
    settings = TrainingSettings(epochs=100, warmup_epochs=10, batch_size=len(batch.indices))
    execution = ExecutionSettings(
        device="cuda" if device == "cuda" else "cpu",
        precision=precision,  # type: ignore[arg-type]
        compile=compiled,
    )
    trainer = Trainer(build_soco(ModelSettings(), 0, norm_layer=norm_layer), settings, 100_000, execution)

    def step() -> None:
        trainer.step(batch)

    return trainer, step


def plain_step(batch: Batch, device: str, *, lean: bool) -> tuple[SoCo, Callable[[], None]]:
    """The plain design's networks and step; with `lean`, under bf16 autocast and channels_last, like ours."""
    soco = build_soco(ModelSettings(), 0).to(device).train()
    if lean:
        soco = soco.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = LoopLARS(soco, 1e-5)
    matrices = [correspondence(batch.views[0], view).to(device) for view in batch.views[1:]]

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=lean):
            loss = plain_loss(soco, batch, matrices)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(0.01)
        loop_average(soco, 0.99)

    return soco, step


def build(design: str, batch: Batch, device: str) -> Callable[[], None]:
    """The step of a design by name."""
    if design.startswith("plain"):
        return plain_step(batch, device, lean=design == "plain_bf16")[1]
    precision = "bfloat16" if "bf16" in design else "float32"
    if design.endswith("torch_modules"):
        with patch("socodet.pretraining.trainer.keep_freed_memory"):
            return our_step(precision, batch, device, norm_layer=nn.BatchNorm2d)[1]
    trainer, step = our_step(precision, batch, device, compiled=design in COMPILED.values())
    if design.endswith("synchronised"):
        synchronize_alone(trainer)
    if design == TORCHVISION_ROIS:
        return patch("socodet.models.roi_align.cuda_kernels", lambda *_: None)(step)
    return step


def synchronize_alone(trainer: Trainer) -> None:
    """Makes norms exchange statistics as with several processes, in a world of one: the overhead without a network."""
    if not dist.is_initialized():
        backend = "nccl" if trainer.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    synchronize_batch_norm(trainer.soco)


class Elsewhere:
    """Runs a design's step in its own process, so that process-wide settings do not affect the others."""

    def __init__(self, design: str, batch_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve_steps, args=(design, batch_size, theirs), daemon=True)
        self._process.start()
        theirs.close()  # otherwise recv would wait forever if the process fails
        self._pipe.recv()

    def seconds(self) -> float:
        """Of one step more."""
        self._pipe.send(True)
        return float(self._pipe.recv())

    def end(self) -> None:
        """Gives its memory back."""
        self._pipe.send(False)
        self._process.join()


def serve_steps(design: str, batch_size: int, pipe: Connection) -> None:
    """Runs one step of the design for every True received, and answers with its seconds."""
    step = build(design, a_batch(batch_size), "cpu")
    pipe.send("ready")
    while pipe.recv():
        pipe.send(seconds(step, "cpu"))


class Here:
    """Runs a design's step in this process, since a GPU has no room for several."""

    def __init__(self, design: str, batch: Batch, device: str) -> None:
        self._step: Callable[[], None] | None = build(design, batch, device)
        self._device = device

    def seconds(self) -> float:
        """Of one step more."""
        assert self._step is not None
        return seconds(self._step, self._device)

    def end(self) -> None:
        """Gives its memory back."""
        self._step = None


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(step: Callable[[], object], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def losses_agree(batch: Batch, device: str) -> tuple[float, float]:
    """Our loss and the plain design's, with the same weights and frozen batch norm; asserts that they are equal."""
    soco = build_soco(ModelSettings(), 0).to(device)
    with torch.no_grad(), without_tf32():
        for p in soco.target.parameters():
            p.add_(0.01 * torch.randn_like(p))
        soco.train()(batch.views)  # running statistics of this batch; otherwise activations would vanish
        soco.eval()
        ours = float(soco(batch.views).loss)
        plain = float(plain_loss(soco, batch, [correspondence(batch.views[0], v).to(device) for v in batch.views[1:]]))
    assert abs(ours - plain) < 1e-5, (ours, plain)
    return ours, plain


@contextmanager
def without_tf32() -> Iterator[None]:
    """CUDA convolutions in full float32: TF32 keeps 10 bits of each factor, but losses are compared to 1e-5."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def peak_memory(design: str, batch_size: int, device: str) -> float:
    """Peak GiB above the process's memory before its first step, in a new process."""
    command = [
        sys.executable,
        __file__,
        "--memory-of",
        design,
        "--batch-size",
        str(batch_size),
        "--device",
        device,
    ]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(design: str, batch: Batch, device: str) -> float:
    step = build(design, batch, device)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        for _ in range(2):
            step()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    for _ in range(2):
        step()
    return (resident("VmHWM") - before) / 2**20


def resident(field: str) -> int:
    """KiB of this process: VmRSS now, VmHWM at the peak; getrusage's peak would include the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


def matrix_peak(device: str, dtype: torch.dtype) -> float:
    """TFLOP/s of a large square matrix product; for float32 on CUDA in TF32, like convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = True
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: a @ b, device) for _ in range(8)) / 1e12


def split(trainer: Trainer, batch: Batch, device: str, repeats: int) -> dict[str, float]:
    """Milliseconds of each part of our float32 step: the online network's forward parts, then the rest."""
    soco, encoder = trainer.soco, trainer.soco.online.encoder
    assert isinstance(encoder, FPNEncoder)
    assert encoder.box_head is not None
    parts: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[..., Any], *args: Any) -> Any:
        out: list[Any] = []
        parts.setdefault(name, []).append(1000 * seconds(lambda: out.append(function(*args)), device))
        return out[0]

    for _ in range(repeats):
        for view in batch.views:
            pixels = timed("normalise", normalize, view.pixels)
            stages = timed("backbone", encoder.stages, pixels)
            levels = timed("fpn", pyramid_levels, encoder.backbone["fpn"], stages, view.rois.needed)
            pooled = timed("roi_align", pool_boxes, levels, view.rois, encoder.pooled_size)
            h = timed("head", encoder.box_head, pooled)
            timed("mlps", nn.Sequential(soco.online.projector, soco.predictor), h)
        output = timed("forward, both networks", soco, batch.views)
        timed("backward", output.loss.backward)
        timed("optimiser", trainer.optimizer.step)
        timed("target average", soco.update_target, 0.99)
        trainer.optimizer.zero_grad()
    return {name: round(sum(times) / repeats, 2) for name, times in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="timed steps per design, after two warm-up steps")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--compile", nargs="+", choices=tuple(COMPILED), default=[], help="also time ours under torch.compile"
    )
    parser.add_argument("--memory-of", choices=(*DESIGNS["cpu"], *DESIGNS["cuda"]), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True  # as ours sets it; for all designs, so that none has slower convolutions
    batch = a_batch(args.batch_size).to(args.device)
    if args.memory_of:
        print(measure_memory(args.memory_of, batch, args.device))
        return
    designs = (*DESIGNS[args.device], *(COMPILED[p] for p in args.compile))
    ours_loss, plain_loss_value = losses_agree(batch, args.device)
    steps: dict[str, Elsewhere | Here] = {
        design: Elsewhere(design, args.batch_size) if args.device == "cpu" else Here(design, batch, args.device)
        for design in designs
    }
    times: dict[str, list[float]] = {design: [] for design in designs}
    first_step: dict[str, float] = {}
    for round_number in range(args.steps + 2):
        for design, step in steps.items():
            taken = step.seconds()
            first_step.setdefault(design, taken)
            if round_number >= 2:
                times[design].append(taken)
    median = {design: statistics.median(values) for design, values in times.items()}

    def speedup(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))

    for step in steps.values():
        step.end()
    if args.device == "cuda":
        torch.cuda.empty_cache()  # each design's memory is measured in a new process
    trainer, counted = our_step("float32", batch, args.device)
    with FlopCounterMode(display=False) as counter:
        counted()
    flops = counter.get_total_flops()
    if args.device == "cuda":
        torch.cuda.empty_cache()
    memory = {
        design: peak_memory(design, args.batch_size, args.device)
        for design in designs
        if design not in COMPILED.values()
    }
    peak = {
        "float32": matrix_peak(args.device, torch.float32),
        "bfloat16": matrix_peak(args.device, torch.bfloat16),
    }
    reference = "plain_bf16" if args.device == "cuda" else "plain"
    result = {
        "step_speedup": speedup("plain", "ours"),
        "step_speedup_bf16": speedup(reference, "ours_bf16"),
        "speedup_by_roi_align_kernels": speedup(TORCHVISION_ROIS, "ours_bf16") if args.device == "cuda" else None,
        "speedup_over_torch_modules": {
            ours: speedup(slow, ours)
            for slow in designs
            if slow.endswith("torch_modules")
            for ours in [slow.removesuffix("_torch_modules")]
        },
        "memory_ratio": memory["ours"] / memory["plain"],
        "images_per_second": {design: args.batch_size / value for design, value in median.items()},
        "step_ms": {design: 1000 * value for design, value in median.items()},
        "first_step_s": first_step,
        "peak_memory_gib": memory,
        "gflop_per_image": flops / args.batch_size / 1e9,
        "tflops": {d: flops / median[d] / 1e12 for d in ("ours", "ours_bf16")},
        "matrix_peak_tflops": peak,
        "share_of_peak": {
            "float32": flops / median["ours"] / 1e12 / peak["float32"],
            "bfloat16": flops / median["ours_bf16"] / 1e12 / peak["bfloat16"],
        },
        "split_ms": split(trainer, batch, args.device, 2),
        "loss": {"ours": ours_loss, "plain": plain_loss_value},
        "batch_size": args.batch_size,
        "machine": {**machine(), "torch": torch.__version__, "threads": torch.get_num_threads()},
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
