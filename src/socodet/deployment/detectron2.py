"""A fine-tuned R-CNN for Detectron2: all weights in its `.pkl` layout, and the config of the detector."""

from pathlib import Path

from socodet.deployment.rcnn import inference_of, renamed, transferable
from socodet.exporting.detectron2 import pickled
from socodet.exporting.detectron2_configs import detector_config
from socodet.exporting.files import FrameworkFiles
from socodet.finetuning.detector import TrainedDetector
from socodet.weights.formats import detectron2
from socodet.weights.renaming import Line

HEADS: list[Line] = [
    ("proposal_generator.rpn_head.conv.{rest}", "rpn.head.conv.0.0.{rest}"),
    ("proposal_generator.rpn_head.objectness_logits.{rest}", "rpn.head.cls_logits.{rest}"),
    ("proposal_generator.rpn_head.anchor_deltas.{rest}", "rpn.head.bbox_pred.{rest}"),
    ("roi_heads.box_predictor.{rest}", "roi_heads.box_predictor.{rest}"),
    ("roi_heads.mask_head.mask_fcn{n+1}.{rest}", "roi_heads.mask_head.{n}.0.{rest}"),
    ("roi_heads.mask_head.mask_fcn{n+1}.norm.{rest}", "roi_heads.mask_head.{n}.1.{rest}"),
    ("roi_heads.mask_head.deconv.{rest}", "roi_heads.mask_predictor.conv5_mask.{rest}"),
    ("roi_heads.mask_head.predictor.{rest}", "roi_heads.mask_predictor.mask_fcn_logits.{rest}"),
]
"""Detectron2's StandardRPNHead, FastRCNNOutputLayers and MaskRCNNConvUpsampleHead, and torchvision's."""


def detectron2_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """Weights and config. InputError for what Detectron2 has no such detector for."""
    modules = transferable(detector, "detectron2")
    weights = renamed(detector, modules, detectron2(pyramid=True, c4=False), HEADS)
    config = output.with_name(f"{output.stem}-detectron2") / "detector.yaml"
    text = detector_config(modules.settings, modules.depth("detectron2"), output, **inference_of(detector))
    return FrameworkFiles(
        weights={output: pickled(weights)},
        left_out={output: ()},
        configs={config: text},
        how_to_load=(
            "import cv2\n"
            "from detectron2.config import get_cfg\n"
            "from detectron2.engine import DefaultPredictor\n\n"
            "cfg = get_cfg()\n"
            f'cfg.merge_from_file("{config.parent.name}/{config.name}")\n'
            f'cfg.MODEL.WEIGHTS = "{output.name}"\n'
            'found = DefaultPredictor(cfg)(cv2.imread("image.jpg"))["instances"]  # pred_classes 0 is the first class'
        ),
        notes=(
            "Detectron2 does not round its anchors to whole pixels, and scales images as integers, so boxes differ by "
            "fractions of a pixel from those of `socodet predict`; without these two differences they are the same.",
            "Batch norm is BN in the config, for use on one device; set SyncBN to train on.",
        ),
    )
