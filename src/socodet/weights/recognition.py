"""Recognises the format of a state dict by its tensor names, and the prefix that a wrapper put before them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from socodet.errors import InputError
from socodet.models.backbones import COARSEST, FINEST
from socodet.weights.formats import backbone, backbone_in_order, mmdetection, public_code, run_of, torchvision_of
from socodet.weights.renaming import Renaming
from socodet.weights.transformers_names import backbone_of, resnet_of, transformers_of

if TYPE_CHECKING:
    from torch import Tensor

COMPILED = "_orig_mod."
"""Prefix that torch.compile adds to the names of each module that it is called on."""

TRANSFORMERS_STEM = "embedder.embedder.convolution.weight"


@dataclass(frozen=True)
class Format:
    """The naming format of a state dict."""

    title: str
    names: Renaming
    prefix: str = ""
    """The prefix that a wrapper, such as DistributedDataParallel, put before the names."""
    encoder: tuple[str, ...] = ()
    """Prefixes of the names of a pretraining checkpoint's encoder; all names with them must be known."""
    is_backbone: bool = False
    """Whether it is a backbone alone, which may have layers after the last stage: a classifier, a projection head."""
    c4: bool = False
    """Whether, by its names, its head is the ResNet's fifth block."""


def recognize(names: Mapping[str, "Tensor"], is_body: Callable[[str], bool]) -> Format:
    """The format of a state dict by its names, whatever prefix a wrapper gave them.

    `is_body` recognises names of the backbone to be loaded; a backbone's file has them under one prefix. InputError if
    it holds several copies of a network, which differ, and nothing says which one is meant.
    """
    if (prefix := _evaluated_copy(prefixes("online.encoder.", names), "runs", names)) is not None:
        c4 = f"{prefix}online.encoder.box_head.0.conv1.weight" in names
        return Format("a run", run_of(names, prefix), prefix, (f"{prefix}online.encoder.",), c4=c4)
    prefix = _prefix_before("encoder_k.", names)
    if prefix is not None and _is_public_code(prefix, names):
        encoder = tuple(f"{prefix}{part}." for part in ("encoder", "neck", "head"))
        c4 = not any(name.startswith(f"{prefix}neck.") for name in names)
        return Format("the public code", public_code(prefix), prefix, encoder, c4=c4)
    if (prefix := _evaluated_copy(prefixes("backbone.body.", names), "detectors", names)) is not None:
        c4 = f"{prefix}roi_heads.box_head.0.conv1.weight" in names
        # A whole detector's RPN is specialised to its classes; an RPN in a file without a classifier was pretrained.
        whole = any(name.startswith(f"{prefix}roi_heads.box_predictor.") for name in names)
        return Format("a detector", torchvision_of(names, prefix, rpn=not whole), prefix, c4=c4)
    if (exported := _mmdetection_export(names)) is not None:
        return exported
    start = backbone_of(names)  # not proof yet: other modules with a `backbone.model` have one too
    if start is not None and any(".decoder.layers." in f".{name}" for name in names):
        return Format("a transformers detector", transformers_of(names), start)
    found = None if start is not None else _evaluated_copy(prefixes(TRANSFORMERS_STEM, names), "backbones", names)
    if found is not None:
        return Format("transformers' ResNet", resnet_of(found), found, is_backbone=True)
    if is_body("layer1.0.conv1.weight") and (found := _in_order(names)) is not None:
        title = f"a backbone, its layers numbered after {found}" if found else "a backbone, its layers numbered"
        return Format(title, backbone_in_order(found), found, is_backbone=True)
    prefix = _backbone_prefix(names, is_body)
    if start is not None and not prefix:
        return Format("a transformers detector", transformers_of(names), start)
    title = f"a backbone, its names after {prefix}" if prefix else "a backbone"
    return Format(title, backbone(prefix), prefix, is_backbone=True)


def _is_public_code(prefix: str, names: Collection[str]) -> bool:
    """Whether names with `encoder_k` after this prefix are the public code's, not those of PixPro, which it builds on.

    PixPro's MLPs are convolutions: a projector without a predictor, or two projectors.
    """
    parts = {name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)}
    is_pixpro = "projector_instance" in parts or ("projector" in parts and "predictor" not in parts)
    return "encoder" in parts and not is_pixpro


