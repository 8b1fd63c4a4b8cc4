"""A fine-tuned detector for torchvision: its weights, and a module that builds it from torchvision's parts alone."""

import inspect
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

from socodet.detection.detectors.by_name import builds_as, detector_named
from socodet.detection.detectors.fcos import FCOSFPN, norm_groups
from socodet.detection.detectors.pooling import AlignedRoIAlign
from socodet.detection.detectors.rcnn_fpn import MASK_POOLED, FasterRCNNFPN, MaskRCNNFPN
from socodet.detection.detectors.retinanet import RetinaNetFPN
from socodet.detection.detectors.transform import (
    DetectorTransform,
    boxes_with_area,
    mask_weights,
    paste_masks,
    scale_image,
    scaled_size,
)
from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, framework_path, python_string, state_dict_bytes
from socodet.finetuning.detector import TrainedDetector
from socodet.models.anchors import StridedAnchors
from socodet.models.backbone_names import RESNETS
from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD

MODULE = "detector.py"


def torchvision_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """Weights, and the module `NAME-torchvision/detector.py`. InputError for a detector of other parts."""
    module = framework_path(output, "torchvision") / MODULE
    text = _module(detector)
    weights = {name: tensor.contiguous() for name, tensor in detector.network.state_dict().items()}
    load = "safetensors.torch.load_file(" if output.suffix == ".safetensors" else "torch.load("
    imported = "import safetensors.torch\n" if output.suffix == ".safetensors" else ""
    return FrameworkFiles(
        weights={output: state_dict_bytes(weights, output)},
        left_out={output: ()},
        configs={module: text},
        configs_are="code that builds the detector",
        how_to_load=(
            f"import sys\n\n{imported}import torch\nfrom PIL import Image, ImageOps\n"
            "from torchvision.transforms.functional import pil_to_tensor\n\n"
            f"sys.path.insert(0, {python_string(module.parent.name)})\nfrom detector import CLASSES, build\n\n"
            f"detector = build()\ndetector.load_state_dict({load}{python_string(output.name)}))\ndetector.eval()\n"
            'image = pil_to_tensor(ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")) / 255\n'
            "with torch.no_grad():\n    (found,) = detector([image])  # boxes, scores, labels, perhaps masks\n"
            'names = [CLASSES[label] for label in found["labels"]]'
        ),
        notes=(
            "Images: RGB in 0 to 1, (3, H, W); label 1 is the first class. No socodet needed.",
            "In training mode it does not scale images; scale them and their targets to the size given above.",
        ),
    )


def _module(detector: TrainedDetector) -> str:
    settings, model, inference = detector.recipe.settings, detector.recipe.model, detector.recipe.inference
    kind = detector_named(settings.detector)
    if not builds_as(kind, FasterRCNNFPN, MaskRCNNFPN, RetinaNetFPN, FCOSFPN):
        raise InputError(
            f"{detector.run}: torchvision has no parts for {settings.detector}; use --format onnx, or "
            "socodet.load_detector"
        )
    if model.backbone not in RESNETS:
        raise InputError(
            f"{detector.run}: torchvision has no backbone {model.backbone}; use --format onnx, or socodet.load_detector"
        )
    width = 256 if int(model.backbone.removeprefix("resnet")) >= 50 else 64
    build = _RCNN if isinstance(kind, FasterRCNNFPN) else _RETINANET if isinstance(kind, RetinaNetFPN) else _FCOS
    network: Any = detector.network
    anchors = network.rpn.anchor_generator if isinstance(kind, FasterRCNNFPN) else network.anchor_generator
    values = {
        "detector": settings.detector,
        "classes": ["background", *detector.class_names],
        "backbone": model.backbone,
        "fpn": model.fpn_channels,
        "c2": width,
        "short_side": inference.short_side,
        "max_side": inference.max_side,
        "proposals": inference.proposals,
        "score": inference.score_threshold,
        "detections": inference.detections,
        "pooled": model.pooled_size,
        "head": [model.head_channels] * model.head_convs,
        "representation": model.representation_size,
        "groups": norm_groups(model.fpn_channels),
        "mask_channels": network.roi_heads.mask_head[0][0].out_channels if kind.has_masks else None,
        "mask_pooled": MASK_POOLED,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "anchors": f"{anchors.sizes}, {anchors.aspect_ratios}, {anchors.strides}",
        "rcnn": "MaskRCNN" if kind.has_masks else "FasterRCNN",
    }
    values["masks"] = Template(_MASKS).substitute(values) if kind.has_masks else ""
    parts: list[Callable[..., Any]] = [
        DetectorTransform,
        scaled_size,
        scale_image,
        paste_masks,
        mask_weights,
        boxes_with_area,
        StridedAnchors,
    ]
    if isinstance(kind, FasterRCNNFPN):
        parts.append(AlignedRoIAlign)
    sources = map(inspect.getsource, parts)
    return "\n\n".join([Template(_HEAD).substitute(values), *sources, Template(build).substitute(values)])


