"""The files that a framework gets."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from socodet.errors import InputError

_TORCH = (".pth", ".pt", ".safetensors")
SUFFIXES = {
    "torchvision": _TORCH,
    "timm": _TORCH,
    "detectron2": (".pkl",),  # by which Detectron2 recognises its own layout
    "mmdetection": (".pth",),
    "onnx": (".onnx",),
}
"""How the files of a format end; transformers has folders."""


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
    """In the format of the output's suffix: `.safetensors`, or what torch.load reads."""
    if output.suffix == ".safetensors":
        return safetensors.torch.save(dict(weights))
    buffer = io.BytesIO()
    torch.save(dict(weights), buffer)
    return buffer.getvalue()


def check_suffix(output: Path, format: str, formats: Iterable[str]) -> None:
    """InputError when a format's files end otherwise, with those of `formats` that end so."""
    ends = SUFFIXES.get(format, ())
    if ends and output.suffix not in ends:
        others = [other for other in formats if output.suffix in SUFFIXES.get(other, ())]
        way_out = f"; or choose the format that has {output.suffix}, {' or '.join(others)}" if others else ""
        raise InputError(f"{output}: a file of the format {format} ends in {' or '.join(ends)}; name it so{way_out}")
