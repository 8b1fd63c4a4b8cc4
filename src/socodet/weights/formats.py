"""Tensor names in every framework and checkpoint format that can be read or written, mapped to plain names.

Plain names say what a tensor is, never its place in a list:

    body.NAME                      the backbone, NAME as in torchvision or timm; a C4 network's head is its layer4
    lateral.LEVEL.conv|norm.NAME   the pyramid's 1x1 convolution of level 2 to 5
    output.LEVEL.conv|norm.NAME    the pyramid's 3x3 convolution of that level
    head.conv.N.conv|norm.NAME     the box head's N-th convolution, from 1
    head.fc.NAME                   the box head's fully connected layer, with inputs in (channel, row, column) order
    rpn.conv.N.NAME                the RPN head's N-th convolution, from 0
    rpn.objectness.NAME, rpn.deltas.NAME  the RPN head's two outputs
    projection.LEVEL.conv|norm.NAME  RT-DETR's 1x1 convolution of level 3 to 5
    hybrid.NAME                    RT-DETR's hybrid encoder, NAME as in transformers
    decoder.NAME, classes.NAME     the rest of RT-DETR, without and with a row per class
    input.NAME                     mean and standard deviation that normalise a detector's pixels
    projector.NAME, predictor.NAME SoCo's MLPs, used only in pretraining

Tensors are renamed but never converted: the public code (github.com/hologerry/SoCo), torchvision and socodet all take
RGB normalised by ImageNet's mean and standard deviation and have their strides in the 3x3 convolutions; the other
frameworks can be configured to do the same.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from socodet.models.backbones import COARSEST, FINEST, SINGLE_STAGE_FINEST
from socodet.weights.renaming import Line, Renaming

BACKBONE = "backbone"
MODULES = {
    "body": BACKBONE,
    "lateral": "pyramid",
    "output": "pyramid",
    "head": "box head",
    "rpn": "RPN head",
    "projection": "input projections",
    "hybrid": "hybrid encoder",
    "decoder": "decoder",
    "classes": "class heads",
    "input": "normalisation of pixels",
    "projector": "projector",
    "predictor": "predictor",
}
"""The module, in words, for the first part of a plain name."""
MLPS = ("projector", "predictor")


def module_of(plain: str) -> str:
    """The module of the tensor with this plain name."""
    return MODULES[plain.partition(".")[0]]


def in_words(plain: str) -> str:
    """A description of the module for a reader, with the level of a pyramid and the layer of a backbone."""
    first, second, _ = plain.split(".", 2)
    if first in ("lateral", "output"):
        return f"P{second}'s {first} convolution"
    return second if first == "body" else module_of(plain)


@dataclass(frozen=True)
class Layout:
    """What the tensor names of torchvision's parts depend on."""

    finest: int = FINEST
    """The pyramid's finest level, from which its blocks are numbered."""
    fc: tuple[int, ...] = (5,)
    """Indices of fully connected layers in the box head."""
    c4: bool = False
    """Whether the box head is the ResNet's layer4."""

    @classmethod
    def of(cls, names: Collection[str], backbone: str, box_head: str) -> "Layout":
        """The layout of a network with these names; `backbone` and `box_head` are prefixes of its modules' names."""

        def numbers(pattern: str) -> set[int]:
            return {int(match[1]) for name in names if (match := re.match(pattern, name))}

        blocks = numbers(re.escape(backbone) + r"fpn\.inner_blocks\.(\d+)\.")
        fc = numbers(re.escape(box_head) + r"(\d+)\.weight$")
        return cls(
            COARSEST + 1 - len(blocks) if blocks else FINEST, tuple(sorted(fc)), f"{box_head}0.conv1.weight" in names
        )


def torchvision(layout: Layout, prefix: str = "", *, rpn: bool = False) -> Renaming:
    """Detectors of torchvision's parts: R-CNNs on FPN and on C4, RetinaNet, FCOS. rpn: include the RPN head."""
    lines = _torchvision_lines(f"{prefix}backbone.", f"{prefix}roi_heads.box_head.", layout)
    return Renaming(*lines, *(_rpn_lines(f"{prefix}rpn.head.") if rpn else ()))


def torchvision_of(names: Collection[str], prefix: str = "", *, rpn: bool = False) -> Renaming:
    """The same, with the layout derived from the names of such a detector."""
    return torchvision(Layout.of(names, f"{prefix}backbone.", f"{prefix}roi_heads.box_head."), prefix, rpn=rpn)


