"""Tensor names of Hugging Face transformers' ResNet and detectors: RT-DETR, and the DETR family with that ResNet or a
timm network.

transformers has two ResNets of its own. `ResNet` is torchvision's network under other names. RT-DETR's is timm's
`resnet50d`: a stem of three convolutions, and average pooling in the shortcuts of stride 2.
"""

import math
import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from socodet.models.backbones import EPSILON, SINGLE_STAGE_FINEST
from socodet.weights.renaming import Line, Renaming

_BACKBONE = re.compile(r"(?:.*\.)?backbone\.(?:conv_encoder\.)?model\.(?:_backbone\.)?")
_EXTRA_SHORTCUT = "body.layer1.0.downsample."


def backbone_of(names: Collection[str]) -> str | None:
    """The prefix of the backbone's tensor names; None if these are not a transformers detector's names."""
    return next((match[0] for name in names if (match := _BACKBONE.match(name))), None)


def resnet_of(prefix: str) -> Renaming:
    """The renaming for transformers' ResNet alone, such as a classifier's."""
    return Renaming(*_resnet(prefix))


def is_rt_detr(names: Collection[str]) -> bool:
    """Whether these are the names of RT-DETR, version 1 or 2."""
    return any(name.endswith("encoder_input_proj.0.0.weight") for name in names)


def transformers_of(names: Collection[str]) -> Renaming:
    """The renaming for a detector with these names, which `backbone_of` recognises."""
    prefix = backbone_of(names) or ""
    lines: list[Line] = []
    if f"{prefix}embedder.embedder.0.convolution.weight" in names:
        lines += _rt_detr_resnet(prefix)
    elif f"{prefix}embedder.embedder.convolution.weight" in names:
        lines += _resnet(prefix)
    else:
        lines.append((f"{prefix}{{rest}}", "body.{rest}"))
    if is_rt_detr(names):
        lines += _rt_detr_encoder(prefix[: prefix.index("backbone.")])
    return Renaming(*lines)


def adapt_names(tensors: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, tuple[str, Tensor]]:
    """A source's tensors adapted to a network with the plain names `wanted`, each with its plain name in the source.

    RT-DETR's input projections are a pyramid's 1x1 convolutions from P3 on. Its ResNet-18 and 34 have a convolution
    with batch norm in the first block's shortcut, where timm's have none; it is filled with an identity.
    """
    found = {plain: (plain, value) for plain, value in tensors.items()}
    if any(plain.startswith("projection.") for plain in {*wanted} - found.keys()):
        for plain in [plain for plain in found if plain.startswith("lateral.")]:
            there = plain.replace("lateral.", "projection.")
            if there.replace("num_batches_tracked", "weight") in wanted:
                found[there] = found.pop(plain)
    weight = tensors.get("body.layer1.0.conv2.weight")
    lacking = f"{_EXTRA_SHORTCUT}1.weight" in wanted and f"{_EXTRA_SHORTCUT}1.weight" not in tensors
    if weight is None or not lacking or "body.layer1.0.conv3.weight" in tensors or "body.conv1.6.weight" not in tensors:
        return found
    channels, dtype = len(weight), weight.dtype
    identity = {
        "1.weight": torch.eye(channels, dtype=dtype)[:, :, None, None],
        "2.weight": torch.full((channels,), math.sqrt(1 + EPSILON), dtype=dtype),
        "2.bias": torch.zeros(channels, dtype=dtype),
        "2.running_mean": torch.zeros(channels, dtype=dtype),
        "2.running_var": torch.ones(channels, dtype=dtype),
    }
    return {**found, **{f"{_EXTRA_SHORTCUT}{name}": ("an identity", value) for name, value in identity.items()}}


def _resnet(prefix: str) -> list[Line]:
    return [
        (f"{prefix}embedder.embedder.convolution.{{rest}}", "body.conv1.{rest}"),
        (f"{prefix}embedder.embedder.normalization.{{rest}}", "body.bn1.{rest}"),
        *_blocks(f"{prefix}encoder.stages.{{stage-1}}.layers.{{block}}."),
        *_shortcut(f"{prefix}encoder.stages.{{stage-1}}.layers.{{block}}.shortcut.", "layer{stage}", 0),
    ]


def _rt_detr_resnet(prefix: str) -> list[Line]:
    stem = [("0.convolution", "conv1.0"), ("1.convolution", "conv1.3"), ("2.convolution", "conv1.6")]
    stem += [("0.normalization", "conv1.1"), ("1.normalization", "conv1.4"), ("2.normalization", "bn1")]
    return [
        *((f"{prefix}embedder.embedder.{theirs}.{{rest}}", f"body.{ours}.{{rest}}") for theirs, ours in stem),
        *_blocks(f"{prefix}encoder.stages.{{stage-1}}.layers.{{block}}."),
        *_shortcut(f"{prefix}encoder.stages.0.layers.{{block}}.shortcut.", "layer1", 1),
        *_shortcut(f"{prefix}encoder.stages.{{stage-1}}.layers.{{block}}.shortcut.1.", "layer{stage}", 1),
    ]


def _blocks(theirs: str) -> list[Line]:
    return [
        (f"{theirs}layer.{{n-1}}.convolution.{{rest}}", "body.layer{stage}.{block}.conv{n}.{rest}"),
        (f"{theirs}layer.{{n-1}}.normalization.{{rest}}", "body.layer{stage}.{block}.bn{n}.{rest}"),
    ]


def _shortcut(theirs: str, layer: str, first: int) -> list[Line]:
    return [
        (f"{theirs}convolution.{{rest}}", f"body.{layer}.{{block}}.downsample.{first}.{{rest}}"),
        (f"{theirs}normalization.{{rest}}", f"body.{layer}.{{block}}.downsample.{first + 1}.{{rest}}"),
    ]


def _rt_detr_encoder(prefix: str) -> list[Line]:
    """Input projections, the hybrid encoder, and everything after it."""
    level = f"{{level-{SINGLE_STAGE_FINEST}}}"
    return [
        (f"{prefix}encoder_input_proj.{level}.0.{{rest}}", "projection.{level}.conv.{rest}"),
        (f"{prefix}encoder_input_proj.{level}.1.{{rest}}", "projection.{level}.norm.{rest}"),
        (f"{prefix}encoder.{{rest}}", "hybrid.{rest}"),
        (f"{prefix}enc_score_head.{{rest}}", "classes.enc_score_head.{rest}"),
        (f"{prefix}denoising_class_embed.{{rest}}", "classes.denoising_class_embed.{rest}"),
        (f"{prefix}decoder.class_embed.{{rest}}", "classes.decoder.{rest}"),
        ("pixel_{rest}", "input.{rest}"),
        (f"{prefix}{{rest}}", "decoder.{rest}"),  # what is not under it is the same tensors again
    ]