def _in_order(names: Mapping[str, "Tensor"]) -> str | None:
    """The prefix before the numbers of a ResNet's layers, as in `backbone.4.0.conv1.weight`; None if there is none."""
    firsts = ("0.weight", "1.running_mean", *(f"{number}.0.conv1.weight" for number in (4, 5, 6, 7)))
    found = [one for one in prefixes(firsts[-1], names) if all(f"{one}{first}" in names for first in firsts)]
    return _evaluated_copy(found, "backbones", names)


def _mmdetection_export(names: Collection[str]) -> Format | None:
    """The format of a file exported for MMDetection; None for other files and for MMDetection's whole detectors.

    Whole detectors may have no norms in the neck, or strides in other convolutions, so only their backbone is taken.
    """
    fifth_block, neck = (
        _prefix_before(f"{first}.", names) for first in ("roi_head.shared_head.layer4", "neck.lateral_convs")
    )
    c4 = fifth_block is not None
    prefix = fifth_block if c4 else neck
    if prefix is None or not (c4 or f"{prefix}neck.lateral_convs.0.bn.weight" in names):
        return None
    start = f"{prefix}neck.lateral_convs."
    blocks = {name.removeprefix(start).partition(".")[0] for name in names if name.startswith(start)}
    renaming = mmdetection(COARSEST + 1 - len(blocks) if blocks else FINEST, prefix, c4=c4)
    if any(renaming.to_plain(name) is None for name in names):
        return None
    return Format("MMDetection", renaming, prefix, c4=c4)


def _prefix_before(marker: str, names: Collection[str]) -> str | None:
    """The prefix before the marker in the first name that contains it."""
    return next(iter(prefixes(marker, names)), None)


def prefixes(marker: str, names: Collection[str]) -> list[str]:
    """All distinct prefixes that end in a dot and come before the marker in any of the names."""
    places = ((name, f".{name}".find(f".{marker}")) for name in names)
    return list(dict.fromkeys(name[:at] for name, at in places if at >= 0))


LEAST_SHARE = 0.1
"""Minimum share of a file's names that must be the backbone's."""
COPIES = re.compile(r"(^|[._])(k|ema|momentum|student|target)[._]")
"""Copies of the network that their authors do not evaluate; of a student and a teacher, this is the student."""


def _backbone_prefix(names: Mapping[str, "Tensor"], is_body: Callable[[str], bool]) -> str:
    """The prefix under which most of the backbone's names are found."""
    found: Counter[str] = Counter()
    for name in names:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        found.update(name[:start] for start in starts if is_body(name[start:]))
    if not found or max(found.values()) < len(names) * LEAST_SHARE:
        return ""  # another network, a few of whose names have the same endings
    fullest = [prefix for prefix, count in found.items() if count == max(found.values())]
    return _evaluated_copy(fullest, "backbones", names) or ""


def _evaluated_copy(prefixes: list[str], what: str, tensors: Mapping[str, "Tensor"]) -> str | None:
    """The first among a network's copies that its authors evaluate, if these are all equal; None if there is none."""
    evaluated = [prefix for prefix in prefixes if not COPIES.search(prefix)] or prefixes
    if len(evaluated) > 1 and not all(_are_equal(evaluated[0], other, tensors) for other in evaluated[1:]):
        named = " and ".join(prefix or "none" for prefix in evaluated)
        raise InputError(
            f"holds {len(evaluated)} {what}, named by the prefixes {named}; save the state dict of one of them"
        )
    return evaluated[0] if evaluated else None


def _are_equal(one: str, other: str, tensors: Mapping[str, "Tensor"]) -> bool:
    """Whether all tensors under two prefixes are equal, as where a network is saved under two names of one module."""
    first, second = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in (one, other)
    )
    return first.keys() == second.keys() and all(
        tensor.dtype == second[name].dtype and tensor.equal(second[name]) for name, tensor in first.items()
    )
