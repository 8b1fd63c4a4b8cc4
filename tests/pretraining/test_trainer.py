import dataclasses
import math
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.models.architectures import build_encoder
from socodet.models.objective import Objective, build_objective
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.models.soco import SoCo
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import Trainer
from socodet.runtime import extensions
from socodet.runtime.world import World
from socodet.training.checkpoint_file import copy_to_cpu
from socodet.training.devices import choose_device
from socodet.training.signals import stop_requests
from socodet.views.batch import Batch, ViewBatch, group_by_level
from socodet.weights.load import load_pretrained

pytestmark = pytest.mark.usefixtures("narrow_networks")

SMALL = ModelSettings("fpn", "resnet18", 8, 1, 8, 8, 7, 16, 8)


def trainer(images: int = 10, **changes) -> Trainer:
    settings = TrainingSettings(epochs=4, warmup_epochs=1, batch_size=4, base_lr=64, target_momentum=0.9)
    torch.manual_seed(0)
    return Trainer(SoCo(build_encoder(SMALL), SMALL), dataclasses.replace(settings, **changes), images)


def a_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = []
    for size in (48, 48, 32):
        pixels = torch.randint(0, 256, (4, 3, size, size), generator=generator, dtype=torch.uint8)
        boxes = torch.tensor([[2.0, 3, size - 4, size - 2], [0, 0, size / 2, size / 2]]).repeat(4, 1, 1)
        levels = torch.tensor([[1, 0]] * 4)
        views.append(ViewBatch(pixels, group_by_level(boxes, levels), boxes, levels))
    return Batch(tuple(views), torch.zeros(4, 3, 4), torch.arange(4))


def test_step_is_forward_backward_lars_and_target_update():
    ours, by_hand = trainer(), trainer()
    assert ours.total == 10
    loss, embeddings = ours.step(a_batch())
    # by hand: one parameter's gradient, LARS without momentum so far, then the moving average
    name = "projector.3.weight"
    weight = dict(by_hand.soco.online.named_parameters())[name]
    start = weight.detach().clone()
    output = by_hand.soco(a_batch().views)
    output.loss.backward()
    lr = 64 * 4 / 256 * (1 / 2)  # linear scaling and the first of two warm-up steps
    decay = 1e-5
    ratio = 0.001 * start.norm() / (weight.grad.norm() + decay * start.norm())
    moved = start - lr * ratio * (weight.grad + decay * start)
    torch.testing.assert_close(loss, output.loss.detach())
    torch.testing.assert_close(dict(ours.soco.online.named_parameters())[name].detach(), moved)
    expected = 0.9 * start + 0.1 * moved
    torch.testing.assert_close(dict(ours.soco.target.named_parameters())[name], expected, rtol=1e-6, atol=1e-7)
    assert embeddings.shape == (8, 8)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(8))


def test_random_numbers_of_a_network_depend_only_on_seed_and_step():
    """Some backbones use drop path; a resumed run must drop the same paths."""

    def losses(seed, step=0):
        one = trainer(seed=seed)
        one.soco.online.projector.append(torch.nn.Dropout(0.5))
        one.finished = step
        first = one.step(a_batch())[0]
        torch.rand(3)
        before = torch.random.get_rng_state()
        loss = one.step(a_batch(1))[0]
        assert torch.equal(torch.random.get_rng_state(), before)
        return float(first), float(loss)

    assert losses(2**63 - 1) == losses(2**63 - 1)
    assert losses(2**63 - 1)[1] != losses(0)[1]
    assert losses(0)[0] != losses(0, step=1)[0]


def test_random_numbers_differ_between_processes_and_steps():
    def draw(rank, step):
        learner = trainer()
        learner.world = World(rank, 2)
        with learner._seeded(5, step):
            return float(torch.rand(()))

    assert len({draw(rank, step) for rank in (0, 1) for step in (0, 1, 2)}) == 6


