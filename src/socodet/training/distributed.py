"""Several processes as one: who we are, batch norm over all of them, and what they must agree on at each step.

Processes are started by torchrun or SLURM; without either there is one, and nothing here does anything.
"""

import os
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import batch_norm

from socodet.errors import InputError
from socodet.views.batch import Batch

PATIENCE = timedelta(hours=24)
"""How long processes wait for the first one, which may be making proposals."""


@dataclass(frozen=True)
class World:
    """Which of all processes one is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """The process that writes files and speaks to the user."""
        return self.rank == 0


ALONE = World()


def world_from_environment() -> World:
    """Where torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or SLURM (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID) put us.

    InputError under SLURM when MASTER_ADDR and MASTER_PORT, where processes meet, are not set.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return World(int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0)))
    if int(env.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in env:
        if "MASTER_ADDR" not in env or "MASTER_PORT" not in env:
            raise InputError(
                "SLURM: MASTER_ADDR and MASTER_PORT are not set; before srun, export MASTER_PORT=29500 and "
                "MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)"
            )
        return World(int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"]), int(env.get("SLURM_LOCALID", 0)))
    return World()


def join(world: World, device: torch.device) -> None:
    """Meets the other processes: over NCCL for CUDA tensors, over gloo for those on the CPU."""
    if world.size == 1 or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=world.rank, world_size=world.size, timeout=PATIENCE)


def any_process(world: World, here: bool) -> bool:
    """Whether it holds in any process; returns when every process has come here."""
    if world.size == 1:
        return here
    flag = torch.tensor([here], dtype=torch.uint8)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


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
        return normalized


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Replaces every batch norm inside by one over all processes: torch's on CUDA, ours elsewhere.

    Names, parameters and buffers stay what they were.
    """
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
    flags = torch.tensor([*needed, *decisions], dtype=torch.uint8)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    agreed = [bool(flag) for flag in flags.tolist()]
    views, start = [], 0
    for view in batch.views:
        end = start + len(view.rois.counts)
        views.append(replace(view, rois=replace(view.rois, needed=tuple(agreed[start:end]))))
        start = end
    return replace(batch, views=tuple(views)), tuple(agreed[start:])


def mean_over_all(world: World, value: Tensor) -> Tensor:
    """The mean of a scalar over all processes."""
    if world.size == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world.size
