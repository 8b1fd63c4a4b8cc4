"""Weights made elsewhere as the starting point of pretraining: whose names they bear, and what becomes of each.

A state dict is known by its names:

    a backbone   conv1.weight ... fc.bias                       torchvision's, timm's (stem.0.weight ... head.fc.bias)
    a detector   backbone.body.*, backbone.fpn.*, roi_heads.box_head.*   what `socodet export` writes for torchvision
    a run        online.encoder.*, online.projector.*, predictor.*, target.*
    the method's public code                                             module.encoder.*, module.neck.*, ...

The public code (github.com/hologerry/SoCo) trains on RGB in [0, 1] normalised by ImageNet's mean and standard
deviation, with a residual network whose strided blocks stride in their 3x3 convolution, and writes Detectron2
configurations accordingly (`INPUT.FORMAT RGB`, `PIXEL_STD 58.395, 57.12, 57.375`, `STRIDE_IN_1X1 False`). All of that
is also torchvision's convention and ours, so tensors are renamed and nothing is converted. Its C4 checkpoints hold
the fifth block, our C4 encoder's head, as the encoder's layer4. `*_k` is its target network.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from socodet.errors import InputError
from socodet.models.encoders import C4Encoder
from socodet.models.soco import SoCo

BODY = "encoder.backbone.body."
MODULES = (BODY, "encoder.backbone.fpn.", "encoder.box_head.", "projector.", "predictor.")
"""What is loaded whole or not at all, as this file names it: an embedder's names, and the predictor's."""

_RENAMES: dict[str, list[tuple[str, str]]] = {
    "a run": [
        (r"online\.(encoder\.)box_head\.(\d+\.(?:conv|bn|downsample).*)", BODY + r"layer4.\2"),  # of a C4 run
        (r"online\.(.+)", r"\1"),
        (r"(predictor\..+)", r"\1"),
    ],
    "the public code": [
        (r"(?:module\.)?encoder\.(.+)", BODY + r"\1"),
        (r"(?:module\.)?neck\.lateral_convs\.(\d)\.conv\.(.+)", r"encoder.backbone.fpn.inner_blocks.\1.0.\2"),
        (r"(?:module\.)?neck\.lateral_convs\.(\d)\.bn\.(.+)", r"encoder.backbone.fpn.inner_blocks.\1.1.\2"),
        (r"(?:module\.)?neck\.fpn_convs\.(\d)\.conv\.(.+)", r"encoder.backbone.fpn.layer_blocks.\1.0.\2"),
        (r"(?:module\.)?neck\.fpn_convs\.(\d)\.bn\.(.+)", r"encoder.backbone.fpn.layer_blocks.\1.1.\2"),
        *[(rf"(?:module\.)?head\.conv{n + 1}\.(.+)", rf"encoder.box_head.{n}.0.\1") for n in range(4)],
        *[(rf"(?:module\.)?head\.bn{n + 1}\.(.+)", rf"encoder.box_head.{n}.1.\1") for n in range(4)],
        (r"(?:module\.)?head\.fc1\.(.+)", r"encoder.box_head.5.\1"),
        (r"(?:module\.)?(projector|predictor)\.linear1\.(.+)", r"\1.0.\2"),
        (r"(?:module\.)?(projector|predictor)\.bn1\.(.+)", r"\1.1.\2"),
        (r"(?:module\.)?(projector|predictor)\.linear2\.(.+)", r"\1.3.\2"),
    ],
    "a detector": [
        (r"(backbone\..+)", r"encoder.\1"),
        (r"roi_heads\.(box_head\..+)", r"encoder.\1"),
    ],
    "a backbone": [(r"(.+)", BODY + r"\1")],
}


@dataclass(frozen=True)
class StartReport:
    """What became of each tensor: `unused` bears the file's names, `loaded` and `fresh` those of `MODULES`.

    Counters of batches, which older files lack and nothing reads, are not counted as fresh.
    """

    source: str
    kind: str
    """Whose names the file bears: `a run`, `the public code`, `a detector` or `a backbone`."""
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"starting from {self.source} ({self.kind}):"]
        unused = [name.removeprefix("module.").split(".")[0] for name in self.unused]
        for what, parts in (("loaded", _modules(self.loaded)), ("fresh", _modules(self.fresh)), ("unused", unused)):
            words = ", ".join(f"{part} ({count} tensors)" for part, count in Counter(parts).items())
            lines.append(f"  {what:<7} {words or 'nothing'}")
        return "\n".join(lines)


def load_starting_point(soco: SoCo, weights: Mapping[str, Tensor], source: str) -> StartReport:
    """Loads the online network and the predictor from a state dict; the target starts as the online network's copy.

    A module is loaded whole or not at all, and left as it is where the file says nothing of it. What the network has
    no module for, such as a classifier or another target network, is reported as unused. InputError, with the
    network untouched, when a tensor's shape is another, when a module would be filled in part or its file holds more
    layers than it has, and when nothing fits.
    """
    kind = _kind(weights)
    own = _own_tensors(soco)
    children = {name for name, _ in soco.online.encoder.backbone["body"].named_children()}
    if isinstance(soco.online.encoder, C4Encoder):
        children.add("layer4")
    present = tuple(module for module in MODULES if any(name.startswith(module) for name in own))
    pairs: dict[str, str] = {}
    unused = []
    for theirs in weights:
        name = _our_name(theirs, kind, children)
        if name in own:
            pairs[name] = theirs
            continue
        if name is not None and name.startswith(present) and not _is_classifier(name, children):
            raise InputError(f"{source}: {theirs} has no place in this network; {_mend(_OTHER_LAYERS, name)}")
        unused.append(theirs)
    for name, theirs in pairs.items():
        if weights[theirs].shape != own[name].shape:
            raise InputError(
                f"{source}: {theirs} is {tuple(weights[theirs].shape)} there and {tuple(own[name].shape)} in this "
                f"network; {_mend(_OTHER_SIZES, name)}"
            )
    fresh = [name for name in own if name not in pairs and not name.endswith("num_batches_tracked")]
    touched = tuple(module for module in MODULES if any(name.startswith(module) for name in pairs))
    if not touched:
        raise InputError(
            f"{source}: none of its {len(weights)} tensors has a place in this network; give the state dict of its "
            "backbone or of a detector, a run's folder, or a checkpoint of the method's public code"
        )
    half = [name for name in fresh if name.startswith(touched)]
    if half:
        raise InputError(
            f"{source}: lacks {len(half)} tensors of modules that it holds the rest of, first {half[0]}; "
            f"{_mend(_OTHER_LAYERS, half[0])}"
        )
    with torch.no_grad():
        for name, theirs in pairs.items():
            own[name].copy_(weights[theirs])
    soco.target.load_state_dict(soco.online.state_dict())
    return StartReport(source, kind, tuple(pairs), tuple(fresh), tuple(unused))


def common_names(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, str | None]]:
    """Whose names a state dict bears, and what each tensor is in the names of `MODULES`; None for what is none of it.

    For those who load the modules elsewhere than into a pretraining network.
    """
    kind = _kind(weights)
    return kind, {theirs: _our_name(theirs, kind, set()) for theirs in weights}


_OTHER_BACKBONE = "the file is of another backbone: give --backbone that one's name"
_FRESH = "leave its tensors out of the file, and it starts at random"
_NO_MLPS = "or export that run (socodet export) and start from the file, where this part is left out"
_OTHER_LAYERS = {
    BODY: _OTHER_BACKBONE,
    "encoder.backbone.fpn.": f"a pyramid fits if each of its convolutions has batch norm and no bias; else {_FRESH}",
    "encoder.box_head.": "a box head fits if it has --head-convs convolutions with batch norm and one fully connected "
    f"layer; else {_FRESH}",
    "projector.": f"a projector fits if it has two linear layers with batch norm between; else {_FRESH}",
    "predictor.": f"a predictor fits if it has two linear layers with batch norm between; else {_FRESH}",
}
"""The mend for a module with other layers than the file has, by `MODULES`."""
_OTHER_SIZES = {
    BODY: _OTHER_BACKBONE,
    "encoder.backbone.fpn.": "set --backbone and --fpn-channels to those of the file",
    "encoder.box_head.": "set --fpn-channels, --head-channels, --representation-size and --pooled-size to those of the "
    "file",
    "projector.": f"set --architecture, --representation-size, --hidden-size and --embedding-size to that run's, "
    f"{_NO_MLPS}",
    "predictor.": f"set --hidden-size and --embedding-size to that run's, {_NO_MLPS}",
}
"""The mend for a module with the same layers of other sizes."""


def _mend(mends: Mapping[str, str], name: str) -> str:
    """What to do about a tensor of that name in `MODULES`."""
    return next(mend for module, mend in mends.items() if name.startswith(module))


def _own_tensors(soco: SoCo) -> dict[str, Tensor]:
    """The online network's and the predictor's tensors; the C4 encoder's head is named as what it is, layer4."""
    own: dict[str, Tensor] = {}
    is_c4 = isinstance(soco.online.encoder, C4Encoder)
    for name, tensor in soco.online.state_dict().items():
        own[name.replace("encoder.box_head.", BODY + "layer4.", 1) if is_c4 else name] = tensor
    own.update({f"predictor.{name}": tensor for name, tensor in soco.predictor.state_dict().items()})
    return own


