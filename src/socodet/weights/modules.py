"""A run's pretrained modules under plain names, which each framework's names are made from."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from socodet.errors import InputError
from socodet.models.settings import ModelSettings
from socodet.weights.pretrained_run import encoder_weights, model_settings

FINEST_LEVEL = 2
"""The pyramid's first block is P2's."""

_PYRAMID = re.compile(r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.([01])\.(.+)")
_HEAD_CONV = re.compile(r"box_head\.(\d+)\.([01])\.(.+)")


@dataclass(frozen=True)
class PretrainedModules:
    """All that is transferred of a run.

    `tensors` are named by what they are, never by a place in a list:

        body.NAME                     the residual network, NAME as torchvision has it; of C4 its layer4 too
        lateral.LEVEL.conv|norm.NAME  the pyramid's 1x1 convolution of level 2 to 5
        output.LEVEL.conv|norm.NAME   its 3x3 convolution
        head.conv.N.conv|norm.NAME    the box head's N-th convolution, from 1
        head.fc.NAME                  its fully connected layer, on (channel, row, column) in that order
    """

    run: str
    settings: ModelSettings
    tensors: dict[str, Tensor]

    @property
    def has_pyramid(self) -> bool:
        """Whether an FPN was pretrained."""
        return self.settings.architecture in ("fpn", "fpn_no_head")

    def depth(self, framework: str) -> int:
        """Layers of the residual network. InputError where it is another network, which `framework` names otherwise."""
        match = re.fullmatch(r"resnet(18|34|50|101|152)", self.settings.backbone)
        if match is None:
            raise InputError(
                f"{self.run}: its backbone is {self.settings.backbone}, and --format {framework} knows ResNets only; "
                "use --format timm or torchvision"
            )
        return int(match[1])


@dataclass(frozen=True)
class FrameworkFiles:
    """What a framework gets of a run, ready to be written."""

    weights: dict[Path, bytes]
    left_out: dict[Path, tuple[str, ...]]
    """Of each file of weights, the pretrained modules that are not in it."""
    configs: dict[Path, str]
    how_to_load: str
    """Lines of code, Python or shell."""
    language: str = "python"
    notes: tuple[str, ...] = ()
    """What else one must know."""


def pretrained_modules(run: str | Path) -> PretrainedModules:
    """Reads them out of a run's newest checkpoint. InputError when there is none."""
    settings = model_settings(run)
    tensors = {_plain_name(name, settings): value.contiguous() for name, value in encoder_weights(run).items()}
    return PretrainedModules(str(run), settings, tensors)


def _plain_name(name: str, settings: ModelSettings) -> str:
    if match := _PYRAMID.fullmatch(name):
        kind, block, part, rest = match.groups()
        return f"{_KINDS[kind]}.{FINEST_LEVEL + int(block)}.{_PARTS[part]}.{rest}"
    if settings.architecture == "c4" and name.startswith("box_head."):
        return name.replace("box_head.", "body.layer4.", 1)
    if match := _HEAD_CONV.fullmatch(name):
        index, part, rest = match.groups()
        return f"head.conv.{int(index) + 1}.{_PARTS[part]}.{rest}"
    if name.startswith("box_head."):  # after the convolutions a flattening, then the one layer with tensors left
        return "head.fc." + name.rsplit(".", 1)[1]
    return "body." + name.removeprefix("backbone.body.")


_KINDS = {"inner": "lateral", "layer": "output"}
_PARTS = {"0": "conv", "1": "norm"}


def place(
    tensors: Mapping[str, Tensor], name_there: Callable[[str], str | None]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Each tensor under the name it has there, and the modules of those that have none (`name_there` gives None)."""
    placed: dict[str, Tensor] = {}
    left_out = []
    for name, value in tensors.items():
        new = name_there(name)
        if new is None:
            left_out.append(name)
        else:
            placed[new] = value
    return placed, modules_of(left_out)


def modules_of(names: Iterable[str]) -> tuple[str, ...]:
    """The modules that plain names belong to, in words, each once."""
    words: dict[str, None] = {}
    for name in names:
        kind, second, _ = name.split(".", 2)
        if kind in ("lateral", "output"):
            words[f"P{second}'s {kind} convolution"] = None
        else:
            words[{"body": "backbone", "head": "box head"}[kind]] = None
    return tuple(words)