def run_of(names: Collection[str], prefix: str = "") -> Renaming:
    """Our pretraining networks, whose encoders are made of torchvision's parts; the layout is derived from `names`."""
    backbone, box_head = f"{prefix}online.encoder.backbone.", f"{prefix}online.encoder.box_head."
    level = f"{{level-{SINGLE_STAGE_FINEST}}}"
    return Renaming(
        *_torchvision_lines(backbone, box_head, Layout.of(names, backbone, box_head)),
        (f"{backbone}input_proj.{level}.0.{{rest}}", "projection.{level}.conv.{rest}"),
        (f"{backbone}input_proj.{level}.1.{{rest}}", "projection.{level}.norm.{rest}"),
        (f"{backbone}encoder.{{rest}}", "hybrid.{rest}"),
        *_rpn_lines(f"{prefix}online.encoder.rpn_head."),
        (f"{prefix}online.projector.{{rest}}", "projector.{rest}"),
        (f"{prefix}predictor.{{rest}}", "predictor.{rest}"),
    )


def public_code(prefix: str = "") -> Renaming:
    """The method's public code, FPN and C4. Names such as `encoder_k` belong to the target network and are ignored."""
    lines = [
        ("encoder.{rest}", "body.{rest}"),
        ("neck.lateral_convs.{level-2}.conv.{rest}", "lateral.{level}.conv.{rest}"),
        ("neck.lateral_convs.{level-2}.bn.{rest}", "lateral.{level}.norm.{rest}"),
        ("neck.fpn_convs.{level-2}.conv.{rest}", "output.{level}.conv.{rest}"),
        ("neck.fpn_convs.{level-2}.bn.{rest}", "output.{level}.norm.{rest}"),
        ("head.conv{n}.{rest}", "head.conv.{n}.conv.{rest}"),
        ("head.bn{n}.{rest}", "head.conv.{n}.norm.{rest}"),
        ("head.fc1.{rest}", "head.fc.{rest}"),
    ]
    for mlp in ("projector", "predictor"):
        for theirs, ours in (("linear1", 0), ("bn1", 1), ("linear2", 3)):
            lines.append((f"{mlp}.{theirs}.{{rest}}", f"{mlp}.{ours}.{{rest}}"))
    return Renaming(*((prefix + theirs, plain) for theirs, plain in lines))


def backbone(prefix: str = "") -> Renaming:
    """A backbone alone, with the tensor names of torchvision and timm."""
    return Renaming((f"{prefix}{{rest}}", "body.{rest}"))


def backbone_in_order(prefix: str = "") -> Renaming:
    """A ResNet of torchvision or timm whose children were put into an nn.Sequential, and so are numbered."""
    return Renaming(
        (f"{prefix}0.{{rest}}", "body.conv1.{rest}"),
        (f"{prefix}1.{{rest}}", "body.bn1.{rest}"),
        (f"{prefix}{{stage+3}}.{{block}}.{{rest}}", "body.layer{stage}.{block}.{rest}"),  # after ReLU and max pooling
    )


def detectron2(*, pyramid: bool, c4: bool) -> Renaming:
    """R-CNNs on FPN or on C4. For a backbone alone, the ending common to both, since Detectron2 matches endings."""
    body = "backbone.bottom_up." if pyramid else "backbone." if c4 else ""
    return Renaming(
        *(_residual_lines("roi_heads.res5.", "body.layer4.") if c4 else ()),
        *_residual_lines(f"{body}res{{stage+1}}.", "body.layer{stage}."),
        (f"{body}stem.conv1.norm.{{rest}}", "body.bn1.{rest}"),
        (f"{body}stem.conv1.{{rest}}", "body.conv1.{rest}"),
        ("backbone.fpn_lateral{level}.norm.{rest}", "lateral.{level}.norm.{rest}"),
        ("backbone.fpn_lateral{level}.{rest}", "lateral.{level}.conv.{rest}"),
        ("backbone.fpn_output{level}.norm.{rest}", "output.{level}.norm.{rest}"),
        ("backbone.fpn_output{level}.{rest}", "output.{level}.conv.{rest}"),
        ("roi_heads.box_head.conv{n}.norm.{rest}", "head.conv.{n}.norm.{rest}"),
        ("roi_heads.box_head.conv{n}.{rest}", "head.conv.{n}.conv.{rest}"),
        ("roi_heads.box_head.fc1.{rest}", "head.fc.{rest}"),
        ("proposal_generator.rpn_head.conv.{rest}", "rpn.conv.0.{rest}"),
        ("proposal_generator.rpn_head.objectness_logits.{rest}", "rpn.objectness.{rest}"),
        ("proposal_generator.rpn_head.anchor_deltas.{rest}", "rpn.deltas.{rest}"),
    )


