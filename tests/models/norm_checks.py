"""Checks of the fused batch norm kernels, for any device, against torch in float64."""

from types import ModuleType
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from socodet.models.blocks import FusedBasicBlock, FusedBottleneck
from socodet.models.fused_norm import FusedBatchNorm2d, NormAddReLU

FUSED = {BasicBlock: FusedBasicBlock, Bottleneck: FusedBottleneck}


def difference(ours: torch.Tensor, exact: torch.Tensor) -> float:
    ours, exact = ours.detach().double(), exact.detach().double()
    return float((ours - exact).norm() / exact.norm())


def check(
    kernels: ModuleType,
    shape: tuple[int, ...],
    *,
    add: bool,
    relu: bool,
    dtype: torch.dtype,
    tolerance: float,
    images: slice | None = None,
) -> None:
    """images: this process's images, if several processes normalise over all images together."""

    def map_of(mean: float, spread: float) -> torch.Tensor:
        return (torch.randn(shape) * spread + mean).to(dtype).contiguous(memory_format=torch.channels_last)

    x, residual, dy = map_of(50.0, 3.0), map_of(0.0, 1.0) if add else None, map_of(0.0, 1.0)
    norm = FusedBatchNorm2d(shape[1])
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    exact = nn.BatchNorm2d(shape[1]).double()
    exact.load_state_dict(norm.state_dict())
    here = images or slice(None)
    norm.synchronized = images is not None
    ours = x[here].clone().requires_grad_()
    ours_residual = None if residual is None else residual[here].clone().requires_grad_()
    (y,) = NormAddReLU.apply([norm], kernels, relu, ours, norm.weight, norm.bias, ours_residual)
    y.backward(dy[here])
    assert y.dtype is dtype
    if images is not None:
        for parameter in norm.parameters():
            dist.all_reduce(parameter.grad)

    x64 = x.double().requires_grad_()
    residual64 = residual.double().requires_grad_() if residual is not None else None
    out = exact(x64)
    if residual64 is not None:
        out = out + residual64
    if relu:
        out = torch.relu(out)
    out.backward(dy.double())
    pairs = {
        "y": (y, out[here]),
        "x": (ours.grad, x64.grad[here]),
        "weight": (norm.weight.grad, exact.weight.grad),
        "bias": (norm.bias.grad, exact.bias.grad),
        "running_mean": (norm.running_mean, exact.running_mean),
        "running_var": (norm.running_var, exact.running_var),
    }
    if residual64 is not None:
        pairs["residual"] = (ours_residual.grad, residual64.grad[here])
    for name, (value, expected) in pairs.items():
        assert difference(value, expected) < tolerance, (shape, add, relu, name, difference(value, expected))
    assert int(norm.num_batches_tracked) == 1


def check_together() -> None:
    """Maps of two sizes give the same results together as one by one, with half the exchanges."""
    maps, residuals, gradients = (
        [torch.randn(2, 16, side, 6).contiguous(memory_format=torch.channels_last) for side in (5, 9)] for _ in range(3)
    )
    exchanges, found = [], []
    for together in (True, False):
        norm = FusedBatchNorm2d(16)
        norm.synchronized = True
        inputs = [x.clone().requires_grad_() for x in maps]
        with patch.object(dist, "all_reduce", wraps=dist.all_reduce) as counted:
            if together:
                outputs = norm(inputs, residuals, relu=True)
            else:
                outputs = [norm(x, residual, relu=True) for x, residual in zip(inputs, residuals, strict=True)]
            torch.autograd.backward(outputs, gradients)
        exchanges.append(counted.call_count)
        found.append([*outputs, *(x.grad for x in inputs), norm.weight.grad, norm.bias.grad, *norm.buffers()])
    assert exchanges == [2, 4]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def check_block(kind: type[BasicBlock] | type[Bottleneck], width: int = 4) -> None:
    """A fused residual block whose convolutions are torch's, in float32, against torchvision's in float64."""
    inputs, outputs = 8, width * kind.expansion
    pair = []
    for block, norm_layer in ((kind, nn.BatchNorm2d), (FUSED[kind], FusedBatchNorm2d)):
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), norm_layer(outputs))
        pair.append(block(inputs, width, downsample=shortcut, norm_layer=norm_layer))
    plain, fused = pair
    for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight, 1, 0.5)
        nn.init.normal_(norm.bias)
    fused.load_state_dict(plain.state_dict())
    fused = fused.to(memory_format=torch.channels_last)
    x = (5 + torch.randn(2, inputs, 7, 6)).contiguous(memory_format=torch.channels_last)
    dy = torch.randn(2, outputs, 7, 6)
    found = []
    for network, dtype in ((fused, torch.float32), (plain.double(), torch.float64)):
        ours = x.detach().to(dtype).requires_grad_()
        out = network(ours)
        out.backward(dy.to(dtype))
        gradients = {name: p.grad for name, p in network.named_parameters()}
        found.append({"y": out, "x": ours.grad, **gradients, **dict(network.named_buffers())})
    for name, ours in found[0].items():
        assert difference(ours, found[1][name]) < 1e-4, (kind, name, difference(ours, found[1][name]))


def check_nan(kernels: ModuleType) -> None:
    """NaN stays NaN; otherwise a divergence would go unnoticed."""
    x = torch.randn(2, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    x[0, 3, 1, 1] = torch.nan
    norm = FusedBatchNorm2d(16)
    for residual in (x, None):
        inputs = x.clone().requires_grad_()
        (y,) = NormAddReLU.apply([norm], kernels, True, inputs, norm.weight, norm.bias, residual)
        assert torch.equal(y.isnan().any(dim=(0, 2, 3)), torch.arange(16) == 3)
        assert bool(y[:, 3].isnan().all())
        assert bool(norm.running_var[3].isnan())
        norm.weight.grad = None
        y.backward(torch.ones_like(y))
        assert bool(inputs.grad[:, 3].isnan().all())
        assert torch.equal(norm.weight.grad.isnan(), torch.arange(16) == 3)


def check_outlier(kernels: ModuleType) -> None:
    """A first pixel far from the others does not cost the variance its precision."""
    x = (1e-3 * torch.randn(3, 4, 30, 30)).contiguous(memory_format=torch.channels_last)
    x[0, :, 0, 0] = 10.0
    nearer = x.clone()
    nearer[0, :, 0, 0] = 0.5  # a smaller share of the variance
    for values, tolerance in ((x, 1e-5), (nearer + 100, 1e-4)):
        exact = values.double().var(dim=(0, 2, 3), correction=0)
        norm = FusedBatchNorm2d(4, momentum=1.0)
        nn.init.zeros_(norm.running_var)  # updating from 1 would lose the digits that are checked
        kernels.coefficients(values, norm)
        count = values[:, 0].numel()
        assert difference(norm.running_var, exact * count / (count - 1)) < tolerance
        sums = torch.empty(2 * 4 + 1, dtype=torch.float64)
        kernels.sums(values, sums)
        assert sums[-1] == count
        total, square = sums[:-1].chunk(2)
        assert difference(square / count - (total / count).square(), exact) < tolerance
