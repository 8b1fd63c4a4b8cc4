"""A fine-tuned R-CNN for MMDetection 3.x: a checkpoint with its classes, and the config of the detector."""

import io
from pathlib import Path

import torch

from socodet.deployment.rcnn import inference_of, renamed, transferable
from socodet.exporting.files import FrameworkFiles
from socodet.exporting.mmdetection_configs import detector_config
from socodet.finetuning.detector import TrainedDetector
from socodet.weights.formats import mmdetection
from socodet.weights.renaming import Line

HEADS: list[Line] = [
    ("rpn_head.rpn_conv.{rest}", "rpn.head.conv.0.0.{rest}"),
    ("rpn_head.rpn_cls.{rest}", "rpn.head.cls_logits.{rest}"),
    ("rpn_head.rpn_reg.{rest}", "rpn.head.bbox_pred.{rest}"),
    ("roi_head.bbox_head.fc_cls.{rest}", "roi_heads.box_predictor.cls_score.{rest}"),
    ("roi_head.bbox_head.fc_reg.{rest}", "roi_heads.box_predictor.bbox_pred.{rest}"),
    ("roi_head.mask_head.convs.{n}.conv.{rest}", "roi_heads.mask_head.{n}.0.{rest}"),
    ("roi_head.mask_head.convs.{n}.bn.{rest}", "roi_heads.mask_head.{n}.1.{rest}"),
    ("roi_head.mask_head.upsample.{rest}", "roi_heads.mask_predictor.conv5_mask.{rest}"),
    ("roi_head.mask_head.conv_logits.{rest}", "roi_heads.mask_predictor.mask_fcn_logits.{rest}"),
]
"""MMDetection's RPNHead, ConvFCBBoxHead and FCNMaskHead, and torchvision's."""


def mmdetection_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """Weights and config. InputError for what has no such detector there."""
    modules = transferable(detector, "mmdetection")
    weights = renamed(detector, modules, mmdetection(), HEADS)
    buffer = io.BytesIO()
    torch.save({"meta": {"dataset_meta": {"classes": list(detector.class_names)}}, "state_dict": weights}, buffer)
    config = output.with_name(f"{output.stem}-mmdetection") / "detector.py"
    text = detector_config(modules.settings, modules.depth("mmdetection"), **inference_of(detector))
    return FrameworkFiles(
        weights={output: buffer.getvalue()},
        left_out={output: ()},
        configs={config: text},
        how_to_load=(
            "from mmdet.apis import inference_detector, init_detector\n\n"
            f'model = init_detector("{config.parent.name}/{config.name}", "{output.name}", device="cpu")\n'
            'found = inference_detector(model, "image.jpg").pred_instances  # labels: 0 is the first class'
        ),
        notes=(
            "MMDetection does not round its anchors to whole pixels, and scales images as integers, so boxes differ by "
            "fractions of a pixel from those of `socodet predict`; without these two differences they are the same.",
            "Batch norm is BN in the config, for use on one device; set SyncBN to train on.",
        ),
    )
