"""The sizes of a network's modules, as the shapes of its tensors show them."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from socodet.errors import InputError
from socodet.models.backbone_names import TIMM, check_backbone
from socodet.models.backbones import STAGES, resnet_depth
from socodet.models.settings import ModelSettings
from socodet.weights.pretrained_run import model_settings
from socodet.weights.read import read_pretrained

RESNET_TENSOR = re.compile(
    r"(conv1|bn1|layer[1-4]\.\d+\.((conv|bn)\d|downsample\.[01]))\.(weight|bias|running_\w+|num_\w+)"
)
WIDER: dict[tuple[str, float, float], str] = {
    ("resnet50", 2, 1): "wide_resnet50_2",
    ("resnet101", 2, 1): "wide_resnet101_2",
    ("resnet50", 2, 32): "resnext50_32x4d",
    ("resnet101", 2, 32): "resnext101_32x4d",
    ("resnet101", 4, 32): "resnext101_32x8d",
    ("resnet101", 4, 64): "resnext101_64x4d",
    ("resnet101", 8, 32): "resnext101_32x16d",
    ("resnet101", 16, 32): "resnext101_32x32d",
}
"""timm's networks by the ResNet with as many blocks, how many times as wide these are, and the groups of their second
convolution."""
HEAD_CONVOLUTION = re.compile(r"head\.conv\.\d+\.conv\.weight")


def settings_of(source: str | Path) -> ModelSettings:
    """Model settings of a run, of a transformers detector in a folder, or of a file of weights.

    Of a file, the backbone if it is one of torchvision's ResNets, wide ones and ResNeXts too, and the sizes of FPN and
    box head if it has them; the rest are the defaults. So are all for a file that cannot be read; loading it then says
    why. InputError for a folder that is neither, and for a backbone that needs timm where that is not installed.
    """
    if not Path(source).is_file():
        return model_settings(source)
    tensors = _tensors_in(source)
    backbone = _backbone_in(tensors, source) or ModelSettings.backbone
    try:
        return ModelSettings(backbone=backbone, **module_sizes(tensors))
    except InputError:
        return ModelSettings()


def backbone_in_file(file: str | Path) -> str | None:
    """The backbone in a file of weights, if it can be read and is one of torchvision's ResNets. InputError as above."""
    return _backbone_in(_tensors_in(file), file)


def _tensors_in(file: str | Path) -> Mapping[str, Tensor]:
    """Tensors by plain name, for their shapes; none if they cannot be read."""
    try:
        return read_pretrained(file, is_resnets, only_shapes=True).tensors
    except InputError:
        return {}


def is_resnets(name: str) -> bool:
    """Whether it is the name of a tensor of torchvision's ResNets, without their classifier."""
    return RESNET_TENSOR.fullmatch(name) is not None


def resnet_in(tensors: Mapping[str, Tensor]) -> str | None:
    """The ResNet whose number and kind of blocks these tensors have, by plain name; None for another network."""
    stages = [{name.split(".")[2] for name in tensors if name.startswith(f"body.{stage}.")} for stage in STAGES]
    depth = resnet_depth(tuple(map(len, stages)), bottleneck="body.layer1.0.conv3.weight" in tensors)
    return None if depth is None else f"resnet{depth}"


def _backbone_in(tensors: Mapping[str, Tensor], source: str | Path) -> str | None:
    """The same, but timm's network for wider blocks, whose tensors have the same names.

    InputError, which names the `source`, if timm is needed and not installed.
    """
    name = resnet_in(tensors)
    firsts = ("conv1", "layer1.0.conv1", "layer1.0.conv2")
    shapes = [tuple(tensors[place].shape) for one in firsts if (place := f"body.{one}.weight") in tensors]
    if name is None or len(shapes) < len(firsts) or not all(len(shape) == 4 and min(shape) for shape in shapes):
        return name
    (stem, *_), (width, *_), (_, inputs, *_) = shapes
    wider = WIDER.get((name, width / stem, width / inputs))
    if wider is None:
        return name
    try:
        check_backbone(f"{TIMM}{wider}")
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return f"{TIMM}{wider}"


def module_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of `ModelSettings` that an FPN, RT-DETR's input projections, and a box head of convolutions and one fully
    connected layer show; fewer if some are missing.
    """
    sizes: dict[str, Any] = {}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    for levels in ("lateral", "projection"):
        if len(shape := shapes.get(f"{levels}.5.conv.weight", ())) == 4:
            sizes["fpn_channels"] = shape[0]
    convs = [shape[0] for name, shape in shapes.items() if HEAD_CONVOLUTION.fullmatch(name) and len(shape) == 4]
    linear = shapes.get("head.fc.weight", ())
    if min(convs, default=0) > 0 and len(linear) == 2 and "head.fc1.weight" not in tensors:
        outputs, inputs = linear
        sizes |= {
            "head_convs": len(convs),
            "head_channels": convs[-1],
            "representation_size": outputs,
            "pooled_size": math.isqrt(inputs // convs[-1]),
        }
    return sizes
