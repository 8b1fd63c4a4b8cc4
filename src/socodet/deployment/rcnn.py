"""A fine-tuned R-CNN on a pyramid for Detectron2 and MMDetection 3.x, which have the same network under other names.

The difference: there the background is the last class instead of the first, and has neither boxes nor masks.
"""

import io
import json
from pathlib import Path
from pprint import pformat

import torch
from torch import Tensor

from socodet.detection.detectors.by_name import builds_as, detector_named
from socodet.detection.detectors.rcnn_fpn import FasterRCNNFPN, MaskRCNNFPN
from socodet.errors import InputError
from socodet.exporting.detectron2 import NORM, as_yaml, fpn_settings, pickled
from socodet.exporting.files import FrameworkFiles, framework_path, python_string
from socodet.exporting.mmdetection import fpn_model
from socodet.exporting.modules import PretrainedModules
from socodet.finetuning.detector import TrainedDetector
from socodet.weights.formats import detectron2, mmdetection, torchvision_of
from socodet.weights.renaming import Line, Renaming

DETECTRON2_HEADS: list[Line] = [
    ("roi_heads.box_predictor.{rest}", "roi_heads.box_predictor.{rest}"),
    ("roi_heads.mask_head.mask_fcn{n+1}.{rest}", "roi_heads.mask_head.{n}.0.{rest}"),
    ("roi_heads.mask_head.mask_fcn{n+1}.norm.{rest}", "roi_heads.mask_head.{n}.1.{rest}"),
    ("roi_heads.mask_head.deconv.{rest}", "roi_heads.mask_predictor.conv5_mask.{rest}"),
    ("roi_heads.mask_head.predictor.{rest}", "roi_heads.mask_predictor.mask_fcn_logits.{rest}"),
]
"""Tensor names: Detectron2's FastRCNNOutputLayers and MaskRCNNConvUpsampleHead, and torchvision's."""
MMDETECTION_HEADS: list[Line] = [
    ("roi_head.bbox_head.fc_cls.{rest}", "roi_heads.box_predictor.cls_score.{rest}"),
    ("roi_head.bbox_head.fc_reg.{rest}", "roi_heads.box_predictor.bbox_pred.{rest}"),
    ("roi_head.mask_head.convs.{n}.conv.{rest}", "roi_heads.mask_head.{n}.0.{rest}"),
    ("roi_head.mask_head.convs.{n}.bn.{rest}", "roi_heads.mask_head.{n}.1.{rest}"),
    ("roi_head.mask_head.upsample.{rest}", "roi_heads.mask_predictor.conv5_mask.{rest}"),
    ("roi_head.mask_head.conv_logits.{rest}", "roi_heads.mask_predictor.mask_fcn_logits.{rest}"),
]
"""Tensor names: MMDetection's ConvFCBBoxHead and FCNMaskHead, and torchvision's."""


def detectron2_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """All weights in Detectron2's `.pkl` layout, and the config. InputError if Detectron2 has no such detector."""
    depth, weights = _weights(detector, "detectron2", detectron2(pyramid=True, c4=False), DETECTRON2_HEADS)
    inference = detector.recipe.inference
    settings = fpn_settings(detector.recipe.model, depth, output) | {
        "MODEL.MASK_ON": _has_masks(detector),
        "MODEL.ROI_HEADS.NUM_CLASSES": len(detector.categories),
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": inference.score_threshold,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": inference.proposals,
        "MODEL.RPN.POST_NMS_TOPK_TEST": inference.proposals,
        "INPUT.MIN_SIZE_TEST": inference.short_side,
        "INPUT.MAX_SIZE_TEST": inference.max_side,
        "TEST.DETECTIONS_PER_IMAGE": inference.detections,
        "TEST.PRECISE_BN.ENABLED": False,
    }
    config = framework_path(output, "detectron2") / "detector.yaml"
    return FrameworkFiles(
        weights={output: pickled(weights)},
        left_out={output: ()},
        configs={config: as_yaml({name: "BN" if value == NORM else value for name, value in settings.items()})},
        how_to_load=(
            "import cv2\n"
            "from detectron2.config import get_cfg\n"
            "from detectron2.engine import DefaultPredictor\n\n"
            "cfg = get_cfg()\n"
            'cfg.MODEL.DEVICE = "cpu"  # or "cuda"\n'
            f"cfg.merge_from_file({python_string(f'{config.parent.name}/{config.name}')})\n"
            f"cfg.MODEL.WEIGHTS = {python_string(output.name)}\n"
            'found = DefaultPredictor(cfg)(cv2.imread("image.jpg"))["instances"]  # pred_classes 0 is the first class'
        ),
        notes=_notes("Detectron2"),
        first_label=0,
    )


