import pytest
import torch
from timm.optim import Lars
from torch import nn

from socodet.pretraining.lars import LARS, parameter_groups


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


@pytest.mark.parametrize("decay", [0.0, 1e-5, 0.1])
def test_ten_steps_equal_timms_lars(decay):
    ours, theirs = small_network().double(), small_network().double()
    optimizer = LARS(parameter_groups(ours, decay), momentum=0.9, trust_coefficient=0.001)
    groups = parameter_groups(theirs, decay)
    # timm adapts groups that decay, or all with always_adapt, hence one optimiser for each of the two groups
    reference = [
        Lars(
            groups[0]["params"],
            lr=1.0,
            momentum=0.9,
            weight_decay=decay,
            trust_coeff=0.001,
            eps=0,
            always_adapt=True,
        ),
        Lars(groups[1]["params"], lr=1.0, momentum=0.9, weight_decay=0.0),
    ]
    torch.manual_seed(1)
    for step in range(10):
        x, lr = torch.randn(4, 3, 8, 8, dtype=torch.float64), 0.5 / (step + 1)
        for network, optimizers in ((ours, [optimizer]), (theirs, reference)):
            network.zero_grad()
            network(x).square().mean().backward()
            for o in optimizers:
                for group in o.param_groups:
                    group["lr"] = lr
                o.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_one_step_by_hand():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))  # norm 5
    weight.grad = torch.tensor([[0.0, 2.0]], dtype=torch.float64)  # norm 2
    LARS([weight], lr=0.5, momentum=0.9, weight_decay=0.1, trust_coefficient=0.01).step()
    ratio = 0.01 * 5 / (2 + 0.1 * 5)
    expected = torch.tensor([[3 - 0.5 * ratio * (0 + 0.3), 4 - 0.5 * ratio * (2 + 0.4)]], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize(
    ("weight", "gradient", "decay", "expected"),
    [
        ((0.0, 0.0), (0.0, 2.0), 0.1, (0.0, -1.0)),  # otherwise it could never leave zero
        ((3.0, 4.0), (0.0, 0.0), 0.1, (2.85, 3.8)),
        ((3.0, 4.0), (0.0, 0.0), 0.0, (3.0, 4.0)),
    ],
)
def test_ratio_is_1_where_weight_or_gradient_is_zero(weight, gradient, decay, expected):
    parameter = nn.Parameter(torch.tensor([weight]))
    parameter.grad = torch.tensor([gradient])
    LARS([parameter], lr=0.5, weight_decay=decay, trust_coefficient=0.01).step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([expected]))


def test_frozen_parameters_are_in_no_group():
    network = small_network()
    network[0].requires_grad_(False)
    groups = parameter_groups(network, 0.1)
    assert [len(group["params"]) for group in groups] == [1, 3]


def test_zero_gradient_and_missing_gradient_are_the_same_step():
    with_zero, without = (nn.Parameter(torch.full((2, 3), 2.0)) for _ in range(2))
    for parameter, steps in ((with_zero, True), (without, False)):
        optimizer = LARS([parameter], lr=0.1, momentum=0.9, weight_decay=0.01)
        parameter.grad = torch.ones(2, 3)
        optimizer.step()
        parameter.grad = torch.zeros(2, 3) if steps else None
        optimizer.step()
    torch.testing.assert_close(with_zero, without, rtol=0, atol=0)
    assert not torch.equal(without, torch.full((2, 3), 2.0))


def test_part_without_norms_and_biases_may_have_its_own_lr():
    """For example a backbone with frozen norms."""
    network = nn.ModuleDict({"backbone": nn.Conv2d(3, 2, 1, bias=False), "head": nn.Linear(2, 1)})
    start = network["backbone"].weight.detach().clone()
    optimizer = LARS(parameter_groups(network, 0.0, factors={"backbone.": 0.5}), lr=1.0, trust_coefficient=0.01)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = start - 0.01 * start.norm() / 6**0.5
    torch.testing.assert_close(network["backbone"].weight.detach(), moved)


def test_biases_and_norms_have_neither_decay_nor_trust_ratio():
    weights, rest = parameter_groups(small_network(), 0.1)
    assert [p.ndim for p in weights["params"]] == [4, 2]
    assert [p.ndim for p in rest["params"]] == [1, 1, 1, 1]
    assert (weights["weight_decay"], weights["adapt"]) == (0.1, True)
    assert (rest["weight_decay"], rest["adapt"]) == (0.0, False)


def test_lars_without_adaption_is_torchs_sgd():
    ours, theirs = small_network().double(), small_network().double()
    optimizer = LARS(parameter_groups(ours, 0.1, adapt=False), lr=0.01, momentum=0.9)
    reference = torch.optim.SGD(
        [{k: group[k] for k in ("params", "weight_decay")} for group in parameter_groups(theirs, 0.1)], 0.01, 0.9
    )
    torch.manual_seed(1)
    for _ in range(5):
        x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
        for network, one in ((ours, optimizer), (theirs, reference)):
            network.zero_grad()
            network(x).square().mean().backward()
            one.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_closure_is_evaluated_with_gradients_and_its_loss_returned():
    ours, theirs = small_network().double(), small_network().double()
    optimizers = (
        LARS(parameter_groups(ours, 0.0, adapt=False), lr=0.01, momentum=0.9),
        torch.optim.SGD(theirs.parameters(), 0.01, 0.9),
    )
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(3):
        losses = []
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):

            def closure(network=network, optimizer=optimizer):
                optimizer.zero_grad()
                loss = network(x).square().mean()
                loss.backward()
                return loss

            losses.append(optimizer.step(closure))
        torch.testing.assert_close(*losses)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("lr", "rate"), [(0.5, 0.01 * 5 / 2), (0.01, 0.01)])
def test_clipped_layer_lr_is_its_trust_ratio_at_most_the_lr(lr, rate):
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))  # norm 5
    weight.grad = torch.tensor([[0.0, 2.0]], dtype=torch.float64)  # norm 2
    LARS([weight], lr=lr, momentum=0.9, trust_coefficient=0.01, clip=True).step()
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 4 - rate * 2]], dtype=torch.float64))


def test_lr_factors_of_norms_and_parts_multiply():
    network = nn.ModuleDict({"online": small_network(), "predictor": small_network()})
    groups = parameter_groups(network, 0.1, norm_factor=0.25, factors={"predictor.": 10})
    factor = {id(p): group["lr_factor"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        expected = (10 if name.startswith("predictor.") else 1) * (0.25 if parameter.ndim == 1 else 1)
        assert factor[id(parameter)] == expected
