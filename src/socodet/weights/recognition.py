"""Whose names a state dict has: its format, and what a wrapper put before its names."""

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from socodet.errors import InputError
from socodet.models.backbones import COARSEST, FINEST
from socodet.weights.formats import backbone, backbone_in_order, mmdetection, public_code, run_of, torchvision_of
from socodet.weights.renaming import Renaming
from socodet.weights.transformers_names import backbone_of, transformers_of

COMPILED = "_orig_mod."
"""What torch.compile puts before the names of each module that it is called on."""


@dataclass(frozen=True)
class Format:
    """Whose names a state dict has."""

    title: str
    names: Renaming
    prefix: str = ""
    """What a wrapper, such as DistributedDataParallel, puts before them."""
    encoder: tuple[str, ...] = ()
    """Beginnings of the names of a pretraining checkpoint's encoder, all of which must be known."""
    is_backbone: bool = False
    """It may have further layers behind the backbone's last stage: a classifier, a projection head."""
    c4: bool = False
    """Whether, by its names, its head is the residual network's fifth block."""


def recognize(names: Collection[str], is_body: Callable[[str], bool]) -> Format:
    """The format of a state dict with these names, under whatever prefix a wrapper gave them.

    `is_body` recognises names of the backbone to be loaded, which a backbone's file has under one prefix.
    InputError if it holds several copies of a network and nothing says which one is meant.
    """
    if (prefix := _evaluated(prefixes("online.encoder.", names), "runs")) is not None:
        c4 = f"{prefix}online.encoder.box_head.0.conv1.weight" in names
        return Format("a run", run_of(names, prefix), prefix, (f"{prefix}online.encoder.",), c4=c4)
    prefix = _before("encoder_k.", names)
    if prefix is not None and any(name.startswith(f"{prefix}encoder.") for name in names):
        encoder = tuple(f"{prefix}{part}." for part in ("encoder", "neck", "head"))
        c4 = not any(name.startswith(f"{prefix}neck.") for name in names)
        return Format("the public code", public_code(prefix), prefix, encoder, c4=c4)
    if (prefix := _evaluated(prefixes("backbone.body.", names), "detectors")) is not None:
        c4 = f"{prefix}roi_heads.box_head.0.conv1.weight" in names
        # The RPN of a whole detector knows the classes it was trained on; without a classifier it is a pretrained one.
        whole = any(name.startswith(f"{prefix}roi_heads.box_predictor.") for name in names)
        return Format("a detector", torchvision_of(names, prefix, rpn=not whole), prefix, c4=c4)
    if (exported := _mmdetection_export(names)) is not None:
        return exported
    start = backbone_of(names)  # which other modules with a `backbone.model` have too
    if start is not None and any(".decoder.layers." in f".{name}" for name in names):
        return Format("a transformers detector", transformers_of(names), start)
    if is_body("layer1.0.conv1.weight") and (found := _in_order(names)) is not None:
        title = f"a backbone, its layers numbered after {found}" if found else "a backbone, its layers numbered"
        return Format(title, backbone_in_order(found), found, is_backbone=True)
    prefix = _backbone_prefix(names, is_body)
    if start is not None and not prefix:
        return Format("a transformers detector", transformers_of(names), start)
    title = f"a backbone, its names after {prefix}" if prefix else "a backbone"
    return Format(title, backbone(prefix), prefix, is_backbone=True)


def _in_order(names: Collection[str]) -> str | None:
    """What is before the numbers of a ResNet's layers, as in `backbone.4.0.conv1.weight`; None without such names."""
    firsts = ("0.weight", "1.running_mean", *(f"{number}.0.conv1.weight" for number in (4, 5, 6, 7)))
    found = [one for one in prefixes(firsts[-1], names) if all(f"{one}{first}" in names for first in firsts)]
    return _evaluated(found, "backbones")


def _mmdetection_export(names: Collection[str]) -> Format | None:
    """The format of a file that was exported for MMDetection; None for other files, and for its whole detectors.

    These may have no norms in the neck, or stride in other convolutions; of them a backbone is all that is taken.
    """
    fifth_block, neck = (_before(f"{first}.", names) for first in ("roi_head.shared_head.layer4", "neck.lateral_convs"))
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


def _before(marker: str, names: Collection[str]) -> str | None:
    """What is before the marker in the first name that has it."""
    return next(iter(prefixes(marker, names)), None)


def prefixes(marker: str, names: Collection[str]) -> list[str]:
    """Whatever is before the marker, at a dot, in any of the names, each once."""
    places = ((name, f".{name}".find(f".{marker}")) for name in names)
    return list(dict.fromkeys(name[:at] for name, at in places if at >= 0))


LEAST_SHARE = 0.1
"""The least share of a file's names that a backbone in it is known by."""
COPIES = re.compile(r"(^|[._])(k|ema|momentum|student|target)[._]")
"""Copies of the network that their methods' authors do not evaluate; of a student and a teacher it is the student."""


def _backbone_prefix(names: Collection[str], is_body: Callable[[str], bool]) -> str:
    """The prefix after which most names are the backbone's."""
    found: Counter[str] = Counter()
    for name in names:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        found.update(name[:start] for start in starts if is_body(name[start:]))
    if not found or max(found.values()) < len(names) * LEAST_SHARE:
        return ""  # names of another network, a few of which end alike
    fullest = [prefix for prefix, count in found.items() if count == max(found.values())]
    return _evaluated(fullest, "backbones") or ""


def _evaluated(prefixes: list[str], what: str) -> str | None:
    """Of a network's copies, the one that its method's authors evaluate; None if there is none."""
    evaluated = [prefix for prefix in prefixes if not COPIES.search(prefix)] or prefixes
    if len(evaluated) > 1:
        named = " and ".join(prefix or "none" for prefix in evaluated)
        raise InputError(
            f"holds {len(evaluated)} {what}, named by the prefixes {named}; save the state dict of one of them"
        )
    return evaluated[0] if evaluated else None
