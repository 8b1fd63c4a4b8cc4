"""Where the time of a pretraining step goes, by kind of operation.

python benchmarks/step_profile.py [--precision bfloat16 | float32] [--batch-size 8] [--device cuda --batch-size 256]

SoCo-R50-FPN, views 224/224/112, K = 4, one process, one thread on a CPU. Prints one JSON object: milliseconds per step
of each kind, from torch's profiler, and its share of the step. On CUDA, `idle` is the time in which no kernel ran.
"""

import argparse
import json
import time
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

from machine import machine
from training_step import a_batch, our_step

KINDS = {
    "convolutions, backward": ("convolution_backward", "slow_conv2d_backward", "_ConvolveBackward"),
    "convolutions, forward": ("mkldnn_convolution", "cudnn_convolution", "slow_conv2d_forward"),
    "norms": ("batch_norm", "NormAddReLU"),
    "RoIAlign": ("RoIAlign", "roi_align"),
    "linear layers": ("aten::mm", "aten::addmm", "aten::bmm"),
    "optimiser and target average": ("aten::_foreach", "Optimizer", "linalg_vector_norm", "lerp"),
    "conversions and copies": ("aten::copy_", "aten::cat", "aten::clone", "aten::index", "Memcpy"),
    "ReLU, pooling, sums": ("relu", "clamp_min", "threshold", "max_pool", "aten::add", "upsample", "aten::sum"),
    "new tensors": ("aten::zero", "aten::fill", "aten::empty", "Memset"),
}
"""Substrings of the operations' names for each kind; the first matching kind counts."""


def kind(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cuda = args.device == "cuda"
    batch = a_batch(args.batch_size).to(args.device)
    _, step = our_step(args.precision, batch, args.device)
    for _ in range(3 if cuda else 1):
        step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        start = time.perf_counter()
        for _ in range(args.steps):
            step()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    kinds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        kinds[kind(event.key)] += microseconds / 1000 / args.steps
    step_ms = 1000 * seconds / args.steps
    if cuda:
        kinds["idle"] = step_ms - sum(kinds.values())
    ordered = sorted(kinds.items(), key=lambda one: -one[1])
    result = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "machine": {**machine(), "torch": torch.__version__},
        "precision": args.precision,
        "batch_size": args.batch_size,
        "step_ms": round(step_ms, 1),
        "kinds_ms": {name: round(value, 1) for name, value in ordered},
        "shares": {name: round(value / step_ms, 3) for name, value in ordered},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
