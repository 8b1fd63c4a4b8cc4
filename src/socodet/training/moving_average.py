"""A moving average of weights whose decay rises, so that it forgets the weights of the first steps."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MultiAverage = Callable[[Any, Any, Tensor | int], None]
"""As `AveragedModel` takes it: averages, weights and the number of averaged steps so far."""


def moving_average(decay: float, warmup: float) -> MultiAverage:
    """Averages with decay · (1 - exp(-n / warmup)) at the n-th step: of `warmup` steps two thirds of the decay."""

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], averaged: Tensor | int) -> None:
        now = decay * (1 - math.exp(-float(averaged) / warmup))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, 1 - now)
        else:
            torch._foreach_copy_(averages, weights)

    return update
