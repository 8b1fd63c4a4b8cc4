"""The kernels of fused batch norm in Triton's interpreter, on a CPU, against torch in float64; run as a script.

The interpreter must be chosen before Triton is imported, hence a process of its own.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from socodet.models import norm_kernels

norm_kernels.TILE = 512  # several tiles, and several programs a reduction, on small maps


def difference(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours.detach().double() - exact.detach()).norm() / exact.detach().norm())


def check(shape: tuple[int, ...], *, add: bool, relu: bool, dtype: torch.dtype, tolerance: float) -> None:
    def map_of(mean: float, spread: float) -> torch.Tensor:
        return (torch.randn(shape) * spread + mean).to(dtype).contiguous(memory_format=torch.channels_last)

    x, residual, dy = map_of(50.0, 3.0), map_of(0.0, 1.0) if add else None, map_of(0.0, 1.0)
    norm = torch.nn.BatchNorm2d(shape[1])
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    exact = torch.nn.BatchNorm2d(shape[1]).double()
    exact.load_state_dict(norm.state_dict())
    y, coefficients = norm_kernels.forward(x, residual, norm, relu=relu)
    dx, dz, weight, bias = norm_kernels.backward(dy, x, y if add else None, coefficients, relu=relu)

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


torch.manual_seed(0)
for add in (False, True):
    for relu in (False, True):
        check((3, 5, 7, 6), add=add, relu=relu, dtype=torch.float32, tolerance=2e-6)
        check((2, 130, 5, 4), add=add, relu=relu, dtype=torch.float32, tolerance=2e-6)
        check((2, 16, 8, 8), add=add, relu=relu, dtype=torch.bfloat16, tolerance=6e-3)
print("all agree")