def mmdetection_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """A checkpoint with class names, and the config. InputError if MMDetection has no such detector."""
    depth, weights = _weights(detector, "mmdetection", mmdetection(), MMDETECTION_HEADS)
    buffer = io.BytesIO()
    torch.save({"meta": {"dataset_meta": {"classes": list(detector.class_names)}}, "state_dict": weights}, buffer)
    config = framework_path(output, "mmdetection") / "detector.py"
    return FrameworkFiles(
        weights={output: buffer.getvalue()},
        left_out={output: ()},
        configs={config: _mmdetection_config(detector, depth)},
        how_to_load=(
            "from mmdet.apis import inference_detector, init_detector\n\n"
            f"model = init_detector({python_string(f'{config.parent.name}/{config.name}')}, "
            f'{python_string(output.name)}, device="cpu")\n'
            'found = inference_detector(model, "image.jpg").pred_instances  # labels: 0 is the first class'
        ),
        notes=_notes("MMDetection"),
        first_label=0,
    )


def _mmdetection_config(detector: TrainedDetector, depth: int) -> str:
    settings, inference = detector.recipe.model, detector.recipe.inference
    model = json.loads(json.dumps(fpn_model(settings, depth)).replace("SyncBN", "BN"))
    heads = model["roi_head"]
    heads["bbox_head"]["num_classes"] = len(detector.categories)
    if _has_masks(detector):
        heads["mask_head"]["num_classes"] = len(detector.categories)
        base = "mask_rcnn/mask-rcnn"
    else:
        del heads["mask_head"], heads["mask_roi_extractor"]
        base = "faster_rcnn/faster-rcnn"
    model["test_cfg"] = {
        "rpn": {"nms_pre": inference.proposals, "max_per_img": inference.proposals},
        "rcnn": {"score_thr": inference.score_threshold, "max_per_img": inference.detections},
    }
    # MMDetection takes the greater of the two as the limit of the longer side, whatever their order.
    scale = inference.max_side, min(inference.short_side, inference.max_side)
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": scale, "keep_ratio": True, "backend": "pillow"},
        {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
    ]
    lines = [
        f"_base_ = 'mmdet::{base}_r50_fpn_1x_coco.py'",
        f"model = {pformat(model, sort_dicts=False, width=110)}",
        f"test_pipeline = {pformat(pipeline, sort_dicts=False, width=110)}",
        "test_dataloader = dict(dataset=dict(pipeline=test_pipeline))",
    ]
    return "\n".join(lines) + "\n"


def _weights(
    detector: TrainedDetector, framework: str, names: Renaming, heads: list[Line]
) -> tuple[int, dict[str, Tensor]]:
    """The ResNet's depth, and every tensor by its name in the framework; InputError for a detector it does not have.

    names: the framework's names of plain names; heads: for all other tensors, pairs of the framework's name and ours.
    """
    recipe, others = detector.recipe, Renaming(*heads)
    if not builds_as(detector_named(recipe.settings.detector), FasterRCNNFPN, MaskRCNNFPN):
        raise InputError(
            f"{detector.run}: --format {framework} takes R-CNNs on a pyramid, not {recipe.settings.detector}; "
            "use --format onnx"
        )
    depth = PretrainedModules(str(detector.run), "a detector", recipe.model, {}).depth(framework)
    state = detector.network.state_dict()
    ours = torchvision_of(state, rpn=True)
    placed = {}
    for own, tensor in state.items():
        plain = ours.to_plain(own)
        there = others.from_plain(own) if plain is None else names.from_plain(plain)
        assert there is not None, own
        placed[there] = _background_last(own, tensor).contiguous()
    return depth, placed


def _background_last(own: str, tensor: Tensor) -> Tensor:
    """Moves the background to the end of the classes, and drops it from boxes and masks."""
    if own.startswith("roi_heads.box_predictor.cls_score."):
        return torch.roll(tensor, -1, dims=0)
    if own.startswith("roi_heads.box_predictor.bbox_pred."):
        return tensor[4:]
    return tensor[1:] if own.startswith("roi_heads.mask_predictor.mask_fcn_logits.") else tensor


def _has_masks(detector: TrainedDetector) -> bool:
    return detector_named(detector.recipe.settings.detector).has_masks


def _notes(framework: str) -> tuple[str, ...]:
    return (
        f"{framework} does not round its anchors to whole pixels, and scales images as integers, so boxes differ by "
        "fractions of a pixel from those of `socodet predict`; apart from these two differences they are the same.",
        "Batch norm is BN in the config, for use on one device; set SyncBN to train further.",
    )
