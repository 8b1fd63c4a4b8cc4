"""Batch norm fused with the residual sum and ReLU that follow it, for training on CUDA or a CPU.

The modules, their names and their parameters stay torchvision's; only their forward is replaced. Where a norm is in
evaluation, synchronised over processes, or its input lies otherwise than channels last, it works as before.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck

from socodet.runtime.vectors import LANES

TYPES = {"cuda": (torch.bfloat16, torch.float16, torch.float32), "cpu": (torch.bfloat16, torch.float32)}
"""What the kernels of each device take."""


def _kernels(device: torch.device) -> ModuleType:
    """The module with the `forward` and `backward` of a kind of device, imported where it is used."""
    return import_module(f"socodet.models.norm_kernels_{device.type}")


class NormAddReLU(torch.autograd.Function):
    """relu(norm(x) + residual) by the device's kernels, with its gradients."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, norm: nn.BatchNorm2d, relu: bool
    ) -> Tensor:
        """Weight and bias are the norm's own: named here so that they get gradients."""
        y: Tensor
        y, coefficients = _kernels(x.device).forward(x, residual, norm, relu=relu)
        ctx.save_for_backward(x, None if residual is None else y, coefficients)
        ctx.relu = relu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x, weight, bias and the residual."""
        x, y, coefficients = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, dz, weight, bias = _kernels(x.device).backward(dy, x, y, coefficients, relu=ctx.relu)
        return dx, weight, bias, None if y is None else dz, None, None


def norm_add_relu(x: Tensor, norm: nn.BatchNorm2d, residual: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """relu(norm(x) + residual), each part where it is asked for, in one pass where the kernels can, else by torch.

    Shapes: x and residual (N, C, H, W) → the same.
    """
    if _fits(x, norm) and (residual is None or _alike(residual, x)):
        assert norm.weight is not None
        assert norm.bias is not None
        y: Tensor = NormAddReLU.apply(x, norm.weight, norm.bias, residual, norm, relu)
        return y
    y = type(norm).forward(norm, x)
    if residual is not None:
        y = y + residual
    return torch.relu(y) if relu else y


def _fits(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    return (
        type(norm) is nn.BatchNorm2d  # a synchronised one asks the other processes
        and x.dtype in TYPES.get(x.device.type, ())
        and (x.is_cuda or x.shape[1] % LANES == 0)
        and norm.training
        and norm.momentum is not None
        and norm.weight is not None
        and norm.bias is not None
        and norm.running_mean is not None
        and norm.running_var is not None
        and all(
            p.dtype is torch.float32 and len(p) == x.shape[1]
            for p in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        )
        and x.numel() > x.shape[1]  # one value a channel: torch says what is wrong
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _alike(residual: Tensor, x: Tensor) -> bool:
    return (
        residual.dtype is x.dtype
        and residual.shape == x.shape
        and residual.is_contiguous(memory_format=torch.channels_last)
    )


def fuse_batch_norm(network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> int:
    """Replaces the forward of every `BatchNorm2d` and of the residual blocks of torchvision; how many norms.

    dtype: what convolutions give. 0, with a warning, where the kernels cannot be built on that device: for CUDA Triton
    makes them, which comes with torch's CUDA builds, and needs a C compiler.
    """
    try:
        _try_kernels(device, dtype)
    except Exception as error:  # Triton's own kinds, a missing compiler, an unknown card
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"batch norm is not fused, steps are slower: {type(error).__name__}: {reason}", stacklevel=2)
        return 0
    fused = 0
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.forward = partial(norm_add_relu, norm=module)  # type: ignore[method-assign]
            fused += 1
    for module in network.modules():
        if isinstance(module, Bottleneck | BasicBlock):
            if all(type(norm) is nn.BatchNorm2d for name, norm in module.named_children() if name.startswith("bn")):
                forward = _bottleneck if isinstance(module, Bottleneck) else _basic_block
                module.forward = partial(forward, module)  # type: ignore[method-assign, arg-type]
        elif isinstance(module, nn.Sequential | IntermediateLayerGetter):
            _fuse_pairs(list(module._modules.values()))
    return fused


def _try_kernels(device: torch.device, dtype: torch.dtype) -> None:
    if dtype not in TYPES.get(device.type, ()):
        raise TypeError(f"no kernels for {dtype} on {device.type}")
    kernels = _kernels(device)
    x = torch.ones(2, 16, 2, 2, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    y, coefficients = kernels.forward(x, x, nn.BatchNorm2d(16, device=device), relu=True)
    kernels.backward(y, x, y, coefficients, relu=True)


def _fuse_pairs(chain: Sequence[nn.Module | None]) -> None:
    """ReLU right after batch norm is left to it, unless either is used again elsewhere in the chain."""
    before: nn.Module | None = None
    for module in chain:
        once = chain.count(before) == chain.count(module) == 1
        if type(before) is nn.BatchNorm2d and isinstance(module, nn.ReLU) and once:
            before.forward = partial(norm_add_relu, norm=before, relu=True)  # type: ignore[method-assign]
            module.forward = _as_it_is  # type: ignore[method-assign, assignment]
        before = module


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _shortcut(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    shortcut: Tensor = x if block.downsample is None else block.downsample(x)
    return shortcut


# Norms are called as modules, so that hooks on them run; their forward is `norm_add_relu` here.


def _bottleneck(block: Bottleneck, x: Tensor) -> Tensor:
    out = block.bn1(block.conv1(x), relu=True)
    out = block.bn2(block.conv2(out), relu=True)
    result: Tensor = block.bn3(block.conv3(out), residual=_shortcut(block, x), relu=True)
    return result


def _basic_block(block: BasicBlock, x: Tensor) -> Tensor:
    out = block.bn1(block.conv1(x), relu=True)
    result: Tensor = block.bn2(block.conv2(out), residual=_shortcut(block, x), relu=True)
    return result
