"""Weight gradients of convolutions in bfloat16 on a CPU: ours against torch's.

python benchmarks/cpu_convolution.py [--rounds 9]

Prints one JSON object: for each shape, the median over rounds of torch's time divided by ours, forward and backward
together, taking turns on one thread. First asserts that gradients are equal up to bfloat16's rounding.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from machine import machine
from socodet.models.cpu_convolution import speed_up_weight_gradients

SHAPES = {
    "box head, 512 boxes": (512, 256, 7),
    "box head, 2048 boxes": (2048, 256, 7),
    "third stage, 64 images of 112 pixels": (64, 256, 7),
    "fourth stage, 64 images of 112 pixels": (64, 512, 4),
    "fourth stage, 16 images of 224 pixels": (16, 512, 7),
}
"""Number of maps, channels in and out, side."""


def passes(convolution: nn.Module, x: Tensor) -> Callable[[], list[Tensor]]:
    def forward_and_backward() -> list[Tensor]:
        x.grad = convolution.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            y = convolution(x)
        y.backward(torch.ones_like(y))
        assert x.grad is not None
        assert isinstance(convolution.weight.grad, Tensor)
        return [x.grad, convolution.weight.grad]

    return forward_and_backward


def timed(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    result: dict[str, object] = {"machine": machine(), "torch": torch.__version__, "rounds": rounds}
    for name, (count, channels, side) in SHAPES.items():
        torch.manual_seed(0)
        theirs = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        theirs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ours = nn.Sequential(theirs[0])
        speed_up_weight_gradients(ours)
        x = torch.randn(count, channels, side, side, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        ways = [passes(network[0], x.requires_grad_()) for network in (theirs, ours)]
        for expected, gradient in zip(*(do() for do in ways), strict=True):
            assert float((gradient - expected).norm() / expected.norm()) < 0.01
        ratios = []
        for _ in range(rounds):
            torch_seconds, seconds = (timed(do) for do in ways)
            ratios.append(torch_seconds / seconds)
        result[name] = round(statistics.median(ratios), 2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
