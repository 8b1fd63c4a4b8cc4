"""Precise batch norm: statistics over many batches instead of a running average of the last ones."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from socodet.runtime.world import ALONE, World

B = TypeVar("B")


class _Moments:
    """Count, and per channel the sum and sum of squares, of everything that enters a batch norm."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, device: torch.device) -> None:
        self.sums = torch.zeros(2 * norm.num_features + 1, dtype=torch.float64, device=device)

    def add(self, _norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A forward pre-hook."""
        values = inputs[0].detach().double()
        dims = [dim for dim in range(values.ndim) if dim != 1]
        count = values.new_tensor([values.numel() / values.shape[1]])
        self.sums += torch.cat([count, values.sum(dims), values.square().sum(dims)])


@torch.no_grad()
def reestimate_statistics(
    network: nn.Module, forward: Callable[[B], object], batches: Iterable[B], world: World = ALONE
) -> None:
    """Replaces running means and variances by those of everything that enters each norm over all `batches`.

    As fvcore's `update_bn_stats` (Wu & Johnson 2021, section 3 and appendix): batches are normalised by their own
    statistics, as in training, and weighted by their number of values; the variance is that of all values together,
    with Bessel's correction (fvcore omits it; with so many values it is negligible). Norms that see no data, or are
    frozen, keep their statistics. All processes of `world` count together. forward: runs the network, in training mode,
    on a batch.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    device = next(network.parameters()).device
    moments = [_Moments(norm, device) for norm in norms]
    hooks = [
        norm.register_forward_pre_hook(moment.add)  # type: ignore[arg-type]
        for norm, moment in zip(norms, moments, strict=True)
    ]
    was_training = network.training
    network.train()
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code does not see the hooks
            for batch in batches:
                forward(batch)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)
    for norm, moment in zip(norms, moments, strict=True):
        if world.size > 1:
            dist.all_reduce(moment.sums)
        count = moment.sums[0]
        if count < 2 or norm.running_mean is None or norm.running_var is None:
            continue
        mean, square = (moment.sums[1:] / count).chunk(2)
        variance = (square - mean.square()).clamp_min(0) * (count / (count - 1))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
