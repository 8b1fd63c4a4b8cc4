"""A fine-tuning step on a CPU: ours against the same detector in torchvision's own loop, on one thread.

python benchmarks/finetune_step.py [--rounds 7] [--backbone resnet18]

The detector is a Faster R-CNN on FPN with the recipe `tiny`'s widths, 8 random images of 160 pixels with 6 boxes each,
64 RoIs of an image. `torchvision`: float32, contiguous, torchvision's RoIAlign, SGD, as its reference scripts train.
`float32` and `bfloat16`: what `socodet finetune --precision` does. In each round all three make a step on the same
images, in turn. Prints one JSON object; a speed-up is the median over rounds of the ratio within a round. The losses of
the first step in float32 are asserted to agree.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from machine import machine
from socodet.detection.detectors import detector_named, new_detector
from socodet.finetuning.samples import DetectionBatch
from socodet.finetuning.settings import FinetuneSettings
from socodet.finetuning.trainer import FineTuner
from socodet.pretraining.recipes import recipe
from socodet.training.settings import ExecutionSettings

IMAGES, SIDE, OBJECTS, CLASSES = 8, 160, 6, 21
SETTINGS = FinetuneSettings(
    "faster_rcnn_fpn", "voc_24k", iterations=1000, batch_size=IMAGES, size=SIDE, rois_per_image=64
)


def batch() -> DetectionBatch:
    """Random images and boxes."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for _ in range(IMAGES):
        images.append(torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8))
        corner = torch.rand(OBJECTS, 2, generator=generator) * SIDE / 2
        boxes = torch.cat([corner, corner + 8 + torch.rand(OBJECTS, 2, generator=generator) * SIDE / 2.5], 1)
        targets.append({"boxes": boxes, "labels": torch.randint(1, CLASSES, (OBJECTS,), generator=generator)})
    return DetectionBatch(images, targets)


def torchvision_loop(backbone: str) -> Callable[[], Tensor]:
    """A step as torchvision's reference scripts make it."""
    schedule = SETTINGS.resolved_schedule()
    inference = replace(SETTINGS.inference(schedule), pooling="torchvision")
    model = replace(recipe("tiny").model, backbone=backbone)
    network = new_detector(SETTINGS.detector, model, CLASSES, inference=inference).train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    images, targets = batch().to(torch.device("cpu"))

    def step() -> Tensor:
        torch.manual_seed(0)
        losses = network(images, targets)
        loss: Tensor = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def our_loop(backbone: str, precision: Literal["float32", "bfloat16"]) -> Callable[[], Tensor]:
    """A step of `socodet finetune`."""
    schedule = SETTINGS.resolved_schedule()
    model = replace(recipe("tiny").model, backbone=backbone)
    network = new_detector(SETTINGS.detector, model, CLASSES, inference=SETTINGS.inference(schedule))
    execution = ExecutionSettings("cpu", precision=precision)
    tuner = FineTuner(network, detector_named(SETTINGS.detector), schedule, execution)
    samples = batch()
    return lambda: tuner.step(samples)


def timed(step: Callable[[], Tensor]) -> tuple[float, float]:
    """Seconds, and the loss."""
    start = time.perf_counter()
    loss = float(step())
    return time.perf_counter() - start, loss


def main() -> None:
    """Runs all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backbone", default="resnet18")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps = {
        "torchvision": torchvision_loop(arguments.backbone),
        "float32": our_loop(arguments.backbone, "float32"),
        "bfloat16": our_loop(arguments.backbone, "bfloat16"),
    }
    first = {name: timed(step)[1] for name, step in steps.items()}
    assert abs(first["float32"] - first["torchvision"]) < 0.1 * first["torchvision"], (
        first
    )  # other pooling, same weights
    rounds = [{name: timed(step)[0] for name, step in steps.items()} for _ in range(arguments.rounds)]
    result: dict[str, object] = {"machine": machine(), "threads": 1, "rounds": arguments.rounds}
    result |= {"backbone": arguments.backbone, "images": IMAGES, "side": SIDE, "torch": torch.__version__}
    for name in steps:
        result[f"{name}_seconds"] = round(statistics.median(one[name] for one in rounds), 3)
    for name in ("float32", "bfloat16"):
        result[f"{name}_speedup"] = round(statistics.median(one["torchvision"] / one[name] for one in rounds), 2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