def mmdetection(finest: int = FINEST, prefix: str = "", *, c4: bool = False) -> Renaming:
    """MMDetection 3.x numbers a neck's blocks from its finest level: P2's in R-CNNs, P3's in RetinaNet and FCOS."""
    neck = [
        (f"neck.{theirs}_convs.{level - finest}.{part}.{{rest}}", f"{plain}.{level}.{name}.{{rest}}")
        for level in range(finest, COARSEST + 1)  # later blocks belong to P6 and P7
        for theirs, plain in (("lateral", "lateral"), ("fpn", "output"))
        for part, name in (("conv", "conv"), ("bn", "norm"))
    ]
    box_head = [
        ("roi_head.bbox_head.shared_convs.{n-1}.conv.{rest}", "head.conv.{n}.conv.{rest}"),
        ("roi_head.bbox_head.shared_convs.{n-1}.bn.{rest}", "head.conv.{n}.norm.{rest}"),
        ("roi_head.bbox_head.shared_fcs.0.{rest}", "head.fc.{rest}"),
        ("rpn_head.rpn_conv.{rest}", "rpn.conv.0.{rest}"),
        ("rpn_head.rpn_cls.{rest}", "rpn.objectness.{rest}"),
        ("rpn_head.rpn_reg.{rest}", "rpn.deltas.{rest}"),
    ]
    lines = [
        *([("roi_head.shared_head.layer4.{rest}", "body.layer4.{rest}")] if c4 else ()),
        ("backbone.{rest}", "body.{rest}"),
        *neck,
        *(box_head if finest == FINEST else ()),
    ]
    return Renaming(*((prefix + theirs, plain) for theirs, plain in lines))


def _rpn_lines(head: str) -> list[Line]:
    """Torchvision's RPNHead; `head` is the prefix of its names."""
    return [
        (f"{head}conv.{{n}}.0.{{rest}}", "rpn.conv.{n}.{rest}"),
        (f"{head}cls_logits.{{rest}}", "rpn.objectness.{rest}"),
        (f"{head}bbox_pred.{{rest}}", "rpn.deltas.{rest}"),
    ]


def _torchvision_lines(backbone: str, box_head: str, layout: Layout) -> list[Line]:
    head = [
        (f"{box_head}{{n-1}}.0.{{rest}}", "head.conv.{n}.conv.{rest}"),
        (f"{box_head}{{n-1}}.1.{{rest}}", "head.conv.{n}.norm.{rest}"),
    ]
    for count, place in enumerate(layout.fc):
        head.append((f"{box_head}{place}.{{rest}}", f"head.fc{count or ''}.{{rest}}"))
    fifth_block = [(f"{box_head}{{block}}.{{rest}}", "body.layer4.{block}.{rest}")]
    finest = layout.finest
    return [
        *(fifth_block if layout.c4 else head),
        (f"{backbone}body.{{rest}}", "body.{rest}"),
        (f"{backbone}fpn.inner_blocks.{{level-{finest}}}.0.{{rest}}", "lateral.{level}.conv.{rest}"),
        (f"{backbone}fpn.inner_blocks.{{level-{finest}}}.1.{{rest}}", "lateral.{level}.norm.{rest}"),
        (f"{backbone}fpn.layer_blocks.{{level-{finest}}}.0.{{rest}}", "output.{level}.conv.{rest}"),
        (f"{backbone}fpn.layer_blocks.{{level-{finest}}}.1.{{rest}}", "output.{level}.norm.{rest}"),
    ]


def _residual_lines(theirs: str, plain: str) -> list[Line]:
    """Lines for the residual stages; Detectron2 keeps a convolution's norm inside the convolution."""
    return [
        (f"{theirs}{{block}}.conv{{n}}.norm.{{rest}}", f"{plain}{{block}}.bn{{n}}.{{rest}}"),
        (f"{theirs}{{block}}.conv{{n}}.{{rest}}", f"{plain}{{block}}.conv{{n}}.{{rest}}"),
        (f"{theirs}{{block}}.shortcut.norm.{{rest}}", f"{plain}{{block}}.downsample.1.{{rest}}"),
        (f"{theirs}{{block}}.shortcut.{{rest}}", f"{plain}{{block}}.downsample.0.{{rest}}"),
    ]
