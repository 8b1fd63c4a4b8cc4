"""LARS: every layer's step in proportion to the length of its weights."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You, Gitman & Ginsburg 2017).

    For a weight w with gradient g, decay β and trust coefficient η:
    λ = η ‖w‖ / (‖g‖ + β ‖w‖), or 1 where ‖w‖ or ‖g‖ is 0;  m ← μ m + λ (g + β w);  w ← w - lr · m.
    A parameter group with `adapt=False` has λ = 1. A group is updated by torch's foreach operations, without
    waiting for the device.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; the gradients are used up by it (scaled in place).

        A parameter without a gradient is stepped as if it were zero: decay and momentum act on it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = group["params"]
            updates = [p.grad if p.grad is not None else torch.zeros_like(p) for p in params]
            decay: float = group["weight_decay"]
            if group["adapt"]:
                ratios = self._trust_ratios(params, updates, decay, group["trust_coefficient"])
            if decay:
                torch._foreach_add_(updates, params, alpha=decay)
            if group["adapt"]:
                torch._foreach_mul_(updates, ratios)
            momenta = [self._momentum_buffer(p) for p in params]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, updates)
            torch._foreach_add_(params, momenta, alpha=-group["lr"])
        return loss

    @staticmethod
    def _trust_ratios(
        params: list[Tensor], grads: list[Tensor], decay: float, coefficient: float
    ) -> tuple[Tensor, ...]:
        weight = torch.stack(torch._foreach_norm(params))
        grad = torch.stack(torch._foreach_norm(grads))
        ratio = coefficient * weight / (grad + decay * weight)
        return torch.where((weight > 0) & (grad > 0), ratio, torch.ones_like(ratio)).unbind()

    def _momentum_buffer(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(param)
        buffer: Tensor = state["momentum"]
        return buffer


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights, and the one-dimensional rest (biases, norms) without decay or trust ratio (BYOL)."""
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, "adapt": True},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]
