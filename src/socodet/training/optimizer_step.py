"""An optimiser step with float16's loss scale, which can skip what is not finite."""

import torch
from torch import Tensor, nn

from socodet.runtime.world import World
from socodet.training.distributed import any_process
from socodet.training.learner import DivergedError


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
        self._optimizer, self._world = optimizer, world
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self.scaler = torch.amp.GradScaler(self._parameters[0].device.type, enabled=scaled)
        self.can_skip = scaled or skip
        self._statistics = list(network.buffers()) if self.can_skip else []
        self._statistics_before = [buffer.clone() for buffer in self._statistics]
        self._max_skipped, self._in_a_row = max_skipped, 0

    def begin(self) -> None:
        """Call before the forward pass: clears gradients, and saves the batch-norm statistics in case of a skip."""
        self._optimizer.zero_grad(set_to_none=True)
        _copy(self._statistics, self._statistics_before)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a micro-batch."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def finish(self, loss: Tensor) -> bool:
        """Updates the weights and returns True, or skips the step and returns False.

        loss: of the whole step, without gradient. Raises DivergedError after too many skips in a row.
        """
        if not self.can_skip:
            self._optimizer.step()
            return True
        self.scaler.unscale_(self._optimizer)
        finite = not any_process(self._world, not self._is_finite(loss))
        if finite:
            self.scaler.step(self._optimizer)
            self._in_a_row = 0
        else:
            _copy(self._statistics_before, self._statistics)
            self._in_a_row += 1
        self.scaler.update()
        if self._in_a_row > self._max_skipped:
            rate = self._optimizer.param_groups[0]["lr"]
            raise DivergedError(
                f"loss or gradients were not finite {self._in_a_row} steps in a row, at learning rate {rate:.3g}"
            )
        return finite

    def _is_finite(self, loss: Tensor) -> bool:
        grads = [p.grad for p in self._parameters if p.grad is not None]
        return bool(torch.stack(torch._foreach_norm(grads)).isfinite().all() & loss.isfinite())


def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    if source:  # a network may have no batch norm
        torch._foreach_copy_(target, source)
