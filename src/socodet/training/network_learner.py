"""What pretraining and fine-tuning share: one network, its optimiser steps, and the state in a checkpoint."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from socodet.errors import InputError
from socodet.models.cpu_convolution import speed_up_weight_gradients
from socodet.runtime.world import World
from socodet.training.devices import autocast_type, choose_device
from socodet.training.distributed import mean_over_all, norm_group, synchronize_batch_norm
from socodet.training.learner import B, Learner
from socodet.training.optimizer_step import OptimizerStep
from socodet.training.settings import ExecutionSettings

OVERWRITE = "pass --overwrite to start over"
PENDING = "pending"
"""In a checkpoint that was saved before what follows its step was done."""


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
        self.precision = autocast_type(execution.precision, self.device)
        self.network = network.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if self.precision is torch.bfloat16 and self.device.type == "cpu":
            speed_up_weight_gradients(self.network)
        if world.size > 1 and norms_over != 1:
            synchronize_batch_norm(self.network, norm_group(norms_over))
        self.finished = 0
        self._skip = execution.on_nan == "skip"
        self._summary = ""

    def _begin(
        self, optimizer: torch.optim.Optimizer, execution: ExecutionSettings, *, find_unused_parameters: bool = False
    ) -> None:
        """The network is ready to learn: distributes it over the processes and makes the optimiser step."""
        self.optimizer = optimizer
        self._forward: nn.Module = self.network
        if self.world.size > 1:
            self._forward = DistributedDataParallel(
                self.network,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,  # equal where batch norm is synchronised; the first process's are saved
                find_unused_parameters=find_unused_parameters,
            )
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

    def _mean(self, values: list[Tensor]) -> float:
        """The mean of scalars over all processes."""
        return float(mean_over_all(self.world, torch.stack(values).mean()))

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
        """Resumes from a saved state. InputError when it is of another run or version."""
        pending, state = PENDING in state, {name: value for name, value in state.items() if name != PENDING}
        if state.keys() != self.state_dict().keys():
            raise InputError(
                f"the checkpoint is not one that this version writes; resume with the version that did, or {OVERWRITE}"
            )
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
        if state["scaler"] and self._update.scaler.is_enabled():  # the precision may change at a resume
            self._update.scaler.load_state_dict(state["scaler"])
