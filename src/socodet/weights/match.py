"""Matches pretrained tensors with those of a network."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from socodet.errors import InputError
from socodet.weights.formats import MLPS, module_of
from socodet.weights.read import Pretrained
from socodet.weights.renaming import Renaming

COUNTER = "num_batches_tracked"
"""Batch norm's counter, which older files lack and nothing here reads."""
CONSTANT = "n_points_scale"
"""A buffer of RT-DETR version 2 that training does not change and version 1 lacks."""

GETTER = "body.model."
"""Prefix of the names of a backbone that timm wraps as a whole (`FeatureGetterNet`), such as Twins."""


@dataclass(frozen=True)
class Advice:
    """How to fix weights that do not fit: for each module with other layers or other sizes, and if nothing fits."""

    other_layers: Mapping[str, str]
    other_sizes: Mapping[str, str]
    nothing: str
    resnet50: Mapping[str, str] = field(default_factory=dict)
    """Instead of `other_layers`, if the file's backbone is a ResNet-50."""

    def on_layers(self, plain: str, pretrained: Pretrained) -> str:
        """How to fix a tensor of a module whose layers differ."""
        module = module_of(plain)
        own = self.resnet50.get(module) if _has_resnet50(pretrained) else None
        return own or self.other_layers[module]


class Network:
    """A network that takes pretrained weights, with its tensors by plain name."""

    def __init__(
        self,
        title: str,
        tensors: Mapping[str, Tensor],
        names: Renaming,
        advice: Advice,
        optional: Collection[str] = (),
    ) -> None:
        self.title = title
        self.tensors = tensors
        """Tensors by the network's own names."""
        self.names = {plain: own for own in tensors if (plain := names.to_plain(own)) is not None}
        """The network's own name for each plain name."""
        self.advice = advice
        self.optional = frozenset(optional)
        """Modules that stay unchanged if the weights do not fit."""
        self.modules = {module_of(plain) for plain in self.names}
        # some of timm's feature extractors hold the whole network; their files have the whole network's names
        is_getter = all(plain.startswith(GETTER) for plain in self.names if plain.startswith("body."))
        whole = {plain: plain.replace(GETTER, "body.", 1) if is_getter else plain for plain in self.names}
        self._whole = {_normalized(there): plain for plain, there in whole.items()}
        self._plain = self._whole | {_normalized(plain): plain for plain in self.names}
        self._layers = {there.split(".")[1] for there in whole.values() if there.startswith("body.")}
        self._levels = {int(plain.split(".")[1]) for plain in self.names if plain.startswith("lateral.")}

    def find(self, plain: str) -> str | None:
        """The network's plain name for a file's, which differs for whole timm networks; None if there is none."""
        return self._plain.get(_normalized(plain))

    def is_body(self, name: str) -> bool:
        """Whether `name` is a tensor of the backbone."""
        return _normalized(f"body.{name}") in self._whole

    def can_do_without(self, plain: str, *, is_backbone: bool) -> bool:
        """Whether the tensor belongs to a module or pyramid level that the network does not have.

        The same holds for layers after the last stage in a backbone's file, and for the counter of a frozen norm.
        """
        module = module_of(plain)
        if module not in self.modules:
            return True
        if plain.endswith(COUNTER) and self.find(plain.replace(COUNTER, "running_mean")) is not None:
            return True
        if module == "pyramid":
            return int(plain.split(".")[1]) < min(self._levels)
        first, second = f"{plain}.".split(".")[1:3]
        is_layer = first in self._layers or f"{first}_{second}" in self._layers
        return module == "backbone" and is_backbone and not is_layer


def match(pretrained: Pretrained, network: Network, needed: Collection[str] = ()) -> dict[str, str]:
    """The plain names (network's → source's) of all tensors to load; `needed` modules must be loaded.

    Tensors that the network can do without are left out, and so are, if they do not fit, its optional modules and the
    MLPs of an encoder with another architecture. InputError if any other tensor has no place in the network or another
    shape there, if a module would be loaded only in part, and if nothing fits.
    """
    pairs: dict[str, str] = {}
    homeless = []
    for plain in pretrained.tensors:
        own = network.find(plain)
        if own is not None:
            pairs[own] = plain
        elif not network.can_do_without(plain, is_backbone=pretrained.format.is_backbone):
            homeless.append(plain)
    reshaped = [own for own, plain in pairs.items() if pretrained.tensors[plain].shape != _tensor(network, own).shape]
    missing = [plain for plain in network.names if plain not in pairs and not plain.endswith((COUNTER, CONSTANT))]

    if pretrained.modules - {*MLPS} != network.modules - {*MLPS} and any(
        module_of(plain) in MLPS for plain in (*homeless, *reshaped, *missing)
    ):
        pairs = {own: plain for own, plain in pairs.items() if module_of(own) not in MLPS}
        homeless, reshaped = ([p for p in names if module_of(p) not in MLPS] for names in (homeless, reshaped))
    touched = {*needed, *map(module_of, pairs)}
    unfit = {*map(module_of, (*homeless, *reshaped))} | ({*map(module_of, missing)} & touched)
    unfit &= network.optional
    pairs = {own: plain for own, plain in pairs.items() if module_of(own) not in unfit}
    homeless, reshaped, missing = (
        [plain for plain in names if module_of(plain) not in unfit] for names in (homeless, reshaped, missing)
    )

    source, advice = pretrained.source, network.advice
    for plain in homeless:
        fix = advice.on_layers(plain, pretrained)
        raise InputError(f"{source}: {pretrained.names[plain]} has no place in {network.title}; {fix}")
    for own in reshaped:
        there, here = (tuple(one.shape) for one in (pretrained.tensors[pairs[own]], _tensor(network, own)))
        raise InputError(
            f"{source}: {pretrained.names[pairs[own]]} is {there} there and {here} in {network.title}; "
            f"{advice.other_sizes[module_of(own)]}"
        )
    if not pairs:
        count = len(pretrained.tensors) + len(pretrained.others)
        raise InputError(f"{source}: none of its {count} tensors has a place in {network.title}; {advice.nothing}")
    touched = {*needed, *map(module_of, pairs)}
    lacking = [plain for plain in missing if module_of(plain) in touched]
    if lacking:
        first = lacking[0]
        raise InputError(
            f"{source}: lacks {len(lacking)} tensors of {network.title}, first {network.names[first]}; "
            f"{advice.on_layers(first, pretrained)}"
        )
    return pairs


def _tensor(network: Network, plain: str) -> Tensor:
    return network.tensors[network.names[plain]]


def _has_resnet50(pretrained: Pretrained) -> bool:
    """Whether the backbone is a ResNet-50 of full width: bottlenecks, six of them in its third stage."""
    width = pretrained.tensors.get("body.layer4.2.conv2.weight")
    blocks = {plain.split(".")[2] for plain in pretrained.tensors if plain.startswith("body.layer3.")}
    has_bottlenecks = "body.layer4.2.conv3.weight" in pretrained.tensors
    return has_bottlenecks and len(blocks) == 6 and width is not None and width.shape == (512, 512, 3, 3)


def _normalized(name: str) -> str:
    """A form that is equal for timm's whole networks (`stages.0.blocks.1`) and feature extractors (`stages_0...`)."""
    return name.replace(".", "_")
