"""What a training loop trains: the interface of a learner, the learner of one network, and its optimiser step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from socodet.errors import InputError
from socodet.models.cpu_convolution import keep_strided_pointwise_in_memory, speed_up_weight_gradients
from socodet.runtime.world import World
from socodet.training.devices import autocast_type, choose_device, compile_every_shape
from socodet.training.distributed import (
    agree_flags,
    any_process,
    lost_process,
    mean_over_processes,
    norm_group,
    synchronize_batch_norm,
)
from socodet.training.settings import ExecutionSettings

B = TypeVar("B")

OVERWRITE = "pass --overwrite to start over"
PENDING = "pending"
"""Key in a checkpoint that was saved before the work that follows its step was done."""


class DivergedError(InputError):
    """The loss, the gradients or the weights are NaN or infinite; `step` is the one at which the loop found it."""

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step


class StoppedEarlyError(Exception):
    """A signal interrupted the work that `run_loop` does after a step; it is repeated on resume."""


class Learner(ABC, Generic[B]):
    """Networks, their optimiser and the current step. `B` is the type of a batch."""

    world: World
    device: torch.device
    total: int
    """Optimiser steps of the whole run."""
    finished: int
    """Optimiser steps done."""
    pending = False
    """Whether the work that follows the last step, such as an evaluation, was interrupted."""
    when_diverged = "lower the learning rate"
    """Advice to the user after a divergence."""
    when_too_large = "lower --batch-size"
    """Advice to the user when a batch does not fit into memory."""

    @abstractmethod
    def step(self, batch: B) -> object:
        """Takes one optimiser step on a batch in CPU memory and adds 1 to `finished`, without waiting for the device.

        The return value is ignored. Raises DivergedError when training cannot continue.
        """

    @abstractmethod
    def metrics(self, seconds: float, waited: float) -> dict[str, Any]:
        """What to log about the steps since the last call; may wait for the device.

        seconds: time since the last call. waited: how much of it was spent waiting for data. All processes call this
        at the same steps.
        """

    @abstractmethod
    def summary(self) -> str:
        """The last log line in a few words, for the progress bar: `loss 1.234  lr 0.01`."""

    @abstractmethod
    def check_finite(self) -> str | None:
        """Describes what is NaN or infinite; None when nothing is. All processes get the same answer."""

    def require_finite(self) -> None:
        """Raises DivergedError, in all processes, if anything is NaN or infinite; for use before weights are scored."""
        problem = self.check_finite()
        if problem is not None:
            raise DivergedError(problem)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume, in types that `torch.load(weights_only=True)` accepts."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from a saved state. Raises InputError when it belongs to another run."""

    @abstractmethod
    def images(self, batch: B) -> int:
        """Number of images in this process's batch."""

    def agree(self, batch: B, flags: tuple[bool, ...]) -> tuple[B, tuple[bool, ...]]:
        """The batch as all processes will use it, and each of `flags` true where it is true in any process."""
        return batch, agree_flags(self.world, flags)


