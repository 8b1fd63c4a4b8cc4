"""Several processes as one: batch norm over all of them, and what they must agree on at each step.

With a single process, nothing here has any effect.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from socodet.errors import InputError
from socodet.models.fused_norm import FusedBatchNorm2d, SyncedBatchNorm
from socodet.runtime.notices import log_while_waiting
from socodet.runtime.world import World
from socodet.views.batch import Batch

START_TIMEOUT = timedelta(minutes=15)
"""How long processes wait for each other to start."""
PREPARATION_TIMEOUT = timedelta(hours=24)
"""How long processes wait for the first one, which may be making proposals."""
TRAINING_TIMEOUT = timedelta(hours=1)
"""How long processes wait for each other during training; meanwhile the first may be writing or probing."""
GATHER_TIMEOUT = timedelta(minutes=1)
"""How long the first process waits at the end for what the others found."""
WAIT_NOTE_SECONDS = 120.0
"""Seconds after which a message says that a process waits, and for what."""


def join(world: World, device: torch.device) -> None:
    """Joins the other processes in a process group: NCCL for CUDA tensors, gloo for those on the CPU.

    InputError if they do not join within `START_TIMEOUT` or cannot be reached. A group that the program made is used.
    """
    if world.size == 1:
        return
    if dist.is_initialized():  # by an earlier call, which may have trained, or by the program
        _check_process_group(world)
        dist.distributed_c10d._set_pg_timeout(PREPARATION_TIMEOUT)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        with log_while_waiting(f"waiting for all {world.size} processes to meet at {place}", WAIT_NOTE_SECONDS):
            store, rank, size = next(rendezvous("env://", world.rank, world.size, timeout=START_TIMEOUT))
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PREPARATION_TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"the {world.size} processes do not meet at {place} ({reason}); check that all were started, and that "
            "MASTER_ADDR and MASTER_PORT name a free port of the first one's machine"
        ) from None


def _check_process_group(world: World) -> None:
    """InputError if the program's own process group lacks processes, or cannot exchange CPU tensors."""
    if "cpu:" not in dist.get_backend_config():
        raise InputError(
            "torch.distributed was initialised without a backend for the CPU; leave that to socodet, or call "
            'init_process_group("cpu:gloo,cuda:nccl")'
        )
    if dist.get_world_size() != world.size:
        raise InputError(
            f"torch.distributed was initialised with a world size of {dist.get_world_size()}, and the launcher's "
            f"environment says {world.size}; let torchrun or srun start as many processes as are to train together"
        )


def set_training_timeout() -> None:
    """From now on, processes wait for each other at most `TRAINING_TIMEOUT`."""
    if dist.is_initialized():
        dist.distributed_c10d._set_pg_timeout(TRAINING_TIMEOUT)


def lost_process(error: Exception) -> InputError | None:
    """A one-line error if an exchange failed because another process ended or hangs; None for other errors."""
    if not isinstance(error, RuntimeError) or not dist.is_initialized():
        return None
    text = str(error).lower()
    if not (isinstance(error, dist.DistError) or any(sign in text for sign in LOST)):
        return None
    reason = f" ({str(error).strip().splitlines()[-1]})" if isinstance(error, dist.DistBackendError) else ""
    if "duplicate gpu" in text:
        return InputError(f"two processes of this run have the same GPU{reason}; start at most one for each GPU")
    return InputError(
        f"another process of this run has ended or hangs{reason}; its message says why; the same command resumes from "
        "the newest checkpoint"
    )


LOST = ("connection closed by peer", "connection reset", "broken pipe", "timed out waiting", "connection refused")
"""Parts of gloo's messages when an exchange fails."""


def any_process(world: World, flag: bool) -> bool:
    """Whether `flag` is true in any process; returns when every process has called it."""
    return agree_flags(world, (flag,))[0]


@contextmanager
def in_every_process(world: World, otherwise: str) -> Iterator[None]:
    """If one process fails, all do: with their own InputError or OSError, or with InputError(`otherwise`)."""
    failure: InputError | OSError | None = None
    try:
        yield
    except (InputError, OSError) as error:
        failure = error
    if any_process(world, failure is not None):
        raise failure or InputError(otherwise)


def agree_flags(world: World, flags: tuple[bool, ...]) -> tuple[bool, ...]:
    """Whether each of `flags` is true in any process: one small exchange between CPUs."""
    if world.size == 1:
        return flags
    here = torch.tensor(flags, dtype=torch.uint8)
    try:
        with log_while_waiting("waiting for the other processes of this run", WAIT_NOTE_SECONDS):
            dist.all_reduce(here, dist.ReduceOp.MAX)
    except RuntimeError as error:
        raise lost_process(error) or error from None
    return tuple(bool(flag) for flag in here.tolist())


class StopFlag:
    """Whether any process was asked to stop, found out without waiting. All processes make their flags in one order."""

    _made = itertools.count()

    def __init__(self, world: World) -> None:
        self._store = None if world.size == 1 else dist.distributed_c10d._get_default_store()
        self._key = f"stop {next(self._made)}"

    def is_set(self, requested: bool) -> bool:
        """Whether this process was asked, or another that has already called this."""
        if self._store is None:
            return requested
        try:
            if requested:
                self._store.set(self._key, "")
            return requested or bool(self._store.check([self._key]))
        except RuntimeError as error:
            raise lost_process(error) or error from None


