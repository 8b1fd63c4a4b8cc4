"""MMDetection 3.x: one file for its R-CNNs, one for its single-stage detectors, and Python configs to fine-tune them.

Each config inherits from one of MMDetection's and changes what the weights require: RGB pixels, stride 2 in the 3x3
convolutions, nothing frozen, synchronised batch norm everywhere (section 4.2), and the path of the weights.
"""

import shlex
from pathlib import Path
from pprint import pformat
from typing import Any

from socodet.exporting.files import FrameworkFiles, framework_path, state_dict_bytes
from socodet.exporting.modules import PretrainedModules
from socodet.models.backbones import SINGLE_STAGE_FINEST
from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from socodet.models.settings import ModelSettings
from socodet.weights.formats import mmdetection

Settings = dict[str, Any]

NORM = {"type": "SyncBN", "requires_grad": True}
MASK_RCNN_WEIGHT_DECAY = 2.5e-5
"""Weight decay of section 4.2 for COCO; RetinaNet and FCOS keep MMDetection's own optimiser settings (section 4.5)."""


def mmdetection_files(modules: PretrainedModules, output: Path) -> FrameworkFiles:
    """The modules for `load_from`, with configs of the detectors that they fit.

    MMDetection numbers a neck's blocks from its finest level: `neck.lateral_convs.0` is P2's in an R-CNN, but P3's in
    RetinaNet and FCOS. These two therefore get a second file, `NAME.single_stage.pth`, without P2's blocks and the box
    head.
    """
    depth = modules.depth("mmdetection")
    is_c4 = modules.encoder.head_is_fifth_block
    weights, left_out = modules.renamed(mmdetection(c4=is_c4))
    files, missing = {output: state_dict_bytes(weights, output)}, {output: left_out}
    folder = framework_path(output, "mmdetection")
    if is_c4:
        configs = c4_configs(depth, output.name)
        note = "The fifth residual block is `roi_head.shared_head.layer4`."
    else:
        second = output.with_name(f"{output.stem}.single_stage.pth")
        weights, missing[second] = modules.renamed(mmdetection(SINGLE_STAGE_FINEST))
        files[second] = state_dict_bytes(weights, second)
        configs = fpn_configs(modules.settings, depth, output.name)
        configs |= single_stage_configs(modules.settings, depth, second.name)
        note = (
            f"`{output.name}` is for R-CNNs; RetinaNet and FCOS number their pyramid's blocks from P3 on and take "
            f"`{second.name}`."
        )
    first = shlex.quote(f"{folder.name}/{next(iter(configs))}")
    return FrameworkFiles(
        weights=files,
        left_out=missing,
        configs={folder / name: text for name, text in configs.items()},
        how_to_load=f"mim train mmdet {first}  # or python tools/train.py {first}",
        language="sh",
        notes=(
            "Images: RGB, 0 to 255, as set in the configs (bgr_to_rgb, mean, std).",
            'Stride 2 is in the 3x3 convolutions (style="pytorch").',
            "A config of your own needs the norms, the layers and the pixels of these configs: about tensors without a "
            "place, MMDetection only logs a warning.",
            note,
        ),
    )


def fpn_configs(settings: ModelSettings, depth: int, weights: str) -> dict[str, str]:
    """Mask R-CNN on FPN with the pretrained box head, COCO 1x and 2x: file name → text."""
    model = fpn_model(settings, depth)
    return {
        f"mask_rcnn_r{depth}_fpn_{schedule}.py": _config(
            f"mmdet::mask_rcnn/mask-rcnn_r50_fpn_{schedule}_coco.py", model, weights, MASK_RCNN_WEIGHT_DECAY
        )
        for schedule in ("1x", "2x")
    }


