"""Faster weight gradients, against the same convolution in float64."""

import copy
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from socodet.models.cpu_convolution import (
    CPUConv2d,
    StridedPointwise,
    keep_strided_pointwise_in_memory,
    speed_up_weight_gradients,
)


def gradients(convolution, x, seed=1):
    """The output, and the gradients of x, weight and bias for a loss that weights every output differently."""
    x = x.clone().requires_grad_()
    y = convolution(x)
    factors = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).bfloat16()
    y.backward(factors.to(y.dtype))
    return [g.double() for g in (y.detach(), x.grad, *(p.grad for p in convolution.parameters()))]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 7, 7), (5, 8, 8), (19, 7, 7), (70, 2, 3), (3, 1, 1), (40, 4, 4)])
def test_gradients_match_float64(shape, bias):
    torch.manual_seed(0)
    count, height, width = shape
    network = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1, bias=bias))
    with torch.no_grad():
        for parameter in network.parameters():  # rounded, so that autocast changes nothing
            parameter.copy_(parameter.bfloat16())
    exact = copy.deepcopy(network).double()
    speed_up_weight_gradients(network)
    assert isinstance(network[0], CPUConv2d)
    x = torch.randn(count, 6, height, width).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(network, x)
    for found, expected in zip(ours, gradients(exact, x.double()), strict=True):
        assert float((found - expected).norm()) <= 0.01 * float(expected.norm())


def test_only_suitable_convolutions_are_replaced_and_keep_their_parameters():
    network = nn.ModuleDict(
        {
            "taken": nn.Conv2d(4, 4, 3, padding=1),
            "inside": nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, bias=False)),
            "strided": nn.Conv2d(4, 4, 3, stride=2, padding=1),
            "dilated": nn.Conv2d(4, 4, 3, padding=1, dilation=2),
            "grouped": nn.Conv2d(4, 4, 3, padding=1, groups=4),
            "reflected": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            "shrinking": nn.Conv2d(4, 4, 3),
            "pointwise": nn.Conv2d(4, 4, 1),
        }
    )
    before = dict(network.named_parameters())
    speed_up_weight_gradients(network)
    assert {name for name, module in network.named_modules() if isinstance(module, CPUConv2d)} == {"taken", "inside.0"}
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


@pytest.mark.parametrize("side", [7, 20])
def test_convolution_is_torchs_without_autocast(side):
    torch.manual_seed(0)
    plain, x = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), torch.randn(3, 4, side, side)
    faster = copy.deepcopy(plain)
    speed_up_weight_gradients(faster)
    for found, expected in zip(gradients(faster, x), gradients(plain, x), strict=True):
        assert torch.equal(found, expected)


def test_frozen_weight_and_empty_batch():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
    speed_up_weight_gradients(network)
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.zeros(0, 4, 7, 7)).sum().backward()
        assert float(network[0].weight.grad.abs().sum()) == 0
        network[0].weight.requires_grad_(False)
        x = torch.randn(2, 4, 7, 7, requires_grad=True)
        network(x).sum().backward()
    assert float(x.grad.abs().sum()) > 0


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [2, (1, 3)])
@pytest.mark.parametrize("side", [1, 8, 9])
def test_strided_pointwise_convolution_matches_torchs(side, stride, bias):
    torch.manual_seed(0)
    plain, x = nn.Sequential(nn.Conv2d(3, 5, 1, stride, bias=bias)).double(), torch.randn(2, 3, side, side).double()
    safe = copy.deepcopy(plain)
    keep_strided_pointwise_in_memory(safe)
    assert isinstance(safe[0], StridedPointwise)
    for found, expected in zip(gradients(safe, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(found, expected)


def test_only_strided_pointwise_convolutions_with_few_channels_are_replaced():
    network = nn.ModuleDict(
        {
            "taken": nn.Conv2d(15, 4, 1, stride=2),
            "wide": nn.Conv2d(16, 4, 1, stride=2),
            "plain": nn.Conv2d(3, 4, 1),
            "padded": nn.Conv2d(3, 4, 1, stride=2, padding=1),
            "larger": nn.Conv2d(3, 4, 3, stride=2, padding=1),
            "grouped": nn.Conv2d(4, 4, 1, stride=2, groups=4),
        }
    )
    before = dict(network.named_parameters())
    keep_strided_pointwise_in_memory(network)
    assert [name for name, module in network.named_modules() if isinstance(module, StridedPointwise)] == ["taken"]
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_network_with_strided_pointwise_convolution_trains_with_two_threads():
    """In a separate process: without the replacement, memory is overwritten and nearly every run crashes."""
    program = """
        import torch
        from socodet.runtime.world import ALONE
        from socodet.training.learner import NetworkLearner
        from socodet.training.settings import ExecutionSettings

        torch.set_num_threads(2)
        NetworkLearner.__abstractmethods__ = frozenset()
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 48, 1, 2))
        learner = NetworkLearner(network, ExecutionSettings(device="cpu"), ALONE)
        kept = []
        for size in range(300):
            x = torch.randn(5, 3, 64, 64).contiguous(memory_format=torch.channels_last)
            learner.network(x).square().mean().backward()
            kept.append(torch.randn(1 + size))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=100)
