"""1×1 convolutions as matrix products, for training on a CPU.

A feature map that lies channels last is a matrix of pixels and channels already. oneDNN's convolution puts the weights,
and in training their gradients, into another order at every call; a matrix product does without.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


def multiply_pointwise(network: nn.Module) -> int:
    """Replaces the forward of every 1×1 `Conv2d` without stride, padding or groups; how many.

    Modules, names and parameters stay as they are, and so do inputs that lie otherwise than channels last.
    """
    replaced = 0
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_product(module):
            # The same memory, in the strides that a product's gradient has: DistributedDataParallel wants them equal.
            module.weight.data = module.weight.data.flatten(1)[:, :, None, None]
            module.forward = partial(_pointwise, module)  # type: ignore[method-assign]
            replaced += 1
    return replaced


def _is_product(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding in ((0, 0), "valid", "same")
        and conv.groups == 1
    )


def _pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Shapes: (N, C, H, W) → (N, D, H, W)."""
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return nn.Conv2d.forward(conv, x)
    y_nhwd = functional.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias)
    return y_nhwd.permute(0, 3, 1, 2)