def fpn_model(settings: ModelSettings, depth: int) -> Settings:
    """Mask R-CNN's modules on FPN."""
    channels = settings.fpn_channels
    extractor = {"out_channels": channels}
    return {
        "data_preprocessor": _PIXELS,
        "backbone": _backbone(depth),
        "neck": _neck(settings, depth),
        "rpn_head": {"in_channels": channels, "feat_channels": channels},
        "roi_head": {
            "bbox_roi_extractor": {**extractor, "roi_layer": {"output_size": settings.pooled_size}},
            "bbox_head": {
                "type": "ConvFCBBoxHead",
                "num_shared_convs": settings.head_convs,
                "num_shared_fcs": 1,
                "in_channels": channels,
                "conv_out_channels": settings.head_channels,
                "fc_out_channels": settings.representation_size,
                "roi_feat_size": settings.pooled_size,
                "norm_cfg": NORM,
            },
            "mask_roi_extractor": extractor,
            "mask_head": {"in_channels": channels, "norm_cfg": NORM},
        },
    }


def single_stage_configs(settings: ModelSettings, depth: int, weights: str) -> dict[str, str]:
    """RetinaNet and FCOS, COCO 1x: file name → text. The extra levels of their pyramids (P6, P7) start fresh."""
    model = {
        "data_preprocessor": _PIXELS,
        "backbone": _backbone(depth),
        "neck": _neck(settings, depth),
        "bbox_head": {"in_channels": settings.fpn_channels},
    }
    return {
        f"retinanet_r{depth}_fpn_1x.py": _config("mmdet::retinanet/retinanet_r50_fpn_1x_coco.py", model, weights),
        f"fcos_r{depth}_fpn_1x.py": _config("mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", model, weights),
    }


def c4_configs(depth: int, weights: str) -> dict[str, str]:
    """Mask R-CNN on C4 with the fifth residual block as the shared head, COCO 1x: file name → text."""
    *_, c4, c5 = _stage_channels(depth)
    model = {
        "data_preprocessor": _PIXELS,
        "backbone": _backbone(depth),
        "rpn_head": {"in_channels": c4, "feat_channels": c4},
        "roi_head": {
            "shared_head": {"depth": depth, "style": "pytorch", "norm_cfg": NORM, "norm_eval": False},
            "bbox_roi_extractor": {"out_channels": c4},
            "bbox_head": {"in_channels": c5},
            "mask_head": {"in_channels": c5, "norm_cfg": NORM},
        },
    }
    base = "mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py"
    return {f"mask_rcnn_r{depth}_c4_1x.py": _config(base, model, weights, MASK_RCNN_WEIGHT_DECAY)}


_PIXELS: Settings = {
    "mean": [round(255 * mean, 3) for mean in IMAGENET_MEAN],
    "std": [round(255 * std, 3) for std in IMAGENET_STD],
    "bgr_to_rgb": True,
}


def _backbone(depth: int) -> Settings:
    return {
        "depth": depth,
        "style": "pytorch",
        "frozen_stages": -1,
        "norm_cfg": NORM,
        "norm_eval": False,
        "init_cfg": None,
    }


def _neck(settings: ModelSettings, depth: int) -> Settings:
    return {
        "in_channels": _stage_channels(depth),
        "out_channels": settings.fpn_channels,
        "norm_cfg": NORM,
    }


def _stage_channels(depth: int) -> list[int]:
    """C2 to C5: bottleneck blocks, from ResNet-50 on, have four times the channels."""
    return [(256 if depth >= 50 else 64) * 2**stage for stage in range(4)]


def _config(base: str, model: Settings, weights: str, weight_decay: float | None = None) -> str:
    """The config's text; `load_from` is relative to the config, so both can be moved together."""
    lines = [f"_base_ = {base!r}", f"model = {pformat(model, sort_dicts=False, width=110)}"]
    if weight_decay is not None:
        lines.append(f"optim_wrapper = dict(optimizer=dict(weight_decay={weight_decay}))")
    lines.append(f"load_from = {'{{ fileDirname }}/../' + weights!r}")
    return "\n".join(lines) + "\n"
