"""The files that a framework gets."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from socodet.errors import InputError


@dataclass(frozen=True)
class FrameworkFiles:
    """Files of one framework, ready to be written, and what its card says of them."""

    weights: dict[Path, bytes]
    left_out: dict[Path, tuple[str, ...]]
    """Pretrained modules that are not in each file of weights, in words."""
    how_to_load: str
    """Lines of code in `language`."""
    configs: dict[Path, str] = field(default_factory=dict)
    language: str = "python"
    notes: tuple[str, ...] = ()
    """What else to know."""


def state_dict_bytes(weights: Mapping[str, Tensor], output: Path) -> bytes:
    """In the format of the output's suffix: `.safetensors`, or `.pth`/`.pt` for torch.load. InputError for others."""
    if output.suffix == ".safetensors":
        return safetensors.torch.save(dict(weights))
    if output.suffix in (".pth", ".pt"):
        buffer = io.BytesIO()
        torch.save(dict(weights), buffer)
        return buffer.getvalue()
    raise InputError(f"{output}: unknown suffix {output.suffix!r}; use .pth, .pt or .safetensors")
