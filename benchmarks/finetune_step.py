"""Fine-tuning and evaluation: ours against the same detector in torchvision's reference loops.

python benchmarks/finetune_step.py [--rounds 7] [--case mask_rcnn | small] [--only-bfloat16]
                                   [--device cuda --images 16 --side 800]

`mask_rcnn` is a Mask R-CNN with a ResNet-50 and an FPN on 4 random images of 320 pixels with 6 objects each; `small` is
a Faster R-CNN with the recipe `tiny`'s widths and a ResNet-18, on 8 images of 160 pixels with 64 RoIs each.

`torchvision` trains and evaluates the same modules like torchvision's reference scripts: float32, contiguous, its own
RoIAlign, SGD; evaluation image by image, with each mask encoded by pycocotools. `float32` and `bfloat16` are what
`socodet finetune --precision` and its evaluations do. In each round all three take turns at a step, and then at an
evaluation, on the same images. Prints one JSON object; a speed-up is the median over rounds of the ratio within a
round; `finetune_speedup` and `evaluate_speedup` are bfloat16's. First asserts, in float32 with torchvision's RoIAlign,
that losses are equal and detections the same.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pycocotools import mask as coco_masks
from torch import nn

from machine import machine
from socodet.detection.detectors.by_name import detector_named, new_detector
from socodet.detection.detectors.torchvision_detector import TorchvisionDetector
from socodet.detection.inference import detect_each
from socodet.finetuning.samples import DetectionBatch
from socodet.finetuning.settings import FinetuneSettings
from socodet.finetuning.trainer import FineTuner
from socodet.models.backbones import NormLayer
from socodet.models.fused_norm import FusedBatchNorm2d
from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes import recipe
from socodet.training.settings import ExecutionSettings

CLASSES = 11
"""Including background; few enough that a fresh classifier's scores exceed the threshold of 0.05."""
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Case:
    """A network and images to time."""

    settings: FinetuneSettings
    model: ModelSettings
    device: torch.device
    objects: int = 6

    def network(self, pooling: Literal["torchvision"] | None, norm_layer: NormLayer = FusedBatchNorm2d) -> nn.Module:
        """The network, always with the same weights. pooling: None for the one of `socodet finetune`."""
        torch.manual_seed(0)
        TorchvisionDetector.norm_layer = norm_layer
        inference = self.settings.inference(self.settings.resolved_schedule())
        if pooling is not None:
            inference = replace(inference, pooling=pooling)
        network: nn.Module = new_detector(self.settings.detector, self.model, CLASSES, inference=inference)
        return network.to(self.device)

    def batch(self) -> DetectionBatch:
        """Random images; objects are rectangles."""
        side, generator = self.settings.size, torch.Generator().manual_seed(0)
        assert side is not None
        images, targets = [], []
        for _ in range(self.settings.batch_size or 0):
            images.append(torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8))
            corner = torch.rand(self.objects, 2, generator=generator) * side / 2
            boxes = torch.cat([corner, corner + 8 + torch.rand(self.objects, 2, generator=generator) * side / 2.5], 1)
            masks = torch.zeros(self.objects, side, side, dtype=torch.uint8)
            for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
                mask[top:bottom, left:right] = 1
            labels = torch.randint(1, CLASSES, (self.objects,), generator=generator)
            targets.append({"boxes": boxes, "labels": labels, "masks": masks})
        return DetectionBatch(images, targets)


def chosen_case(name: str, device: str, images: int | None, side: int | None) -> Case:
    """A case by name, with sizes overridden if given."""
    if name == "small":
        common = FinetuneSettings("faster_rcnn_fpn", "voc_24k", iterations=1000, rois_per_image=64)
        model, sizes = replace(recipe("tiny").model, backbone="resnet18"), (8, 160)
    else:
        common, model, sizes = FinetuneSettings("mask_rcnn_fpn", "coco_1x"), ModelSettings(), (4, 320)
    settings = replace(common, batch_size=images or sizes[0], size=side or sizes[1])
    return Case(settings, model, torch.device(device))


