"""Pixels to network input."""

from functools import lru_cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""For RGB in [0, 1]; torchvision's detectors normalise with the same numbers."""


@lru_cache
def _scale_and_shift(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    scale = torch.tensor([1 / (255 * std) for std in IMAGENET_STD], dtype=dtype, device=device)
    shift = torch.tensor(
        [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
        dtype=dtype,
        device=device,
    )
    return scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)


def normalize(pixels_b3hw: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 RGB (B, 3, H, W) → floating point (B, 3, H, W), channels last, on the same device."""
    scale, shift = _scale_and_shift(pixels_b3hw.device, dtype)
    return torch.addcmul(shift, pixels_b3hw.to(dtype), scale).contiguous(memory_format=torch.channels_last)
