"""A detector of your own: its network, schedule and optimiser in one class, from existing parts or your own.

    python examples/own_detector.py

On the command line, in this folder:

    socodet finetune SET --init RUN --output runs/det --detector own_detector:SmallFCOS
    socodet predict runs/det IMAGES --output found --import own_detector
"""

import json
from dataclasses import replace
from pathlib import Path

import torch

import socodet
from socodet.detection.detectors.fcos import FCOSFPN

PEOPLE = {"astronaut": (20, 10, 340, 385), "hopper": (30, 20, 290, 375)}  # x, y, width, height


class SmallFCOS(FCOSFPN):
    """FCOS with AdamW and another NMS. To begin from nothing, subclass `socodet.Detector`."""

    def assemble(self, model, num_classes, inference):
        """The network; pretrained weights find `backbone.body` and `backbone.fpn`. Label 0 is the background."""
        network = super().assemble(model, num_classes, inference)
        network.nms_thresh = 0.6
        return network

    def schedule(self, name):
        """Learning rates for batches of 16."""
        return replace(super().schedule(name), lr=2e-3)

    def optimizer(self, network, settings):
        """`lr_factor` multiplies the schedule's learning rate."""
        return torch.optim.AdamW([{"params": network.parameters(), "lr_factor": 1.0}], lr=settings.lr)


if __name__ == "__main__":
    images = [{"id": i, "file_name": f"{name}.jpg", "width": 400, "height": 400} for i, name in enumerate(PEOPLE, 1)]
    images[1]["width"] = 341
    objects = [{"id": i, "image_id": i, "category_id": 1, "bbox": box} for i, box in enumerate(PEOPLE.values(), 1)]
    labels = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "person"}]}
    Path("runs").mkdir(exist_ok=True)
    Path("runs/people.json").write_text(json.dumps(labels))

    settings = socodet.FinetuneSettings(
        detector=socodet.register(SmallFCOS), schedule="coco_1x", iterations=4, batch_size=2, size=96
    )
    model = socodet.recipe("tiny").model  # or init="runs/first", which has the model's sizes
    print(
        socodet.finetune(
            "runs/people.json", "runs/det", settings, images=socodet.photographs(), model=model, overwrite=True
        )
    )
    (found,) = socodet.load_detector("runs/det").predict([socodet.photographs() / "astronaut.jpg"])
    print(f"{len(found)} boxes")
