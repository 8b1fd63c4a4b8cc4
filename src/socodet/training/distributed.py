"""Several processes as one: batch norm over all of them, and what they must agree on at each step.

In a world of one process nothing here does anything.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import batch_norm

from socodet.errors import InputError
from socodet.runtime.world import World
from socodet.views.batch import Batch

PATIENCE = timedelta(hours=24)
"""How long processes wait for the first one, which may be making proposals."""


def join(world: World, device: torch.device) -> None:
    """Meets the other processes: over NCCL for CUDA tensors, over gloo for those on the CPU."""
    if world.size == 1 or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=world.rank, world_size=world.size, timeout=PATIENCE)


def any_process(world: World, here: bool) -> bool:
    """Whether it holds in any process; returns when every process has come here."""
    return agree_flags(world, (here,))[0]


@contextmanager
def in_every_process(world: World, otherwise: str) -> Iterator[None]:
    """An InputError of any process is raised in all of them, as `otherwise` in those that had none themselves."""
    failure: InputError | None = None
    try:
        yield
    except InputError as error:
        failure = error
    if any_process(world, failure is not None):
        raise failure or InputError(otherwise)


def agree_flags(world: World, flags: tuple[bool, ...]) -> tuple[bool, ...]:
    """Each of `flags` where it holds in any process: one small exchange between CPUs."""
    if world.size == 1:
        return flags
    here = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(here, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in here.tolist())


def same_everywhere(world: World, number: int) -> bool:
    """Whether every process has the same number."""
    if world.size == 1:
        return True
    ends = torch.tensor([number, -number])
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    return int(ends[0]) == -int(ends[1])


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes, on any device, differentiable through the exchange.

    torch's SyncBatchNorm is faster but takes CUDA tensors only. Parameters and buffers are those of BatchNorm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) → the same shape; statistics over N and the rest, of every process together."""
        if not self.training:
            return batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        given = input.dtype
        input = input.to(torch.promote_types(given, torch.float32))  # sums in half precision would overflow
        channels = input.shape[1]
        dims = [d for d in range(input.ndim) if d != 1]
        count = input.new_tensor([input.numel() / channels])
        moments = torch.cat([input.sum(dims), input.square().sum(dims), count])
        sums: Tensor = all_reduce(moments)  # type: ignore[no-untyped-call]
        total = sums[-1]
        mean = sums[:channels] / total
        variance = sums[channels:-1] / total - mean.square()
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                unbiased = variance * (total / (total - 1).clamp_min(1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        shape = [1, channels] + [1] * (input.ndim - 2)
        scale = (variance.clamp_min(0) + self.eps).rsqrt() * self.weight
        normalized: Tensor = input * scale.view(shape) + (self.bias - mean * scale).view(shape)
        return normalized.to(given)


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Replaces every batch norm inside by one over all processes: torch's on CUDA, ours elsewhere.

    Names, parameters and buffers stay what they were. InputError for a batch norm that does more than that, such as
    timm's with an activation inside, which would be lost.
    """
    for name, module in network.named_modules():
        plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SyncedBatchNorm)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) not in plain:
            raise InputError(
                f"{name} is a {type(module).__name__}, which cannot be synchronised between processes; train in one "
                "process or choose another --backbone"
            )
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            synced = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
            synced.load_state_dict(child.state_dict())
            for ours, theirs in zip(synced.parameters(), child.parameters(), strict=True):
                ours.requires_grad_(theirs.requires_grad)
            setattr(network, name, synced.to(next(child.parameters())))
        else:
            synchronize_batch_norm(child, device)


def agree(world: World, batch: Batch, decisions: tuple[bool, ...]) -> tuple[Batch, tuple[bool, ...]]:
    """What all processes do alike at this step: the pyramid levels each view computes, and each of `decisions`.

    A decision is made where any process makes it. A level is computed by all where any has a box on it, so that
    all exchange the statistics of the same batch norms and the gradients of the same parameters. One small
    exchange between CPUs.
    """
    if world.size == 1:
        return batch, decisions
    needed = [flag for view in batch.views for flag in view.rois.needed]
    agreed = agree_flags(world, (*needed, *decisions))
    views, start = [], 0
    for view in batch.views:
        end = start + len(view.rois.counts)
        views.append(replace(view, rois=replace(view.rois, needed=agreed[start:end])))
        start = end
    return replace(batch, views=tuple(views)), agreed[start:]


def mean_over_all(world: World, value: Tensor) -> Tensor:
    """The mean of a scalar over all processes."""
    if world.size == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world.size
