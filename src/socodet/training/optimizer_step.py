"""From a loss to moved weights: the float16 loss scale, and steps that are left out because they are not finite."""

import torch
from torch import Tensor, nn

from socodet.runtime.world import World
from socodet.training.distributed import any_process
from socodet.training.loop import DivergedError


class OptimizerStep:
    """An optimiser's step, left out with every trace of it where loss or gradients are not finite.

    scaled: with a loss scale that adapts itself, as float16 needs (Micikevicius et al. 2018); steps that overflow
    are left out. skip: leave out in any precision. With neither it is the optimiser's own step, and never waits for
    the device; with either it waits once a step. max_skipped: one more than so many in a row are a divergence. All
    processes decide alike.
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
        """Before the first forward pass: no gradients, and batch norm's statistics kept to go back to."""
        self._optimizer.zero_grad(set_to_none=True)
        _copy(self._statistics, self._statistics_before)

    def backward(self, loss: Tensor) -> None:
        """Adds a part's gradients."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def finish(self, loss: Tensor) -> bool:
        """Moves the weights and returns True; or leaves the step out. loss: of the whole step, without gradient.

        DivergedError when too many were left out in a row.
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
