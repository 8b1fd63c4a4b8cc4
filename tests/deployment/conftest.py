"""Stand-ins for fine-tuned detectors: random weights, scaled so that they find many objects."""

from dataclasses import replace

import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.detectors.by_name import detector_named, new_detector
from socodet.finetuning.run import FinetuneRecipe, prepare_folder
from socodet.finetuning.settings import FinetuneSettings
from socodet.training.run_folder import RunFolder


def scale_weights(network):
    """Makes outputs look trained: scores that differ between boxes, and boxes close to their anchors."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif "bbox_" in name:
                tensor.normal_(0, 0.01)
            elif "cls_score" in name:
                tensor.normal_(0, 0.05)
            elif "head" in name and tensor.ndim == 4:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith("cls_logits.bias"):
                tensor.zero_()
            if name in ("rpn.head.cls_logits.weight", "head.classification_head.cls_logits.weight"):
                tensor.mul_(0.1)  # scores very close to 1 would have no definite order


@pytest.fixture(scope="module")
def detector_run(tmp_path_factory):
    """`detector_run(detector, backbone="resnet18")` → the folder of its run, made once per test module."""
    made = {}

    def make(detector, backbone="resnet18"):
        if (detector, backbone) in made:
            return made[detector, backbone]
        folder = tmp_path_factory.mktemp("run")
        data = open_detection_set(coco_file(folder / "set.json"))
        boxes = {"rois_per_image": 32} if detector_named(detector).has_box_head else {}
        settings = FinetuneSettings(detector, "coco_1x", iterations=9, size=96, **boxes)
        recipe = FinetuneRecipe(settings, replace(NARROW, backbone=backbone), settings.resolved_schedule(6))
        run = RunFolder(folder / "run")
        prepare_folder(run, recipe, data, None, overwrite=False)
        network = new_detector(detector, recipe.model, 4, inference=recipe.inference, seed=5)
        if detector != "rt_detr":
            scale_weights(network)
        run.save_checkpoint(9, {"step": 9, "total_steps": 9, "detector": network.state_dict()})
        made[detector, backbone] = run.path
        return run.path

    return make