def test_nan_in_the_loss_or_a_weight_alone_is_found():
    for what in ("loss", "weight"):
        ours = trainer()
        for seed in range(3):
            ours.step(a_batch(seed))
        assert ours.check_finite() is None
        if what == "loss":
            ours._window.losses.append(torch.tensor(math.inf))
        else:
            with torch.no_grad():
                ours.soco.predictor[0].bias[0] = math.nan
        assert ours.check_finite().endswith("at learning rate 1")  # of the third step, the first after warm-up


def test_optimizer_and_log_line_follow_the_settings():
    ours = trainer(optimizer="sgd", momentum=0.5, weight_decay=0.02, trust_coefficient=0.03, trust_clip=True)
    given = {"momentum": 0.5, "trust_coefficient": 0.03, "clip": True, "adapt": False}
    groups = [group for group in ours.optimizer.param_groups if group["params"]]
    assert [{name: group[name] for name in given} for group in groups] == [given] * 2
    assert [group["weight_decay"] for group in groups] == [0.02, 0.0]
    adapted = trainer().optimizer.param_groups
    assert [group["adapt"] for group in adapted if group["params"]] == [True, False]
    for seed in range(3):
        ours.step(dataclasses.replace(a_batch(seed), cpu_seconds=0.5))
    line = ours.metrics(4.0, 1.0)
    # the third of ten steps is the first after two of warm-up
    assert line["lr"] == 1.0
    assert line["momentum"] == pytest.approx(1 - 0.1 * (math.cos(math.pi * 2 / 10) + 1) / 2)
    assert line["worker_cores_needed"] == pytest.approx(1.3 * 3 * 0.5 / (4 - 1))
    assert line["level_share"] == [0.5, 0.5, 0, 0]
    assert "skipped" not in line


@pytest.mark.parametrize(("variance", "advised"), [(0.0, True), (4 / 3, False)])
def test_collapsing_run_with_a_variance_term_is_not_advised_to_set_one(variance, advised, capsys):
    objective = build_objective(ObjectiveSettings(variance_weight=variance, covariance_weight=0.1))
    soco = SoCo(build_encoder(SMALL), SMALL, objective)
    with torch.no_grad():
        soco.target.projector[3].weight.zero_()  # every embedding equals the bias
    collapsed = Trainer(soco, TrainingSettings(epochs=4, warmup_epochs=1, batch_size=4), 10)
    collapsed.step(a_batch())
    assert collapsed.metrics(1.0, 0.0)["collapsed"]
    printed = capsys.readouterr().err
    assert "--base-lr" in printed
    assert ("--variance-weight" in printed) == advised