def equal_in_all_processes(world: World, *numbers: int) -> tuple[bool, ...]:
    """For each of the numbers, whether every process has the same."""
    if world.size == 1:
        return (True,) * len(numbers)
    ends = torch.tensor([numbers, [-number for number in numbers]])
    try:
        dist.all_reduce(ends, dist.ReduceOp.MAX)
    except RuntimeError as error:
        raise lost_process(error) or error from None
    return tuple((ends[0] == -ends[1]).tolist())


def require_same(world: World, **parts: object) -> None:
    """InputError, in every process, that names the parts (plain JSON types) that differ between processes.

    Otherwise each process would train on its own images or with its own settings, or wait for the others forever.
    """
    if world.size == 1:
        return
    digests = (hashlib.sha256(json.dumps(part, sort_keys=True).encode()).digest() for part in parts.values())
    same = equal_in_all_processes(world, *(int.from_bytes(digest[:7]) for digest in digests))
    differing = [name for name, alike in zip(parts, same, strict=True) if not alike]
    if differing:
        raise InputError(
            f"the {world.size} processes of this run have different {' and '.join(differing)}; start all of them with "
            "the same command, and give each machine the same files"
        )


def norm_group(size: int | None) -> dist.ProcessGroup | None:
    """The group of `size` consecutive processes to which this one belongs; None, which means all, without a size.

    Every process must call it. The size must divide the number of processes.
    """
    if size is None:
        return None
    return dist.new_subgroups(size, timeout=TRAINING_TIMEOUT)[0]


def synchronize_batch_norm(network: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Synchronises every batch norm in training over the processes of the group, by default over all.

    `FusedBatchNorm2d` can do it itself; others are replaced by it or by `SyncedBatchNorm` and keep their names,
    parameters and buffers. InputError for a batch norm that does more, such as timm's with a built-in activation,
    which would be lost, and for one without weight and bias.
    """
    for name, module in list(network.named_modules()):
        if not isinstance(module, _BatchNorm):
            continue
        if isinstance(module, FusedBatchNorm2d):
            norm = module
        elif type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) and module.affine:
            norm = _replacement(module)
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, norm)
        else:
            what = type(module).__name__ + ("" if module.affine else " without weight and bias")
            raise InputError(
                f"{name} is a {what}, which cannot be synchronised between processes; train in "
                "one process or choose another --backbone"
            )
        norm.synchronized, norm.group = True, group


def _replacement(norm: _BatchNorm) -> FusedBatchNorm2d:
    """A norm with the same parameters and buffers that can be synchronised."""
    kind = FusedBatchNorm2d if isinstance(norm, nn.BatchNorm2d) else SyncedBatchNorm
    synced = kind(norm.num_features, norm.eps, norm.momentum)
    synced.weight, synced.bias = norm.weight, norm.bias
    synced.running_mean, synced.running_var = norm.running_mean, norm.running_var
    synced.num_batches_tracked = norm.num_batches_tracked
    synced.training = norm.training
    return synced


def agree(world: World, batch: Batch, decisions: tuple[bool, ...]) -> tuple[Batch, tuple[bool, ...]]:
    """Agrees on what all processes do at this step: the pyramid levels that each view computes, and `decisions`.

    A decision holds if any process makes it. All compute a level if any has a box on it, so that they exchange the
    statistics of the same batch norms and the gradients of the same parameters. One small exchange between CPUs.
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


def mean_over_processes(world: World, value: Tensor) -> Tensor:
    """The mean of a scalar over all processes."""
    if world.size == 1:
        return value
    total = value.detach().clone()
    try:
        dist.all_reduce(total)
    except RuntimeError as error:
        raise lost_process(error) or error from None
    return total / world.size


def gather_rows(world: World, rows: Tensor) -> Tensor:
    """The rows of all processes, each of which has equally many; without gradient."""
    if world.size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    try:
        dist.all_gather(parts, rows.contiguous())
    except RuntimeError as error:
        raise lost_process(error) or error from None
    return torch.cat(parts)


def gather_to_first(world: World, found: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """In the first process, the sorted pairs that any process found; in the others, which do not wait, their own.

    Every process must call it. Pairs of a process that ended before it did are left out.
    """
    pairs = sorted(found)
    if world.size == 1:
        return pairs
    store, number = dist.distributed_c10d._get_default_store(), next(_gather_counter)
    keys = [f"told {number} by {rank}" for rank in range(world.size)]
    with suppress(RuntimeError):
        store.set(keys[world.rank], json.dumps(pairs))
        if world.is_first:
            with suppress(RuntimeError):
                store.wait(keys, GATHER_TIMEOUT)
            told = [json.loads(store.get(key)) for key in keys if store.check([key])]
            pairs = sorted({(one, other) for theirs in told for one, other in theirs})
    return pairs


_gather_counter = itertools.count()
