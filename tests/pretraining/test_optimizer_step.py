"""Skipped steps leave no trace; float16's loss scale is kept."""

import copy
import math

import pytest
import torch
from test_trainer import SMALL, a_batch
from torch import nn

import socodet.models.soco as soco_module
from socodet.errors import SettingError
from socodet.models.architectures import build_encoder
from socodet.models.normalization import normalize
from socodet.models.soco import SoCo
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import Trainer
from socodet.runtime.world import World
from socodet.training.learner import DivergedError, OptimizerStep
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")


def trainer(**execution) -> Trainer:
    torch.manual_seed(0)
    settings = TrainingSettings(epochs=40, warmup_epochs=1, batch_size=4, base_lr=64, target_momentum=0.9)
    soco = SoCo(build_encoder(SMALL), SMALL)
    return Trainer(soco, settings, 10, ExecutionSettings(device="cpu", **execution))


def state_of(learner: Trainer) -> list[torch.Tensor]:
    state = copy.deepcopy(learner.state_dict())
    momenta = [entry["momentum"] for entry in state["optimizer"]["state"].values()]
    return [*state["model"].values(), *momenta]


@pytest.fixture
def bad_pixels(monkeypatch):
    """A switch. While it is on, the networks' input is NaN, and so are batch statistics, loss and gradients."""
    switch = {"on": False}

    def spoilt(pixels):
        return normalize(pixels) * (math.nan if switch["on"] else 1.0)

    monkeypatch.setattr(soco_module, "normalize", spoilt)
    return switch


def test_skipped_step_changes_nothing_but_a_count(bad_pixels):
    learner = trainer(on_nan="skip")
    learner.step(a_batch(0))
    before = state_of(learner)
    bad_pixels["on"] = True
    loss, _ = learner.step(a_batch(1))
    assert not math.isfinite(float(loss))
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(learner), strict=True))
    assert learner.check_finite() is None
    line = learner.metrics(1.0, 0.0)
    assert (learner.finished, line["skipped"]) == (2, 1)
    assert math.isfinite(line["loss"])
    learner.step(a_batch(2))
    line = learner.metrics(1.0, 0.0)
    assert line["skipped"] == 1
    assert "loss" not in line  # no step since the last line has one
    bad_pixels["on"] = False
    learner.step(a_batch(3))
    assert not all(torch.equal(a, b) for a, b in zip(before, state_of(learner), strict=True))