def test_loaded_state_resumes_bit_for_bit():
    whole, first = trainer(), trainer()
    for seed in range(4):
        whole.step(a_batch(seed))
        if seed < 2:
            first.step(a_batch(seed))
    second = trainer(target_momentum=0.9)
    first.pending = True  # the work that follows the step
    second.load_state_dict(first.state_dict())
    assert (second.finished, second.pending) == (2, True)
    second.load_state_dict({name: value for name, value in first.state_dict().items() if name != "pending"})
    assert (second.finished, second.pending) == (2, False)
    for seed in (2, 3):
        second.step(a_batch(seed))
    for a, b in zip(whole.soco.state_dict().values(), second.soco.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_state_of_another_length_or_version_is_refused():
    with pytest.raises(InputError, match="10 steps, this one has 12"):
        trainer(images=12).load_state_dict(trainer(images=10).state_dict())
    state = trainer().state_dict()
    for other in ({**state, "more": 1}, {name: value for name, value in state.items() if name != "scaler"}):
        with pytest.raises(InputError, match="another version"):
            trainer().load_state_dict(other)


def test_cuda_without_a_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", World()) == torch.device("cpu")
    with pytest.raises(InputError, match="no CUDA device"):
        choose_device("cuda", World())


def test_signals_are_recorded_and_handlers_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_requests() as requests:
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests == ["SIGTERM"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_cudnn_benchmark_is_on_only_within_a_step():
    ours, seen = trainer(), []
    ours.soco.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    assert not torch.backends.cudnn.benchmark
    ours.step(a_batch())
    assert seen == [True]
    assert not torch.backends.cudnn.benchmark


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_step_never_waits_for_the_device():
    torch.manual_seed(0)
    settings = TrainingSettings(epochs=4, warmup_epochs=1, batch_size=4)
    on_gpu = Trainer(SoCo(build_encoder(SMALL), SMALL), settings, 10)
    batch = a_batch().pin_memory().to("cuda")
    on_gpu.step(batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss, _ = on_gpu.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(float(loss))


def test_norms_biases_and_predictor_have_their_own_lr():
    ours = trainer(norm_lr=0.0, predictor_lr=10.0)
    plain = trainer()
    start = {name: p.detach().clone() for name, p in plain.soco.named_parameters()}
    for one in (ours, plain):
        one.step(a_batch())
    moved = {
        name: p.detach() - start[name] for name, p in ours.soco.named_parameters() if not name.startswith("target")
    }
    usual = {name: p.detach() - start[name] for name, p in plain.soco.named_parameters()}
    for name, step in moved.items():
        factor = (10 if name.startswith("predictor.") else 1) * (0 if step.ndim == 1 else 1)
        torch.testing.assert_close(step, factor * usual[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_backbone_has_its_own_lr(architecture):
    model = dataclasses.replace(SMALL, architecture=architecture)
    moved, trainers = {}, {}
    for factor in (1.0, 0.5, 0.0):
        settings = TrainingSettings(epochs=4, warmup_epochs=1, batch_size=4, backbone_lr=factor)
        torch.manual_seed(0)
        one = trainers[factor] = Trainer(SoCo(build_encoder(model), model), settings, 10)
        start = {name: p.detach().clone() for name, p in one.soco.named_parameters()}
        one.step(a_batch())
        parameters = one.soco.online.named_parameters(prefix="online")
        moved[factor] = {name: p.detach() - start[name] for name, p in parameters}
    # In C4 the backbone's last stage is the head.
    backbone = ("online.encoder.backbone.body.", "online.encoder.box_head.")[: 2 if architecture == "c4" else 1]
    for part in (*backbone, "online.projector."):
        assert any(name.startswith(part) and step.abs().max() > 0 for name, step in moved[1.0].items())
    frozen = trainers[0.0].soco.online
    assert {name for name, p in frozen.named_parameters("online") if not p.requires_grad} == {
        name for name in moved[0.0] if name.startswith(backbone)
    }
    for factor in (0.5, 0.0):
        for name, step in moved[factor].items():
            expected = factor if name.startswith(backbone) else 1
            torch.testing.assert_close(step, expected * moved[1.0][name], rtol=1e-4, atol=1e-7)


class Centred(Objective, nn.Module):
    """A loss with a running mean of the targets."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(SMALL.embedding_size))

    def __call__(self, embeddings):
        self.centre.lerp_(embeddings.targets[0].mean(0), 0.5)
        return -((embeddings.predictions[0] - self.centre) * embeddings.targets[0]).sum(1).mean()

    def lowest(self, views):
        return -1.0


@pytest.mark.parametrize("variance", [0.0, 1.0])
def test_buffers_of_an_objective_are_resumed(variance, monkeypatch):
    """Also inside the variance and covariance terms, which the recipe auto may add."""
    monkeypatch.setattr(extensions, "_REGISTERED", {})
    asked = ObjectiveSettings(loss=extensions.register(Centred), variance_weight=variance)

    def new_trainer():
        torch.manual_seed(0)
        settings = TrainingSettings(epochs=4, warmup_epochs=1, batch_size=4, base_lr=64, target_momentum=0.9)
        return Trainer(SoCo(build_encoder(SMALL), SMALL, build_objective(asked)), settings, 10)

    whole, stopped, resumed = new_trainer(), new_trainer(), new_trainer()
    for learner in (whole, stopped):
        learner.step(a_batch(0))
    resumed.load_state_dict(copy_to_cpu(stopped.state_dict()))
    losses = [learner.step(a_batch(1))[0] for learner in (whole, resumed)]
    assert torch.equal(*losses)
    detector = new_detector("faster_rcnn_fpn", SMALL, 3)
    assert load_pretrained(detector, resumed.soco.state_dict(), show_report=False).loaded_modules