class NetworkLearner(Learner[B]):
    """Trains one network, in one process or in several, with batch norm synchronised over them.

    A subclass changes the modules as it needs, compiles them, and then calls `_begin`.
    """

    saved_as: str
    """The name of the network in a checkpoint."""

    def __init__(
        self, network: nn.Module, execution: ExecutionSettings, world: World, *, norms_over: int | None = None
    ) -> None:
        """norms_over: how many processes share the statistics of batch norm; all by default."""
        self.world = world
        self.device = choose_device(execution.device, world)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # Triton launches on the current device
        if execution.compile:
            compile_every_shape()
        self.precision = autocast_type(execution.precision, self.device)
        self.network = network.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if self.device.type == "cpu":
            keep_strided_pointwise_in_memory(self.network)
            if self.precision is torch.bfloat16:
                speed_up_weight_gradients(self.network)
        if world.size > 1 and norms_over != 1:
            synchronize_batch_norm(self.network, norm_group(norms_over))
        self.finished = 0
        self._skip = execution.on_nan == "skip"
        self._summary = ""

    def _begin(
        self, optimizer: torch.optim.Optimizer, execution: ExecutionSettings, *, find_unused_parameters: bool = False
    ) -> None:
        """To be called when the network is complete: distributes it over the processes and makes the optimiser step."""
        self.optimizer = optimizer
        self._forward: nn.Module = self.network
        if self.world.size > 1:
            try:
                self._forward = DistributedDataParallel(
                    self.network,
                    device_ids=[self.device] if self.device.type == "cuda" else None,
                    broadcast_buffers=False,  # equal where batch norm is synchronised; the first process's are saved
                    find_unused_parameters=find_unused_parameters,
                )
            except RuntimeError as error:
                raise lost_process(error) or error from None
        self._update = OptimizerStep(
            self.network,
            optimizer,
            self.world,
            scaled=self.precision is torch.float16,
            skip=self._skip,
            max_skipped=execution.max_skipped,
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32)

    @contextmanager
    def _seeded(self, seed: int, draw: int) -> Iterator[None]:
        """In this context, torch's random numbers depend only on seed, draw and process; the caller's state is kept."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed((seed * 1_000_003 + draw * self.world.size + self.world.rank) % 2**63)
            yield

    def _mean(self, values: list[Tensor]) -> float:
        """The mean of scalars over all processes."""
        return float(mean_over_processes(self.world, torch.stack(values).mean()))

    @abstractmethod
    def lr(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""

    @abstractmethod
    def mean_loss(self) -> float:
        """The mean loss over all processes since the last log line; 0 if no step counted."""

    def summary(self) -> str:
        """The last log line's loss and learning rate."""
        return self._summary

    def check_finite(self) -> str | None:
        """The loss since the last log line and the learning rate, if that loss or any weight is not finite."""
        loss = self.mean_loss()
        norms = torch.stack(torch._foreach_norm(list(self.network.parameters())))
        if math.isfinite(loss) and bool(norms.isfinite().all()):
            return None
        return f"loss {loss:.3g} at learning rate {self.lr(self.finished - 1):.3g}"

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume."""
        return {
            "step": self.finished,
            "total_steps": self.total,
            self.saved_as: self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._update.scaler.state_dict(),
            **({PENDING: True} if self.pending else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from a saved state. InputError when it belongs to another run or version."""
        pending, state = PENDING in state, {name: value for name, value in state.items() if name != PENDING}
        if state.keys() != self.state_dict().keys() - {PENDING}:
            raise InputError(f"the checkpoint was written by another version; resume with that version, or {OVERWRITE}")
        if state["total_steps"] != self.total:
            raise InputError(
                f"the checkpoint is of a run of {state['total_steps']} steps, this one has {self.total}: "
                f"the settings or the number of readable images changed; {OVERWRITE}"
            )
        try:
            self._load(state)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(f"the checkpoint is of another {self.saved_as} ({reason}); {OVERWRITE}") from None
        self.finished, self.pending = state["step"], pending

    def _load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state[self.saved_as])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # a run may resume in another precision, whose scaler ignores it
            self._update.scaler.load_state_dict(state["scaler"])


class OptimizerStep:
    """An optimiser step that is skipped without a trace when the loss or the gradients are not finite.

    scaled: use a dynamic loss scale, as float16 needs (Micikevicius et al. 2018), and skip steps that overflow. skip:
    skip in any precision. With neither, this is the optimiser's own step and never waits for the device; with either,
    it waits once per step. More than `max_skipped` skips in a row are a divergence. All processes decide alike.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        *,
        scaled: bool,
        skip: bool,
        max_skipped: int,
    ) -> None:
        self._network, self.optimizer, self._world = network, optimizer, world
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self.scaler = torch.amp.GradScaler(self._parameters[0].device.type, enabled=scaled)
        self.can_skip = scaled or skip
        self._statistics: dict[str, Tensor] = {}
        self._max_skipped, self._in_a_row = max_skipped, 0

    def begin(self) -> None:
        """Call before the forward pass: clears gradients, and saves the batch-norm statistics in case of a skip."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.can_skip:
            self._statistics = {name: buffer.clone() for name, buffer in self._network.named_buffers()}

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a micro-batch."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def finish(self, loss: Tensor) -> bool:
        """Updates the weights and returns True, or skips the step and returns False.

        loss: that of the whole step, without gradient. Raises DivergedError after too many skips in a row.
        """
        if not self.can_skip:
            self.optimizer.step()
            return True
        self.scaler.unscale_(self.optimizer)
        finite = not any_process(self._world, not self._is_finite(loss))
        if finite:
            self.scaler.step(self.optimizer)
            self._in_a_row = 0
        else:
            for name, buffer in self._network.named_buffers():  # a user's loss may have replaced some
                buffer.copy_(self._statistics.get(name, buffer))
            self._in_a_row += 1
        self.scaler.update()
        if self._in_a_row > self._max_skipped:
            rate = self.optimizer.param_groups[0]["lr"]
            raise DivergedError(
                f"loss or gradients were not finite {self._in_a_row} steps in a row, at learning rate {rate:.3g}"
            )
        return finite

    def _is_finite(self, loss: Tensor) -> bool:
        grads = [p.grad for p in self._parameters if p.grad is not None]
        return bool(torch.stack(torch._foreach_norm(grads)).isfinite().all() & loss.isfinite())
