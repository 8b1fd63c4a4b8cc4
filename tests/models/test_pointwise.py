"""1×1 convolutions as matrix products against the convolution in float64."""

import copy

import pytest
import torch
from torch import nn

from socodet.models.pointwise import PointwiseConv2d, multiply_pointwise


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(3, 5, 7, 6), (2, 5, 1, 1), (1, 5, 1, 4)])
def test_output_and_gradients_are_the_convolution_s(shape, bias, monkeypatch):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 4, 1, bias=bias)
    ours = PointwiseConv2d.of(copy.deepcopy(plain)).to(memory_format=torch.channels_last)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    dy = torch.randn(shape[0], 4, *shape[2:])
    found = []
    convolutions = []
    monkeypatch.setattr(
        nn.Conv2d, "_conv_forward", lambda *a, f=nn.Conv2d._conv_forward: convolutions.append(1) or f(*a)
    )
    for conv, dtype in ((ours, torch.float32), (plain.double(), torch.float64)):
        inputs = x.detach().to(dtype).requires_grad_()
        y = conv(inputs)
        y.backward(dy.to(dtype))
        found.append([y, inputs.grad, *(p.grad for p in conv.parameters())])
    assert len(convolutions) == 1  # the plain one's
    assert found[0][0].is_contiguous(memory_format=torch.channels_last)
    assert ours.weight.grad.stride() == ours.weight.stride()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, padding=1), nn.Conv2d(4, 4, 1, groups=2)],
)
def test_other_convolutions_stay(conv):
    product = nn.Conv2d(4, 4, 1)
    network = multiply_pointwise(nn.Sequential(conv, product))
    assert network[0] is conv
    assert type(network[1]) is PointwiseConv2d
    assert network[1].weight is product.weight


def test_other_layouts_are_convolved_as_before():
    conv = nn.Conv2d(4, 6, 1)
    x = torch.randn(2, 4, 5, 3)
    expected, single = conv(x), conv(x[0])
    product = PointwiseConv2d.of(conv)
    assert torch.equal(product(x), expected)
    assert torch.equal(product(x[0]), single)
