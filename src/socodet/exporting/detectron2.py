"""Detectron2: the `.pkl` layout that its checkpointer reads, and configs for fine-tuning by section 4.2's protocol.

Each config is self-contained: no base file, and no class that stock Detectron2 lacks.
"""

import io
import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor

from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, framework_path, python_string
from socodet.exporting.modules import PretrainedModules
from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from socodet.models.settings import ModelSettings
from socodet.weights.formats import detectron2

Settings = dict[str, Any]
"""Detectron2's settings by their dotted names."""

NORM = "SyncBN"
SHORT_SIDES = [640, 672, 704, 736, 768, 800]
VOC_SHORT_SIDES = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
COCO_ITERATIONS = {"1x": 90_000, "2x": 180_000}
LONGER_ITERATIONS = {"4x": 360_000}
"""Longer schedules of Table 10, on FPN."""
LVIS_ITERATIONS = {"1x": 180_000, "2x": 360_000, "90k": 90_000}
"""Detectron2's 1x and 2x, and the length in the method's public configuration, which its README calls 1x."""
VOC_ITERATIONS = 24_000
PICKLE_PROTOCOL = 4


def detectron2_files(modules: PretrainedModules, output: Path) -> FrameworkFiles:
    """The modules for `DetectionCheckpointer`, with configs of the detectors that they fit.

    InputError for modules that fit none of Detectron2's stock models.
    """
    depth = modules.depth("detectron2")
    is_c4, has_pyramid = modules.encoder.head_is_fifth_block, modules.encoder.has_pyramid
    if is_c4 and depth < 50:
        raise InputError(
            f"{modules.source}: C4 of a ResNet-{depth}; Detectron2's C4 detectors have bottleneck blocks, "
            "which begin with resnet50"
        )
    weights, left_out = modules.renamed(detectron2(pyramid=has_pyramid, c4=is_c4))
    folder = framework_path(output, "detectron2")
    configs: dict[str, str] = {}
    if not is_c4:
        configs |= fpn_configs(modules.settings, depth, output)
    if is_c4 or (not has_pyramid and depth >= 50):
        configs |= c4_configs(depth, output)
    first = folder / next(iter(configs))
    return FrameworkFiles(
        weights={output: pickled(weights)},
        left_out={output: left_out},
        configs={folder / name: text for name, text in configs.items()},
        how_to_load=(
            "from detectron2.checkpoint import DetectionCheckpointer\n"
            "from detectron2.config import get_cfg\n"
            "from detectron2.modeling import build_model\n\n"
            "cfg = get_cfg()\n"
            'cfg.MODEL.DEVICE = "cpu"  # or "cuda"\n'
            f"cfg.merge_from_file({python_string(f'{first.parent.name}/{first.name}')})\n"
            f"cfg.MODEL.WEIGHTS = {python_string(output.name)}\n"
            "model = build_model(cfg)\n"
            "DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)"
        ),
        notes=(
            "Images: RGB, 0 to 255, as set in the configs (INPUT.FORMAT, PIXEL_MEAN, PIXEL_STD).",
            "Stride 2 is in the 3x3 convolutions (STRIDE_IN_1X1 False).",
            "A config of your own needs the norms, the layers and the pixels of these configs: about tensors without a "
            "place, Detectron2 only logs a warning.",
            "MODEL.WEIGHTS in the configs is where the file was written; if you move it, give its path on the command "
            f"line: `train_net.py --config-file … MODEL.WEIGHTS {shlex.quote(output.name)}`.",
        ),
    )


def pickled(weights: Mapping[str, Tensor]) -> bytes:
    """The file's bytes: arrays under "model", and the flag that makes Detectron2 match names by their endings."""
    buffer = io.BytesIO()
    content = {
        "model": {name: value.numpy() for name, value in weights.items()},
        "__author__": "socodet",
        "matching_heuristics": True,
    }
    _ArrayPickler(buffer, PICKLE_PROTOCOL).dump(content)
    return buffer.getvalue()


