"""Pretrained tensors by what they are, whichever file they come from, and their places in a detector.

A file is known by its names: a run's folder or checkpoint; a checkpoint of the method's public code; a detector in
torchvision's names, as `socodet export` writes; or a backbone, such as torchvision's supervised ResNets. Plain names
are those of `export.modules`: `body.NAME`, `lateral.LEVEL.conv|norm.NAME`, `output.LEVEL.…`, `head.conv.N.…`,
`head.fc.NAME`. A pyramid's blocks are named by their level, so that a pyramid which begins at P3 gets P3's weights in
its first block, and not P2's, which would fit too.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

from socodet.errors import InputError
from socodet.models.backbones import COARSEST
from socodet.weights.modules import pretrained_modules
from socodet.weights.starting_file import StartingFile
from socodet.weights.starting_point import common_names

_BLOCK = re.compile(r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.([01])\.(.+)")
_BOX_HEAD = re.compile(r"roi_heads\.box_head\.(\d+)\.(?:([01])\.)?(weight|bias|running_mean|running_var|num_batches.+)")
_FIFTH_BLOCK = re.compile(r"roi_heads\.box_head\.(\d+\.(?:conv|bn|downsample).+)")
_KINDS = {"inner": "lateral", "layer": "output"}
_BLOCKS = {kind: block for block, kind in _KINDS.items()}
_PARTS = {"0": "conv", "1": "norm"}
_NUMBERS = {part: number for number, part in _PARTS.items()}
CLASSIFIER = ("fc.", "head.", "classifier.")
ENCODERS = ("encoder.", "neck.", "head.")
"""Of a run's checkpoint or the public code's: the online encoder, of which every tensor must be known."""


def plain_weights(source: Path) -> dict[str, Tensor]:
    """Everything pretrained in a run's folder or a file, under plain names.

    What has no plain name, such as a supervised network's classifier or a checkpoint's projector, predictor and
    target network, keeps the name it has. InputError when there is nothing to read.
    """
    if source.is_dir():
        return pretrained_modules(source).tensors
    weights = _named_as_detector(source, StartingFile.find(source).read())
    if any(name.startswith("backbone.") for name in weights):
        inner = {match[2] for name in weights if (match := _BLOCK.fullmatch(name)) and match[1] == "inner"}
        return {_plain(name, COARSEST + 1 - len(inner)): value for name, value in weights.items()}
    return {name if name.startswith(CLASSIFIER) else f"body.{name}": value for name, value in weights.items()}


def _named_as_detector(source: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A pretraining checkpoint's online encoder under a detector's names; what else is in it, or other files, as is."""
    kind, names = common_names(weights)
    if kind not in ("a run", "the public code"):
        return weights
    renamed = {}
    for theirs, value in weights.items():
        name = (names[theirs] or "").removeprefix("encoder.")
        as_it_is = theirs.removeprefix("module.").removeprefix("online.")
        if name.startswith(("backbone.", "box_head.")):
            renamed[f"roi_heads.{name}" if name.startswith("box_head.") else name] = value
        elif as_it_is.startswith(ENCODERS):
            raise InputError(f"{source}: {theirs} is no part of the encoder that this version knows; pretrain again")
        else:
            renamed[as_it_is] = value
    return renamed


def _plain(name: str, finest: int) -> str:
    """Of a detector's tensor."""
    if match := _BLOCK.fullmatch(name):
        kind, block, part, rest = match.groups()
        return f"{_KINDS[kind]}.{finest + int(block)}.{_PARTS[part]}.{rest}"
    if match := _FIFTH_BLOCK.fullmatch(name):
        return f"body.layer4.{match[1]}"
    if match := _BOX_HEAD.fullmatch(name):
        index, part, rest = match.groups()
        return f"head.fc.{rest}" if part is None else f"head.conv.{int(index) + 1}.{_PARTS[part]}.{rest}"
    return name.replace("backbone.body.", "body.", 1)


class DetectorPlaces:
    """Where a detector of torchvision's parts keeps each pretrained tensor."""

    def __init__(self, detector: nn.Module) -> None:
        names = detector.state_dict().keys()
        levels = {name.split(".")[3] for name in names if name.startswith("backbone.fpn.inner_blocks.")}
        self.finest = COARSEST + 1 - len(levels) if levels else None
        """The pyramid's finest level; None without one."""
        self.is_c4 = any(re.fullmatch(r"roi_heads\.box_head\.0\.conv1\.weight", name) for name in names)
        """Whether the box head is the backbone's fifth block."""
        head = detector.get_submodule("roi_heads.box_head") if self._has_box_head(names) else None
        self._head_fc = len(head) - 2 if isinstance(head, FastRCNNConvFCHead) else None

    def _has_box_head(self, names: Iterable[str]) -> bool:
        return not self.is_c4 and any(name.startswith("roi_heads.box_head.") for name in names)

    def of(self, plain: str) -> str | None:
        """The detector's name of a tensor; None where it has no such module."""
        kind, _, rest = plain.partition(".")
        if kind == "body":
            if self.is_c4 and rest.startswith("layer4."):
                return "roi_heads.box_head." + rest.removeprefix("layer4.")
            return f"backbone.body.{rest}"
        if kind in _BLOCKS:
            level, part, name = rest.split(".", 2)
            if self.finest is None or int(level) < self.finest:
                return None
            return f"backbone.fpn.{_BLOCKS[kind]}_blocks.{int(level) - self.finest}.{_NUMBERS[part]}.{name}"
        if kind != "head" or self._head_fc is None or not re.match(r"(conv\.\d+|fc)\.", rest):
            return None
        if rest.startswith("fc."):
            return f"roi_heads.box_head.{self._head_fc}.{rest.removeprefix('fc.')}"
        _, number, part, name = rest.split(".", 3)
        return f"roi_heads.box_head.{int(number) - 1}.{_NUMBERS[part]}.{name}"


def left_over_modules(plain_names: Iterable[str]) -> dict[str, int]:
    """Modules in words, and how many tensors of each, of plain names that have no place."""
    counts: dict[str, int] = {}
    for name in plain_names:
        kind, _, rest = name.partition(".")
        if kind in _BLOCKS:
            word = f"P{rest.split('.')[0]}'s {kind} convolution"
        elif kind == "head" and re.match(r"(conv\.\d+|fc)\.", rest):
            word = "box head"
        else:
            word = ".".join(name.split(".")[:2]) if kind in ("body", "rpn", "roi_heads", "backbone") else kind
        counts[word] = counts.get(word, 0) + 1
    return counts


def needed_prefixes(plain: Mapping[str, Tensor], places: DetectorPlaces) -> tuple[str, ...]:
    """Parts of the detector that must be filled wholly: the backbone, and whatever else the source has something of."""
    prefixes = ["backbone.body."]
    if places.is_c4:
        prefixes += [f"roi_heads.box_head.{digit}" for digit in "0123456789"]  # its blocks, not the norm behind them
    kinds = {name.split(".", 1)[0] for name in plain if places.of(name) is not None}
    if kinds & {"lateral", "output"}:
        prefixes += ["backbone.fpn.inner_blocks.", "backbone.fpn.layer_blocks."]
    if "head" in kinds:
        prefixes.append("roi_heads.box_head.")
    return tuple(prefixes)
