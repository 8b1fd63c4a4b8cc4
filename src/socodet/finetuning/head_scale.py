"""Rescales a pretrained box head before fine-tuning, so that its output is as large as a fresh head's.

In pretraining the projector's batch norm follows the box head, so nothing constrains the scale of h = f^H(·), which may
drift far from its initial value. In a detector, a fresh classifier and box regressor follow directly. If their inputs
are many times larger than their initialisation assumes, their first updates are too large by the square of that factor
and undo what the pretrained modules have learned. A factor on the last linear layer passes through its ReLU, so
multiplying this layer by one number is enough: h keeps its direction, and nothing before it changes.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from socodet.runtime.world import ALONE, World
from socodet.training.distributed import mean_over_processes

B = TypeVar("B")

FRESH_RMS = math.sqrt(1 / 12)
"""RMS of a fresh head's output. After batch norm and ReLU the mean square of a value is 1/2. torch initialises a linear
layer of n inputs with weights of variance 1/(3 n), so the mean square of its outputs is 1/6; ReLU halves that."""


def match_head_scale(
    detector: nn.Module, forward: Callable[[B], object], batches: Iterable[B], world: World = ALONE
) -> float | None:
    """Scales the last linear layer of a detector's box head so that its output's RMS matches a fresh head's.

    `forward` runs the detector on a training batch, such as `lambda batch: detector(*batch)`; it is called in training
    mode without gradients, and batch norm's running statistics are restored afterwards. With several processes, all
    must call this function. Returns the factor, or None, with nothing changed, for a detector without such a layer (C4,
    whose head ends in batch norm; RetinaNet; FCOS) and when no batch reached the head.
    """
    layer = _last_linear(detector)
    if layer is None:
        return None
    squares: list[Tensor] = []

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if output.numel():
            squares.append(output.detach().relu().float().square().mean())

    buffers = [(buffer, buffer.clone()) for buffer in detector.buffers()]
    was_training = detector.training
    hook = layer.register_forward_hook(note)
    detector.train()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # compiled code does not see the hook
            for batch in batches:
                forward(batch)
    finally:
        hook.remove()
        detector.train(was_training)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    here = torch.stack(squares).mean() if squares else layer.weight.new_zeros(())
    rms = math.sqrt(float(mean_over_processes(world, here)))
    if not 0 < rms < math.inf:
        return None
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(FRESH_RMS / rms)
    return FRESH_RMS / rms


def _last_linear(detector: nn.Module) -> nn.Linear | None:
    """The box head's last linear layer, if only a ReLU comes between it and the predictors."""
    head = getattr(getattr(detector, "roi_heads", None), "box_head", None)
    last = None
    for module in head.modules() if head is not None else ():
        if isinstance(module, nn.Linear):
            last = module
        elif last is not None and not isinstance(module, nn.ReLU):
            return None
    return last
