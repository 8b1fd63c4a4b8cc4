"""Reads the folder of a Hugging Face transformers detector or ResNet, written by `save_pretrained` or downloaded."""

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socodet.errors import InputError
from socodet.models.backbone_names import RESNETS, TIMM
from socodet.models.settings import ModelSettings
from socodet.runtime.files import parse_json, read_user_file

if TYPE_CHECKING:
    from torch import Tensor

RESNET = "resnet"
"""The `model_type` of transformers' own ResNet."""
OTHER_STRIDES = "downsample_in_bottleneck"


def is_transformers_folder(path: str | Path) -> bool:
    """Whether a folder holds a transformers model, that is, a config.json and no run."""
    folder = Path(path)
    return (folder / "config.json").is_file() and not (folder / "run.json").exists()


def weights_file(folder: Path) -> Path:
    """The largest file of weights in the folder, which identifies its contents. InputError if there is none."""
    files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if not files:
        raise InputError(f"{folder}: has a config.json but no weights (.safetensors); download the whole model")
    return max(files, key=lambda file: file.stat().st_size)


def read_transformers_folder(folder: Path) -> "dict[str, Tensor]":
    """The detector's state dict with current names, and `pixel_mean` and `pixel_std` of its images; or a ResNet's.

    InputError when transformers cannot read a detector there.
    """
    from socodet.models.rt_detr import import_transformers

    refuse_other_strides(folder)
    transformers = import_transformers(str(folder))
    is_resnet = _read_object(folder / "config.json").get("model_type") == RESNET
    try:
        model = (transformers.AutoModel if is_resnet else transformers.AutoModelForObjectDetection).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, weights_only=True
        )
    except Exception as error:  # whatever transformers raises for a folder it cannot read
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{folder}: transformers reads no detector there ({reason}); give another folder") from error
    if is_resnet:
        return dict(model.state_dict())
    mean, std = _normalization(folder)
    return {**model.state_dict(), "pixel_mean": mean, "pixel_std": std}


def refuse_other_strides(folder: Path) -> None:
    """InputError if the ResNet of the folder's model has the strides of its blocks elsewhere."""
    config: dict[str, Any] = {}
    with suppress(InputError):  # it may be of another program
        config = _read_object(folder / "config.json")
    if any(isinstance(one, dict) and one.get(OTHER_STRIDES) for one in (config, config.get("backbone_config"))):
        raise InputError(
            f"{folder}: its ResNet strides in 1x1 convolutions ({OTHER_STRIDES}), ours in the 3x3 ones; give another"
        )


def transformers_model_settings(folder: Path) -> ModelSettings:
    """Backbone and encoder channels of the model. InputError for backbones that our detectors cannot have."""
    from socodet.models.backbones import resnet_depth

    config = _read_object(folder / "config.json")
    backbone = config if config.get("model_type") == RESNET else config.get("backbone_config")
    backbone = backbone if isinstance(backbone, dict) else {}
    kind = backbone.get("model_type")
    name = backbone.get("backbone") if kind == "timm_backbone" else config.get("backbone")
    if kind in (RESNET, "rt_detr_resnet"):
        depths, layers = backbone.get("depths", [3, 4, 6, 3]), backbone.get("layer_type", "bottleneck")  # as there
        depth = resnet_depth(tuple(depths), bottleneck=layers == "bottleneck") if isinstance(depths, list) else None
        name = depth and (f"{TIMM}resnet{depth}d" if kind == "rt_detr_resnet" else f"resnet{depth}")
    if not isinstance(name, str) or not re.fullmatch(r"[\w./-]+", name):
        raise InputError(f"{folder}: its backbone ({kind}) is neither a ResNet nor a network of timm; give another")
    sizes: dict[str, Any] = {}
    if "encoder_hidden_dim" in config:
        sizes["fpn_channels"] = config["encoder_hidden_dim"]
    return ModelSettings(backbone=name if name in RESNETS or name.startswith(TIMM) else f"{TIMM}{name}", **sizes)


def _read_object(file: Path) -> dict[str, Any]:
    """The contents of a JSON file of the folder. InputError when it holds no object."""
    fix = "download the whole model again, or give another folder"
    found = parse_json(file, read_user_file(file), fix)
    if not isinstance(found, dict):
        raise InputError(f"{file}: holds no JSON object; {fix}")
    return found


def _normalization(folder: Path) -> "tuple[Tensor, Tensor]":
    """Mean and standard deviation of the image processor; RT-DETR's leaves RGB in 0 to 1 unnormalised."""
    import torch

    from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD

    file = folder / "preprocessor_config.json"
    processor = _read_object(file) if file.is_file() else {}
    if processor and not processor.get("do_normalize", True):
        return torch.zeros(3), torch.ones(3)
    return (
        torch.tensor(processor.get("image_mean", IMAGENET_MEAN)),
        torch.tensor(processor.get("image_std", IMAGENET_STD)),
    )
