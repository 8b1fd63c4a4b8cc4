"""What a framework gets, as bytes of files."""

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
    """What a framework gets, ready to be written."""

    weights: dict[Path, bytes]
    left_out: dict[Path, tuple[str, ...]]
    """Of each file of weights, the pretrained modules that are not in it."""
    how_to_load: str
    """Lines of code, Python or shell."""
    configs: dict[Path, str] = field(default_factory=dict)
    language: str = "python"
    notes: tuple[str, ...] = ()
    """What else one must know."""


def state_dict_bytes(weights: Mapping[str, Tensor], output: Path) -> bytes:
    """As `.safetensors`, or as `.pth`/`.pt` for torch.load, as the suffix says. InputError for another suffix."""
    if output.suffix == ".safetensors":
        return safetensors.torch.save(dict(weights))
    if output.suffix in (".pth", ".pt"):
        buffer = io.BytesIO()
        torch.save(dict(weights), buffer)
        return buffer.getvalue()
    raise InputError(f"{output}: unknown suffix {output.suffix!r}; use .pth, .pt or .safetensors")
