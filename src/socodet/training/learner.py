"""What a training loop trains: the interface of a learner, and the exceptions that end a step or what follows it."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch

from socodet.errors import InputError
from socodet.runtime.world import World
from socodet.training.distributed import agree_flags

B = TypeVar("B")


class DivergedError(InputError):
    """The loss, the gradients or the weights are NaN or infinite; `step` is the one at which the loop found it."""

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step


class StoppedEarlyError(Exception):
    """What `run_loop` does after a step was stopped by a signal before its end; it is repeated on resume."""


class Learner(ABC, Generic[B]):
    """Networks, their optimiser and the current step. `B` is the type of a batch."""

    world: World
    device: torch.device
    total: int
    """Optimiser steps of the whole run."""
    finished: int
    """Optimiser steps done."""
    pending = False
    """Whether what follows the last step, such as an evaluation, was stopped before its end."""
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
