"""What the kernels of fused batch norm of any device must do, against torch in float64."""

import copy
from types import ModuleType

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from socodet.models import fused_norm


def difference(ours: torch.Tensor, exact: torch.Tensor) -> float:
    ours, exact = ours.detach().double(), exact.detach().double()
    return float((ours - exact).norm() / exact.norm())


def check(
    kernels: ModuleType, shape: tuple[int, ...], *, add: bool, relu: bool, dtype: torch.dtype, tolerance: float
) -> None:
    def map_of(mean: float, spread: float) -> torch.Tensor:
        return (torch.randn(shape) * spread + mean).to(dtype).contiguous(memory_format=torch.channels_last)

    x, residual, dy = map_of(50.0, 3.0), map_of(0.0, 1.0) if add else None, map_of(0.0, 1.0)
    norm = torch.nn.BatchNorm2d(shape[1])
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    exact = torch.nn.BatchNorm2d(shape[1]).double()
    exact.load_state_dict(norm.state_dict())
    y, coefficients = kernels.forward(x, residual, norm, relu=relu)
    dx, dz, weight, bias = kernels.backward(dy, x, y if add else None, coefficients, relu=relu)

    x64 = x.double().requires_grad_()
    residual64 = residual.double().requires_grad_() if residual is not None else None
    out = exact(x64)
    if residual64 is not None:
        out = out + residual64
    if relu:
        out = torch.relu(out)
    out.backward(dy.double())
    pairs = {
        "y": (y, out),
        "x": (dx, x64.grad),
        "weight": (weight, exact.weight.grad),
        "bias": (bias, exact.bias.grad),
        "running_mean": (norm.running_mean, exact.running_mean),
        "running_var": (norm.running_var, exact.running_var),
    }
    if residual64 is not None:
        pairs["residual"] = (dz, residual64.grad)
    for name, (ours, theirs) in pairs.items():
        assert difference(ours, theirs) < tolerance, (shape, add, relu, name, difference(ours, theirs))
    assert int(norm.num_batches_tracked) == 1


def check_block(kind: type[BasicBlock] | type[Bottleneck], width: int = 4) -> None:
    """A residual block whose convolutions are torch's, in float32, against itself in float64 without fusing."""
    inputs, outputs = 8, width * kind.expansion
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
    plain = kind(inputs, width, downsample=shortcut)
    for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight, 1, 0.5)
        nn.init.normal_(norm.bias)
    plain = plain.to(memory_format=torch.channels_last)
    fused = copy.deepcopy(plain)
    assert fused_norm.fuse_batch_norm(fused, torch.device("cpu")) == (4 if kind is Bottleneck else 3)
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
    """What is not a number stays so, or no one would see that a run has diverged."""
    x = torch.randn(2, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    x[0, 3, 1, 1] = torch.nan
    norm = nn.BatchNorm2d(16)
    y, coefficients = kernels.forward(x, x, norm, relu=True)
    assert torch.equal(y.isnan().any(dim=(0, 2, 3)), torch.arange(16) == 3)
    assert bool(y[:, 3].isnan().all())
    assert bool(norm.running_var[3].isnan())
    for added in (y, None):
        dx, _, weight, _ = kernels.backward(torch.ones_like(y), x, added, coefficients, relu=True)
        assert bool(dx[:, 3].isnan().all())
        assert torch.equal(weight.isnan(), torch.arange(16) == 3)


def check_outlier(kernels: ModuleType) -> None:
    """One pixel far from all others, and that the first, leaves the others' digits in the variance."""
    x = (1e-3 * torch.randn(3, 16, 30, 30)).contiguous(memory_format=torch.channels_last)
    x[0, :, 0, 0] = 10.0
    norm = nn.BatchNorm2d(16, momentum=1.0)
    kernels.forward(x, None, norm, relu=False)
    exact = x.double().var(dim=(0, 2, 3))
    assert difference(norm.running_var, exact) < 1e-5, difference(norm.running_var, exact)
    x[0, :, 0, 0] = 0.5  # whose share of the variance is smaller
    kernels.forward(x + 100, None, norm, relu=False)
    exact = (x + 100).double().var(dim=(0, 2, 3))
    assert difference(norm.running_var, exact) < 1e-4, difference(norm.running_var, exact)
