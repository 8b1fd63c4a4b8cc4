"""Pixels to network input, and batch-norm statistics."""

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor, nn

from socodet.views.batch import ViewBatch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB in [0, 1]; the same numbers torchvision's detectors normalise with."""


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


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, batches: Iterable[ViewBatch]) -> None:
    """Replaces every running mean and variance of an encoder by their average over `batches`.

    A fresh network's running statistics come from no data; two networks are compared fairly only after both have been
    given the statistics of the same images. The network's mode is restored.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    network.train()
    for batch in batches:
        network(normalize(batch.pixels), batch.rois)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)