def torchvision_step(case: Case) -> Callable[[], float]:
    """A training step as in torchvision's reference scripts."""
    network = case.network("torchvision", nn.BatchNorm2d).train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    samples = case.batch()

    def step() -> float:
        images, targets = samples.to(case.device)
        torch.manual_seed(0)
        losses = network(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def our_step(case: Case, precision: Precision, pooling: Literal["torchvision"] | None = None) -> Callable[[], float]:
    """A training step of `socodet finetune`."""
    execution = ExecutionSettings("cuda" if case.device.type == "cuda" else "cpu", precision=precision)
    schedule = case.settings.resolved_schedule()
    tuner = FineTuner(case.network(pooling), detector_named(case.settings.detector), schedule, execution)
    samples = case.batch()
    return lambda: float(tuner.step(samples))


Found = list[tuple[np.ndarray[Any, Any], list[Any]]]
"""Boxes and encoded masks of each image."""


def torchvision_evaluation(case: Case) -> Callable[[], Found]:
    """Detections, prepared for scoring as in torchvision's reference scripts."""
    network, images = case.network("torchvision", nn.BatchNorm2d).eval(), case.batch().images

    @torch.no_grad()
    def evaluation() -> Found:
        found = []
        for image in images:
            (answer,) = network([image.to(case.device).float() / 255])
            masks = answer["masks"].cpu() > 0.5 if "masks" in answer else []
            encoded = [coco_masks.encode(np.array(m[0, :, :, np.newaxis], dtype=np.uint8, order="F"))[0] for m in masks]
            found.append((answer["boxes"].cpu().numpy(), encoded))
        return found

    return evaluation


def our_evaluation(
    case: Case, precision: Precision, pooling: Literal["torchvision"] | None = None
) -> Callable[[], Found]:
    """Detections as computed by `socodet evaluate` and `socodet finetune`."""
    network = case.network(pooling).eval()
    pixels = [image.permute(1, 2, 0).numpy() for image in case.batch().images]

    def evaluation() -> Found:
        found = []
        answers = detect_each(
            network, pixels.__getitem__, range(len(pixels)), batch_size=None, precision=getattr(torch, precision)
        )
        for _, answer in answers:
            assert not isinstance(answer, str)
            found.append((answer.boxes, list(answer.masks or [])))
        return found

    return evaluation


def assert_equal(case: Case) -> None:
    """Asserts that both have the same first losses and the same detections if they use the same pooling."""
    theirs, ours = torchvision_step(case)(), our_step(case, "float32", "torchvision")()
    assert abs(ours - theirs) < 1e-3 * theirs, (ours, theirs)
    pairs = zip(torchvision_evaluation(case)(), our_evaluation(case, "float32", "torchvision")(), strict=True)
    for (boxes, masks), (our_boxes, our_masks) in pairs:
        assert len(boxes) == len(our_boxes) > 0
        assert len(masks) == len(our_masks)
        np.testing.assert_allclose(our_boxes, boxes, rtol=1e-3, atol=0.05)


def timed(do: Callable[[], Any], device: torch.device) -> float:
    """Seconds."""
    start = time.perf_counter()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Runs all rounds and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--case", choices=["mask_rcnn", "small"], default="mask_rcnn")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int)
    parser.add_argument("--side", type=int)
    parser.add_argument("--only-bfloat16", action="store_true", help="skip float32, which takes long")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    case = chosen_case(arguments.case, arguments.device, arguments.images, arguments.side)
    assert_equal(case)
    steps: dict[str, Callable[[], Any]] = {"torchvision": torchvision_step(case)}
    evaluations: dict[str, Callable[[], Any]] = {"torchvision": torchvision_evaluation(case)}
    ways: tuple[Precision, ...] = ("bfloat16",) if arguments.only_bfloat16 else ("float32", "bfloat16")
    for precision in ways:
        steps[precision] = our_step(case, precision)
        evaluations[precision] = our_evaluation(case, precision)
    result: dict[str, object] = {"machine": machine(), "torch": torch.__version__} | vars(arguments)
    result |= {"images": case.settings.batch_size, "side": case.settings.size, "detector": case.settings.detector}
    if case.device.type == "cuda":
        result["device"] = torch.cuda.get_device_name()
    for what, todo, per in (("finetune", steps, 1), ("evaluate", evaluations, case.settings.batch_size or 1)):
        for do in todo.values():
            do()
        rounds = [{name: timed(do, case.device) for name, do in todo.items()} for _ in range(arguments.rounds)]
        for name in todo:
            result[f"{what}_{name}_seconds"] = round(statistics.median(one[name] for one in rounds) / per, 4)
        for name in ways:
            ratio = statistics.median(one["torchvision"] / one[name] for one in rounds)
            result[f"{what}_{name}_speedup"] = round(ratio, 2)
        result[f"{what}_speedup"] = result[f"{what}_bfloat16_speedup"]
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
