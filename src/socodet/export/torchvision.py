"""torchvision's names: the run's weights as a state dict of `maskrcnn_resnet50_fpn_v2` and its relatives."""

import io
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from socodet.errors import InputError
from socodet.training.run import write_atomically
from socodet.training.weights import encoder_weights, model_settings


def detector_weights(run: str | Path) -> dict[str, Tensor]:
    """Backbone, FPN and box head under the names torchvision's R-CNN detectors give them.

    Only the box head's place differs: the encoder's `box_head` is the detector's `roi_heads.box_head`.
    InputError for a run of another architecture, which no torchvision detector has.
    """
    architecture = model_settings(run).architecture
    if architecture != "fpn":
        raise InputError(
            f"{run}: its architecture is {architecture}, which torchvision has no detector of; only fpn has"
        )
    return {
        f"roi_heads.{name}" if name.startswith("box_head.") else name: value.contiguous()
        for name, value in encoder_weights(run).items()
    }


def write_weights(weights: dict[str, Tensor], output: Path) -> None:
    """A state dict as `.safetensors`, or as `.pth`/`.pt` for torch.load; written whole or not at all."""
    if output.suffix == ".safetensors":
        write_atomically(output, safetensors.torch.save(weights))
    elif output.suffix in (".pth", ".pt"):
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        write_atomically(output, buffer.getvalue())
    else:
        raise InputError(f"{output}: unknown suffix {output.suffix!r}; use .pth, .pt or .safetensors")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict `write_weights` wrote. InputError when there is none. Never unpickles code."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a file that `socodet export` wrote, or a run's folder")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: not a readable state dict ({type(error).__name__}); export it again") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path}: not a state dict of tensors; give a file that `socodet export` wrote")
    return weights