class Centred(nn.Module):
    """A network with a running mean of its input in a buffer that is replaced by a new tensor each time."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("centre", torch.zeros(1))

    def forward(self, x):
        self.centre = 0.5 * self.centre + 0.5 * x.mean()
        return ((x - self.centre) * self.weight).sum()


def test_skipped_step_restores_a_replaced_buffer():
    network = Centred()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    update = OptimizerStep(network, optimizer, World(), scaled=False, skip=True, max_skipped=3)
    for x, centre in ((4.0, 2.0), (math.nan, 2.0), (6.0, 4.0)):
        update.begin()
        loss = network(torch.tensor([x]))
        update.backward(loss)
        assert update.finish(loss.detach()) == math.isfinite(x)
        assert float(network.centre) == centre


def test_step_whose_loss_alone_is_not_finite_is_skipped():
    network = nn.Linear(2, 1)
    update = OptimizerStep(
        network, torch.optim.SGD(network.parameters(), 0.1), World(), scaled=False, skip=True, max_skipped=3
    )
    for loss, learned in ((math.inf, False), (1.0, True)):
        update.begin()
        update.backward(network(torch.ones(1, 2)).sum())
        assert update.finish(torch.tensor(loss)) == learned


def test_skipping_gives_up_after_too_many_in_a_row():
    network = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    update = OptimizerStep(network, optimizer, World(), scaled=False, skip=True, max_skipped=3)

    def step(x: float) -> bool:
        update.begin()
        loss = network(torch.tensor([[x, 1.0]])).sum()
        update.backward(loss)
        return update.finish(loss.detach())

    assert [step(math.nan) for _ in range(3)] == [False] * 3
    assert step(1.0)  # the count starts over
    assert [step(math.inf) for _ in range(3)] == [False] * 3
    with pytest.raises(DivergedError, match="4 steps in a row"):
        step(math.nan)


def test_max_skipped_limits_skipped_steps(bad_pixels):
    learner = trainer(on_nan="skip", max_skipped=1)
    bad_pixels["on"] = True
    learner.step(a_batch(0))
    with pytest.raises(DivergedError, match="2 steps in a row"):
        learner.step(a_batch(1))
    with pytest.raises(SettingError, match="max_skipped must be at least 1, not 0"):
        trainer(max_skipped=0)


def test_without_skipping_a_non_finite_step_is_found_at_the_next_check(bad_pixels):
    learner = trainer()
    learner.step(a_batch(0))
    assert learner.check_finite() is None
    bad_pixels["on"] = True
    learner.step(a_batch(1))
    bad_pixels["on"] = False
    learner.step(a_batch(2))
    assert "loss nan at learning rate" in learner.check_finite()


def set_scale(learner: Trainer, scale: float) -> None:
    state = learner.state_dict()
    state["scaler"]["scale"] = scale
    learner.load_state_dict(state)


def test_float16_step_matches_float32():
    half, full = trainer(precision="float16"), trainer()
    set_scale(half, 1024.0)
    start = torch.cat([p.detach().flatten() for p in full.soco.online.parameters()])
    losses = [float(learner.step(a_batch())[0]) for learner in (half, full)]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert losses[0] != losses[1]  # the precision did differ
    moved = [
        torch.cat([p.detach().flatten() for p in learner.soco.online.parameters()]) - start for learner in (half, full)
    ]
    assert torch.cosine_similarity(moved[0], moved[1], dim=0) > 0.9
    # gradients are unscaled: otherwise biases and norms, which LARS does not adapt, would make this hundreds
    assert moved[0].norm() / moved[1].norm() == pytest.approx(1, abs=0.2)
    line = half.metrics(1.0, 0.0)
    assert (line["skipped"], line["loss_scale"]) == (0, 1024.0)


def test_overflowing_float16_step_is_skipped_and_halves_the_scale():
    learner = trainer(precision="float16")
    set_scale(learner, 2.0**60)
    before = state_of(learner)
    learner.step(a_batch())
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(learner), strict=True))
    assert learner.check_finite() is None  # not a divergence
    line = learner.metrics(1.0, 0.0)
    assert (line["skipped"], line["loss_scale"]) == (1, 2.0**59)
    assert math.isfinite(line["loss"])  # only the gradients overflowed
    resumed = trainer(precision="float16")
    resumed.load_state_dict(learner.state_dict())
    assert resumed.state_dict()["scaler"]["scale"] == 2.0**59
    other = trainer()  # a run may continue in another precision
    other.load_state_dict(learner.state_dict())
    assert other.finished == 1


def test_compiling_the_trainer_changes_neither_names_nor_weights():
    torch.manual_seed(0)
    settings = TrainingSettings(epochs=40, warmup_epochs=1, batch_size=4, base_lr=64, target_momentum=0.9)
    execution = ExecutionSettings(device="cpu", compile=True)
    compiled = Trainer(SoCo(build_encoder(SMALL), SMALL), settings, 10, execution, compiler="eager")
    plain = trainer()
    torch._dynamo.reset()
    for seed in range(2):
        compiled.step(a_batch(seed))
        plain.step(a_batch(seed))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    ours, theirs = compiled.soco.state_dict(), plain.soco.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, msg=name)


def test_any_number_of_shapes_is_compiled_in_one_process(monkeypatch):
    """For example in a study; torch stops compiling at the ninth shape, counted over all networks of the process."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    torch._dynamo.reset()
    ran = []

    def backend(graph, _inputs):
        return lambda *inputs: ran.append(inputs) or graph.forward(*inputs)

    trainer(compile=True)
    for side in range(1, 13):
        network = nn.Conv2d(3, 4, 1)
        network.compile(backend=backend, dynamic=False)
        network(torch.zeros(1, 3, side, side))
    assert len(ran) == 12