_HEAD = '''"""A $detector made of torchvision's parts; written by socodet, but usable without it."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import resnet
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_roi_align
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

CLASSES = $classes
IMAGENET_MEAN, IMAGENET_STD = $mean, $std
STRIDES = {"0": 4, "1": 8, "2": 16, "3": 32}
roi_align = partial(torchvision_roi_align, sampling_ratio=0, aligned=True)


class InferenceSettings(NamedTuple):
    short_side: int = $short_side
    max_side: int = $max_side

'''
_BACKBONE = """    body = resnet.$backbone(weights=None, norm_layer=nn.BatchNorm2d)
    levels = {f"layer{stage + 1}": str(stage) for stage in range(FINEST, 4)}
    channels = [$c2 * 2**stage for stage in range(FINEST, 4)]
"""
_RCNN = (
    """
def build() -> nn.Module:
    FINEST = 0
"""
    + _BACKBONE
    + """    network = $rcnn(
        BackboneWithFPN(body, levels, channels, $fpn, norm_layer=nn.BatchNorm2d),
        rpn_anchor_generator=StridedAnchors($anchors),
        rpn_head=RPNHead($fpn, 3, conv_depth=1),
        rpn_pre_nms_top_n_test=$proposals,
        rpn_post_nms_top_n_test=$proposals,
        box_roi_pool=AlignedRoIAlign(STRIDES, $pooled),
        box_head=FastRCNNConvFCHead(($fpn, $pooled, $pooled), $head, [$representation], nn.BatchNorm2d),
        box_predictor=FastRCNNPredictor($representation, len(CLASSES)),
        box_score_thresh=$score,
        box_detections_per_img=$detections,
$masks    )
    network.transform = DetectorTransform(InferenceSettings())
    return network
"""
)
_MASKS = """        mask_roi_pool=AlignedRoIAlign(STRIDES, $mask_pooled),
        mask_head=MaskRCNNHeads($fpn, [$mask_channels] * 4, 1, nn.BatchNorm2d),
        mask_predictor=MaskRCNNPredictor($mask_channels, $mask_channels, len(CLASSES)),
"""
_RETINANET = (
    """
def build() -> nn.Module:
    FINEST = 1
"""
    + _BACKBONE
    + """    extra = LastLevelP6P7(channels[-1], $fpn)
    network = RetinaNet(
        BackboneWithFPN(body, levels, channels, $fpn, extra, nn.BatchNorm2d),
        len(CLASSES),
        anchor_generator=StridedAnchors($anchors),
        score_thresh=$score,
        detections_per_img=$detections,
    )
    network.transform = DetectorTransform(InferenceSettings())
    return network
"""
)
_FCOS = (
    """
def build() -> nn.Module:
    FINEST = 1
"""
    + _BACKBONE
    + """    norm = partial(nn.GroupNorm, $groups)
    head = FCOSHead($fpn, 1, len(CLASSES), num_convs=0)
    head.classification_head = FCOSClassificationHead($fpn, 1, len(CLASSES), norm_layer=norm)
    head.regression_head = FCOSRegressionHead($fpn, 1, norm_layer=norm)
    network = FCOS(
        BackboneWithFPN(body, levels, channels, $fpn, LastLevelP6P7($fpn, $fpn), nn.BatchNorm2d),
        len(CLASSES),
        anchor_generator=StridedAnchors($anchors),
        head=head,
        score_thresh=$score,
        nms_thresh=0.5,
        detections_per_img=$detections,
    )
    network.transform = DetectorTransform(InferenceSettings())
    return network
"""
)
