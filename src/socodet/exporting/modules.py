"""The modules to export from a run or a file of weights, and their sizes, which configs need."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from socodet.errors import InputError
from socodet.models.architectures import encoder_class
from socodet.models.backbones import COARSEST, FINEST, STAGES, build_backbone
from socodet.models.encoders import ObjectEncoder
from socodet.models.settings import ModelSettings
from socodet.weights.formats import BACKBONE, in_words, module_of
from socodet.weights.match import COUNTER
from socodet.weights.pretrained_run import model_settings
from socodet.weights.read import Pretrained, read_pretrained
from socodet.weights.renaming import Renaming
from socodet.weights.sizes import is_resnets, module_sizes, resnet_in
from socodet.weights.transformers_folder import is_transformers_folder

RESNET_PARTS = ("conv1", "bn1", *STAGES)


@dataclass(frozen=True)
class PretrainedModules:
    """All modules of a run or a file that are transferred to detectors."""

    source: str
    format: str
    """The naming format of the source."""
    settings: ModelSettings
    tensors: dict[str, Tensor]
    """Tensors by plain name (`weights.formats`)."""
    own: tuple[str, ...] = ()
    """Modules that only the user's own encoder has, and no format."""

    @property
    def encoder(self) -> type[ObjectEncoder]:
        """The encoder's class, which determines which modules there are."""
        return encoder_class(self.settings)

    def depth(self, framework: str) -> int:
        """Number of layers of the ResNet. InputError for a backbone whose names in `framework` are not known."""
        match = re.fullmatch(r"resnet(18|34|50|101|152)", self.settings.backbone)
        if match is None:
            raise InputError(
                f"{self.source}: its backbone is {self.settings.backbone}, but --format {framework} supports only "
                "ResNets; use --format timm, torchvision or transformers"
            )
        return int(match[1])

    def renamed(self, names: Renaming) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The tensors by their names in a format, and descriptions of the modules that the format has no place for."""
        placed, left_out = {}, []
        for plain, tensor in self.tensors.items():
            name = names.from_plain(plain)
            if name is None:
                left_out.append(plain)
            else:
                placed[name] = tensor
        in_part = {module_of(plain) for plain in self.tensors if plain not in left_out}
        words = (in_words(plain) if module_of(plain) in in_part else module_of(plain) for plain in left_out)
        return placed, tuple(dict.fromkeys((*words, *self.own)))


def pretrained_modules(source: str | Path) -> PretrainedModules:
    """Reads a run's newest checkpoint, or a file of any known format.

    InputError if there is nothing to export, and for a file whose backbone is not one of torchvision's ResNets.
    """
    if is_transformers_folder(source):
        raise InputError(f"{source}: is a transformers model; export takes what pretrain wrote, or a file of weights")
    settings = model_settings(source) if Path(source).is_dir() else None
    pretrained = read_pretrained(source, is_resnets).encoder_only()
    tensors = {name: _as_float32(value.detach()).contiguous() for name, value in pretrained.tensors.items()}
    if pretrained.format.is_backbone:
        tensors = {name: value for name, value in tensors.items() if is_resnets(name.removeprefix("body."))}
    if settings is None:
        settings = _settings_of(tensors, str(source), pretrained.format.c4)
        _check_backbone(pretrained, settings.backbone)
    own = tuple(dict.fromkeys(pretrained.own.values()))
    if not any(module_of(name) == BACKBONE for name in tensors):
        raise InputError(f"{pretrained.source}: has no backbone by the name backbone.body; there is nothing to export")
    return PretrainedModules(str(source), pretrained.format.title, settings, tensors, own)


def _as_float32(tensor: Tensor) -> Tensor:
    """Converts half precision to float32, which every framework takes; other types are unchanged."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor


def _check_backbone(pretrained: Pretrained, backbone: str) -> None:
    """InputError if a file's backbone is not the ResNet that its blocks suggest: other widths, norms or more layers."""
    with torch.device("meta"):
        body, _ = build_backbone(backbone)
    real = {f"body.{name}": tuple(tensor.shape) for name, tensor in body.state_dict().items()}
    fix = "only torchvision's ResNets can be exported from a file; for another backbone give its run's folder"
    for plain, tensor in pretrained.tensors.items():
        name, place = pretrained.names[plain], f"torchvision's {backbone}"
        first, second = plain.split(".")[:2]
        if first != "body" or (pretrained.format.is_backbone and second not in RESNET_PARTS):
            continue
        if plain not in real:
            raise InputError(f"{pretrained.source}: {name} has no place in {place}; {fix}")
        if tuple(tensor.shape) != real[plain]:
            raise InputError(
                f"{pretrained.source}: {name} is {tuple(tensor.shape)} there and {real[plain]} in {place}; {fix}"
            )
    for plain in real:
        if plain not in pretrained.tensors and not plain.endswith(COUNTER):
            raise InputError(
                f"{pretrained.source}: lacks {plain.removeprefix('body.')} of torchvision's {backbone}; {fix}"
            )


def _settings_of(tensors: Mapping[str, Tensor], source: str, c4: bool) -> ModelSettings:
    """The sizes of a file's modules. InputError for a network that is not a ResNet."""
    backbone, sizes = resnet_in(tensors), module_sizes(tensors)
    if backbone is None:
        raise InputError(f"{source}: holds no ResNet of 18 to 152 layers; for another backbone give its run's folder")
    if any(name.endswith(".conv.bias") for name in tensors):
        raise InputError(f"{source}: its pyramid or box head has no batch norm; export weights that have it")
    if "lateral.5.conv.weight" not in tensors:
        return ModelSettings(architecture="c4" if c4 else "c5", backbone=backbone)
    for level in range(FINEST, COARSEST):
        if f"lateral.{level}.conv.weight" not in tensors:
            raise InputError(
                f"{source}: its pyramid has no P{level}, as a single-stage detector's; export its run instead"
            )
    if "head.fc.weight" in tensors and "head_convs" not in sizes:
        raise InputError(
            f"{source}: its box head does not consist of convolutions and one fully connected layer; remove its "
            "tensors from the file to export the rest"
        )
    return ModelSettings("fpn" if "head_convs" in sizes else "fpn_no_head", backbone, **sizes)
