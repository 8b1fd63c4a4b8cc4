"""State dicts as bytes of a file."""

import io
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from socodet.errors import InputError


def state_dict_bytes(weights: dict[str, Tensor], output: Path) -> bytes:
    """As `.safetensors`, or as `.pth`/`.pt` for torch.load, as the suffix says. InputError for another suffix."""
    if output.suffix == ".safetensors":
        return safetensors.torch.save(weights)
    if output.suffix in (".pth", ".pt"):
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        return buffer.getvalue()
    raise InputError(f"{output}: unknown suffix {output.suffix!r}; use .pth, .pt or .safetensors")
