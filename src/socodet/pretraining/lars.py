"""LARS: every layer's step in proportion to the norm of its weights."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor, nn


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You, Gitman & Ginsburg 2017).

    For a weight w with gradient g, decay β and trust coefficient η:
    λ = η ‖w‖ / (‖g‖ + β ‖w‖), or 1 where ‖w‖ or ‖g‖ is 0;  m ← μ m + λ (g + β w);  w ← w - lr · m.
    A parameter group with `adapt=False` has λ = 1, which is SGD with momentum. With `clip` (LARC) λ is at most lr, and
    lr · m becomes the sum of such steps: λ ← min(λ / lr, 1). A group is updated by torch's foreach operations, without
    waiting for the device.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        clip: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": True,
            "clip": clip,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; it scales the gradients in place.

        A parameter without a gradient is updated as if its gradient were zero: decay and momentum still act on it.
        `closure` recomputes the gradients and returns the loss, which `step` then returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = group["params"]
            if not params:  # such as the norms' group if they are frozen
                continue
            updates = [p.grad if p.grad is not None else torch.zeros_like(p) for p in params]
            decay: float = group["weight_decay"]
            if group["adapt"]:
                ratios = self._trust_ratios(params, updates, decay, group["trust_coefficient"])
                if group["clip"]:
                    ratios = torch.stack(ratios).div(group["lr"]).clamp_max(1).unbind()
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


def parameter_groups(
    network: nn.Module,
    weight_decay: float,
    *,
    adapt: bool = True,
    norm_factor: float = 1.0,
    factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """A group of weights, and one of 1-d parameters (biases, norms), which have no decay or trust ratio (BYOL).

    adapt: whether weights have a trust ratio. norm_factor: `lr_factor` of the 1-d parameters. factors: `lr_factor`
    by prefix of the parameters' names; each prefix has two groups of its own.
    """
    groups: list[dict[str, Any]] = []
    for prefix, factor in {"": 1.0, **(factors or {})}.items():
        chosen = [p for name, p in network.named_parameters() if p.requires_grad and _prefix(name, factors) == prefix]
        weights, rest = [p for p in chosen if p.ndim > 1], [p for p in chosen if p.ndim <= 1]
        groups += [
            {"params": weights, "weight_decay": weight_decay, "adapt": adapt, "lr_factor": factor},
            {"params": rest, "weight_decay": 0.0, "adapt": False, "lr_factor": factor * norm_factor},
        ]
    return groups


def _prefix(name: str, factors: Mapping[str, float] | None) -> str:
    return next((prefix for prefix in factors or () if name.startswith(prefix)), "")
