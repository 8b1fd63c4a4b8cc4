"""The tensors of a fine-tuned R-CNN on a pyramid, for frameworks that have the same network under other names.

What differs: there the background is the last class and not the first, and has neither boxes nor masks.
"""

from typing import Any

import torch
from torch import Tensor

from socodet.detection.detectors import detector_named
from socodet.detection.detectors.rcnn_fpn import FasterRCNNFPN
from socodet.errors import InputError
from socodet.exporting.modules import PretrainedModules
from socodet.finetuning.detector import TrainedDetector
from socodet.weights.formats import torchvision_of
from socodet.weights.renaming import Line, Renaming

CLASSES = "roi_heads.box_predictor.cls_score."
BOXES = "roi_heads.box_predictor.bbox_pred."
MASKS = "roi_heads.mask_predictor.mask_fcn_logits."


def transferable(detector: TrainedDetector, framework: str) -> PretrainedModules:
    """Backbone, pyramid and box head by plain name. InputError for another detector or backbone."""
    name = detector.recipe.settings.detector
    if not isinstance(detector_named(name), FasterRCNNFPN):
        raise InputError(
            f"{detector.run}: --format {framework} takes R-CNNs on a pyramid, not {name}; use --format onnx"
        )
    state = detector.network.state_dict()
    names = torchvision_of(state)
    tensors = {plain: tensor for own, tensor in state.items() if (plain := names.to_plain(own)) is not None}
    modules = PretrainedModules(str(detector.run), "a detector", detector.recipe.model, tensors)
    modules.depth(framework)  # InputError for another backbone than a ResNet
    return modules


def renamed(
    detector: TrainedDetector, modules: PretrainedModules, transferred: Renaming, lines: list[Line]
) -> dict[str, Tensor]:
    """Every tensor by its name in a framework.

    transferred: that of the plain names; lines: of all others, their name there and the detector's.
    """
    placed, _ = modules.renamed(transferred)
    plain = torchvision_of(detector.network.state_dict())
    others = Renaming(*lines)
    for own, tensor in detector.network.state_dict().items():
        if plain.to_plain(own) is not None:
            continue
        name = others.from_plain(own)
        assert name is not None, own
        placed[name] = _as_there(own, tensor)
    return {name: tensor.contiguous() for name, tensor in placed.items()}


def _as_there(own: str, tensor: Tensor) -> Tensor:
    """The background last, and left out of boxes and masks."""
    if own.startswith(CLASSES):
        return torch.roll(tensor, -1, dims=0)
    if own.startswith(BOXES):
        return tensor[4:]
    return tensor[1:] if own.startswith(MASKS) else tensor


def inference_of(detector: TrainedDetector) -> dict[str, Any]:
    """What the configs of frameworks say of a detector's use, by the names of `detector_config`."""
    inference = detector.recipe.inference
    return {
        "classes": len(detector.categories),
        "masks": detector_named(detector.recipe.settings.detector).has_masks,
        "sides": (inference.short_side, inference.max_side),
        "proposals": inference.proposals,
        "score_threshold": inference.score_threshold,
        "detections": inference.detections,
    }