class _ArrayPickler(pickle.Pickler):
    """Pickles arrays through `numpy.ndarray` alone.

    NumPy's own pickles name private modules that moved in NumPy 2.0, so they do not load where Detectron2 is installed
    with an older NumPy.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            return np.ndarray, (obj.shape, obj.dtype.str, bytearray(np.ascontiguousarray(obj).tobytes()))
        return NotImplemented


def fpn_configs(settings: ModelSettings, depth: int, weights: Path) -> dict[str, str]:
    """Mask R-CNN on FPN, for COCO (1x, 2x, 4x) and LVIS v1 (1x, 2x, 90k): file name → text."""
    model = fpn_settings(settings, depth, weights)
    coco = {
        f"mask_rcnn_R_{depth}_FPN_{name}.yaml": as_yaml(model | _coco(iterations))
        for name, iterations in (COCO_ITERATIONS | LONGER_ITERATIONS).items()
    }
    lvis = {
        f"lvis_mask_rcnn_R_{depth}_FPN_{name}.yaml": as_yaml(model | _lvis(iterations))
        for name, iterations in LVIS_ITERATIONS.items()
    }
    return coco | lvis


def c4_configs(depth: int, weights: Path) -> dict[str, str]:
    """Mask R-CNN on C4 for COCO (1x, 2x), Faster R-CNN on C4 for VOC: file name → text."""
    model = _common(depth, weights) | _C4
    coco = {
        f"mask_rcnn_R_{depth}_C4_{name}.yaml": as_yaml(model | _coco(iterations))
        for name, iterations in COCO_ITERATIONS.items()
    }
    return coco | {f"voc_faster_rcnn_R_{depth}_C4_24k.yaml": as_yaml(model | _voc())}


def _common(depth: int, weights: Path) -> Settings:
    return {
        "VERSION": 2,
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        # not resolved if it is a link: Detectron2 recognises the layout by the suffix
        "MODEL.WEIGHTS": str(weights.absolute()),
        "MODEL.MASK_ON": True,
        "MODEL.PIXEL_MEAN": [round(255 * mean, 3) for mean in IMAGENET_MEAN],
        "MODEL.PIXEL_STD": [round(255 * std, 3) for std in IMAGENET_STD],
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.NORM": NORM,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "INPUT.FORMAT": "RGB",
        "INPUT.MIN_SIZE_TRAIN": SHORT_SIDES,
        "TEST.PRECISE_BN.ENABLED": True,
    }


def fpn_settings(settings: ModelSettings, depth: int, weights: Path) -> Settings:
    """The network of Mask R-CNN on FPN, and the path of its weights."""
    stages = ["res2", "res3", "res4", "res5"]
    return _common(depth, weights) | {
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.RESNETS.OUT_FEATURES": stages,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 256 if depth >= 50 else 64,
        "MODEL.FPN.IN_FEATURES": stages,
        "MODEL.FPN.OUT_CHANNELS": settings.fpn_channels,
        "MODEL.FPN.NORM": NORM,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_CONV": settings.head_convs,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": settings.head_channels,
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_BOX_HEAD.FC_DIM": settings.representation_size,
        "MODEL.ROI_BOX_HEAD.NORM": NORM,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": settings.pooled_size,
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
        "MODEL.ROI_MASK_HEAD.NORM": NORM,
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    }


_C4: Settings = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.NORM": NORM,
}


def _coco(iterations: int) -> Settings:
    return {
        "DATASETS.TRAIN": ["coco_2017_train"],
        "DATASETS.TEST": ["coco_2017_val"],
        **_schedule(iterations, drops=(2 / 3, 8 / 9), weight_decay=2.5e-5, warmup=1000),
    }


def _lvis(iterations: int) -> Settings:
    return {
        "MODEL.ROI_HEADS.NUM_CLASSES": 1203,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0001,
        "DATASETS.TRAIN": ["lvis_v1_train"],
        "DATASETS.TEST": ["lvis_v1_val"],
        "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
        "DATALOADER.REPEAT_THRESHOLD": 0.001,
        "TEST.DETECTIONS_PER_IMAGE": 300,
        **_schedule(iterations, drops=(2 / 3, 8 / 9), weight_decay=2.5e-5, warmup=1000),
    }


def _voc() -> Settings:
    return {
        "MODEL.MASK_ON": False,
        "MODEL.ROI_HEADS.NUM_CLASSES": 20,
        "DATASETS.TRAIN": ["voc_2007_trainval", "voc_2012_trainval"],
        "DATASETS.TEST": ["voc_2007_test"],
        "INPUT.MIN_SIZE_TRAIN": VOC_SHORT_SIDES,
        # Section 4.2 gives no warm-up for VOC; this is Detectron2's for this detector.
        **_schedule(VOC_ITERATIONS, drops=(3 / 4, 11 / 12), weight_decay=1e-4, warmup=100),
    }


def _schedule(iterations: int, *, drops: tuple[float, float], weight_decay: float, warmup: int) -> Settings:
    """Section 4.2: batches of 16, and a base learning rate of 0.02 that is divided by 10 twice."""
    return {
        "SOLVER.IMS_PER_BATCH": 16,
        "SOLVER.BASE_LR": 0.02,
        "SOLVER.WEIGHT_DECAY": weight_decay,
        "SOLVER.WARMUP_ITERS": warmup,
        "SOLVER.STEPS": [round(drop * iterations) for drop in drops],
        "SOLVER.MAX_ITER": iterations,
    }


class _Dumper(yaml.SafeDumper):
    """Writes maps as blocks and lists on one line, and repeated lists in full instead of as aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


def as_yaml(settings: Settings) -> str:
    """Dotted names as nested YAML."""
    tree: Settings = {}
    for name, value in settings.items():
        *parents, leaf = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=120)
    return text
