"""RoIAlign on a CPU: our kernels compared with torchvision's, forward and backward, on one thread.

python benchmarks/roi_align.py [--rounds 7]

Maps are channels-last; boxes are random, up to 0.4 of the image's width and height. `pretraining` is P3 of 64 images at
224 pixels with 4 boxes each; `fine-tuning` is P2 of 8 images at 200 pixels with 64 boxes each; `wide` is the same with
256 channels. In each round both pool the same boxes in turn. Prints one JSON object; a speed-up is the median over
rounds of the ratio within a round. Asserts that the outputs agree to 1e-4.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from machine import machine
from socodet.models.roi_align import roi_align

CASES = {
    "pretraining": (64, 256, 28, 256, 1 / 8),
    "fine-tuning": (8, 64, 50, 512, 1 / 4),
    "wide": (8, 256, 50, 512, 1 / 4),
}
"""Number of images, channels, side of the map in cells, boxes, scale."""


def ours(maps: Tensor, rois: Tensor, scale: float) -> Tensor:
    """Our RoIAlign as called in pretraining."""
    return roi_align(maps, rois, 7, scale)


def theirs(maps: Tensor, rois: Tensor, scale: float) -> Tensor:
    """The same with torchvision."""
    pooled: Tensor = torchvision_roi_align(maps, rois, 7, scale, sampling_ratio=0, aligned=True)
    return pooled


def timed(
    pool: Callable[[Tensor, Tensor, float], Tensor], maps: Tensor, rois: Tensor, scale: float
) -> tuple[float, float, Tensor]:
    """Seconds for the forward and backward pass, and the output."""
    maps.grad = None
    start = time.perf_counter()
    output = pool(maps, rois, scale)
    middle = time.perf_counter()
    output.sum().backward()  # type: ignore[no-untyped-call]
    return middle - start, time.perf_counter() - middle, output.detach()


def main() -> None:
    """Runs all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    result: dict[str, object] = {"machine": machine(), "threads": 1, "rounds": rounds}
    for name, (images, channels, side, boxes, scale) in CASES.items():
        generator = torch.Generator().manual_seed(0)
        maps = torch.randn(images, channels, side, side, generator=generator)
        maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
        corner = torch.rand(boxes, 2, generator=generator) * side / scale * 0.6
        size = torch.rand(boxes, 2, generator=generator) * side / scale * 0.4
        image = torch.arange(boxes)[:, None] % images
        rois = torch.cat([image.float(), corner, corner + size], dim=1)
        timed(ours, maps, rois, scale)  # includes compilation
        pairs = [(timed(ours, maps, rois, scale), timed(theirs, maps, rois, scale)) for _ in range(rounds)]
        torch.testing.assert_close(pairs[0][0][2], pairs[0][1][2], rtol=1e-4, atol=1e-4)
        figures = {}
        for direction, seconds in (
            ("forward", [(a[0], b[0]) for a, b in pairs]),
            ("backward", [(a[1], b[1]) for a, b in pairs]),
        ):
            figures[f"{direction}_ms"] = round(1000 * statistics.median(a for a, _ in seconds), 2)
            figures[f"{direction}_torchvision_ms"] = round(1000 * statistics.median(b for _, b in seconds), 2)
            figures[f"{direction}_speedup"] = round(statistics.median(b / a for a, b in seconds), 2)
        result[name] = figures
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