def _kind(weights: Mapping[str, Tensor]) -> str:
    if any(name.startswith("online.encoder.") for name in weights):
        return "a run"
    if any(re.match(r"(module\.)?encoder_k\.", name) for name in weights):
        return "the public code"
    if any(name.startswith("backbone.") for name in weights):
        return "a detector"
    return "a backbone"


def _our_name(theirs: str, kind: str, children: set[str]) -> str | None:
    for pattern, name in _RENAMES[kind]:
        match = re.fullmatch(pattern, theirs)
        if match:
            return _flattened(match.expand(name), children)
    return None


def _is_classifier(name: str, children: set[str]) -> bool:
    """Whether it is a backbone's, yet of a layer behind the four stages: fc, head, norm."""
    return name.startswith(BODY) and name.removeprefix(BODY).split(".")[0] not in children


def _flattened(name: str, children: set[str]) -> str:
    """In timm's naming a whole network says `stages.0.blocks`, and a network of features `stages_0.blocks`."""
    if not name.startswith(BODY):
        return name
    first, *rest = name.removeprefix(BODY).split(".")
    if rest and f"{first}_{rest[0]}" in children:
        first, rest = f"{first}_{rest[0]}", rest[1:]
    return BODY + ".".join([first, *rest])


def _modules(names: Iterable[str]) -> list[str]:
    return [next(m for m in MODULES if name.startswith(m)).removeprefix("encoder.").rstrip(".") for name in names]
