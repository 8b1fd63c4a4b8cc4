"""The size of a pretrained box head's output, brought to that of a fresh head's before fine-tuning.

In pretraining batch norm follows the box head's linear layer (the projector's), so that nothing holds the size of
h = f^H(·): it may end far from where it began. In a detector the fresh classifier and box regressor come right behind
it; with inputs many times larger than they are made for, their first steps are as many times too large, squared, and
undo in the pretrained modules what was learned. ReLU and a linear layer let a factor pass, so the layer is multiplied
by one number: h keeps its direction, and everything before it stays as it was.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from socodet.runtime.world import ALONE, World
from socodet.training.distributed import mean_over_all

B = TypeVar("B")

FRESH_SIZE = math.sqrt(1 / 12)
"""Root mean square of a fresh head's output. Behind batch norm and ReLU the mean square is 1/2 a value; torch's linear
layer begins with weights of variance 1/(3 n) for n inputs, so with outputs of 1/6; ReLU halves that."""


def match_head_scale(
    detector: nn.Module, forward: Callable[[B], object], batches: Iterable[B], world: World = ALONE
) -> float | None:
    """Multiplies the last linear layer of a detector's box head so that its output has the size of a fresh head's.

    `forward` puts a training batch through the detector, such as `lambda batch: detector(*batch)`; it is called in
    training mode, without gradients, and batch norm's statistics are put back. Of several processes all take part.
    Returns the factor; None, with nothing changed, for a detector without such a layer (C4, whose head ends in batch
    norm; RetinaNet, FCOS), or when no batch reached the head.
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
    size = math.sqrt(float(mean_over_all(world, here)))
    if not 0 < size < math.inf:
        return None
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(FRESH_SIZE / size)
    return FRESH_SIZE / size


def _last_linear(detector: nn.Module) -> nn.Linear | None:
    """The layer a box predictor reads, through ReLU alone."""
    head = getattr(getattr(detector, "roi_heads", None), "box_head", None)
    last = None
    for module in head.modules() if head is not None else ():
        if isinstance(module, nn.Linear):
            last = module
        elif last is not None and not isinstance(module, nn.ReLU):
            return None
    return last
