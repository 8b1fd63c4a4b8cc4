"""Precise batch norm against directly computed means and variances."""

import pytest
import torch
from torch import nn

from socodet.training.precise_bn import reestimate_statistics


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)
    ).train()


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_those_of_all_batches_together(training):
    network = small_network().train(training)
    batches = [torch.randn(n, 2, 5, 4) * n + n for n in (2, 7, 3)]
    reestimate_statistics(network, network, batches)
    assert network.training == training
    with torch.no_grad():
        first = torch.cat([network[0](batch) for batch in batches]).double()
        # the second norm's input was normalised batch by batch, as in training
        second = []
        for batch in batches:
            x = network[0](batch)
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
            normal = (x - mean) / (var + network[1].eps).sqrt()
            second.append(network[3](normal.relu()))
        second = torch.cat(second).double()
    for norm, values in ((network[1], first), (network[4], second)):
        torch.testing.assert_close(norm.running_mean.double(), values.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), values.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_unused_norms_and_everything_but_statistics_stay_unchanged():
    network = small_network()
    unused = nn.BatchNorm1d(3)
    unused.running_mean.fill_(7.0)
    whole = nn.ModuleList([network, unused]).eval()
    weights = {name: value.clone() for name, value in whole.named_parameters()}
    reestimate_statistics(whole, lambda batch: whole[0](batch), [torch.randn(4, 2, 3, 3)])
    assert torch.equal(unused.running_mean, torch.full((3,), 7.0))
    assert not whole.training
    assert all(torch.equal(value, weights[name]) for name, value in whole.named_parameters())
    assert network[1].momentum == 0.1
    assert not network[1]._forward_pre_hooks


def test_channel_far_from_zero_keeps_its_small_variance():
    norm = nn.BatchNorm2d(1).train()
    values = 1000 + 0.1 * torch.randn(64, 1, 8, 8)
    reestimate_statistics(norm, norm, [values[:20], values[20:]])
    torch.testing.assert_close(norm.running_var, values.double().var().float()[None], rtol=1e-4, atol=0)
