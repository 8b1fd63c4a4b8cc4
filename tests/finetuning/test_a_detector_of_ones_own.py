"""What a user's Detector class can define: network, training samples, optimizer, schedule, averaged weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from photograph_sets import coco_file
from torch import nn

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.detectors.detector import Detector
from socodet.detection.detectors.transform import scale_image
from socodet.detection.inference import detect
from socodet.errors import InputError
from socodet.finetuning.loop import FinetuneLoop
from socodet.finetuning.settings import EvaluationSettings
from socodet.finetuning.trainer import FineTuner, scored_weights
from socodet.training.loop import resume_from_checkpoint
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

SIDE, DECAY, STEPS = 16, 0.9, 3


class OneBox(nn.Module):
    """Predicts the same single box for every image, and learns it from the mean of the targets."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.box = nn.Parameter(torch.tensor([0.0, 0.0, 1.0, 1.0]))

    def forward(self, images, targets=None):
        if self.training:
            self.norm(torch.stack(images))  # all have the same size
            mean = torch.cat([target["boxes"] for target in targets]).mean(0) / SIDE
            return {"loss_box": (self.box - mean).square().sum()}
        return [
            {"boxes": self.box[None] * image.shape[-1], "scores": torch.ones(1), "labels": torch.ones(1).long()}
            for image in images
        ]


class OneBoxDetector(Detector):
    name = "one_box"

    def build(self, model, num_classes, inference):
        return OneBox()

    def schedule(self, name):
        return replace(super().schedule(name), lr=0.1, short_sides=(SIDE,), precise_bn=1, ema_decay=DECAY)

    def optimizer(self, network, settings):
        return torch.optim.AdamW([{"params": network.parameters(), "lr_factor": 0.5}], lr=settings.lr, weight_decay=0.1)

    def training_sample(self, pixels_hw3, target_at, settings, generator):
        image = torch.from_numpy(pixels_hw3).permute(2, 0, 1)
        size = (settings.short_sides[0],) * 2  # whatever the aspect ratio
        return scale_image(image, size).contiguous(), target_at(size)


def make_loop(run, data):
    detector = OneBoxDetector()
    schedule = replace(detector.schedule("coco_1x"), iterations=STEPS, batch_size=2, warmup_iterations=0)
    execution = ExecutionSettings("cpu", workers=0)
    tuner = FineTuner(detector.build(None, 2, None), detector, schedule, execution)
    return FinetuneLoop(tuner, data, data, run, EvaluationSettings(), execution, show_progress=False)


class NoLosses(OneBox):
    def forward(self, images, targets=None):
        return self.box.sum() if self.training else [self.box]


class OneTooFew(OneBox):
    def forward(self, images, targets=None):
        return super().forward(images[1:])


def test_network_with_wrong_outputs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(OneBoxDetector, "build", lambda *_: NoLosses())
    data = open_detection_set(coco_file(tmp_path / "set.json", masks=False)).with_objects()
    with pytest.raises(InputError, match=r"detector one_box: .*dict of losses, not a Tensor"):
        make_loop(RunFolder(tmp_path / "run"), data).train()
    with pytest.raises(InputError, match=r"NoLosses: .*boxes, scores and labels"):
        detect(NoLosses(), data)
    with pytest.raises(InputError, match=r"OneTooFew: .*one dict per image"):
        detect(OneTooFew(), data)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda network: torch.optim.AdamW(network.parameters(), lr=0.1), "lr_factor"),
        (lambda network: None, "NoneType"),
    ],
)
def test_optimizer_whose_rate_cannot_be_set_is_refused(tmp_path, monkeypatch, made, message):
    monkeypatch.setattr(OneBoxDetector, "optimizer", lambda self, network, settings: made(network))
    data = open_detection_set(coco_file(tmp_path / "set.json", masks=False)).with_objects()
    with pytest.raises(InputError, match=f"^detector one_box: .*{message}"):
        make_loop(RunFolder(tmp_path / "run"), data)


def test_state_that_no_checkpoint_can_hold_is_named_before_training(tmp_path, monkeypatch):
    """With rates computed by NumPy, checkpoints could be written but never read."""

    def optimizer(self, network, settings):
        return torch.optim.AdamW([{"params": network.parameters(), "lr_factor": np.power(0.65, 2)}], lr=settings.lr)

    monkeypatch.setattr(OneBoxDetector, "optimizer", optimizer)
    data = open_detection_set(coco_file(tmp_path / "set.json", masks=False)).with_objects()
    run = RunFolder(tmp_path / "run")
    tuner = make_loop(run, data).tuner
    with pytest.raises(InputError, match=r"optimizer\.param_groups\.0\.lr_factor, a float64"):
        resume_from_checkpoint(run, tuner, resume=False, show_progress=False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (lambda step, box: {"loss_mask": 0.0}, "loss_mask is a float"),
        (lambda step, box: {"loss_mask": box}, r"loss_mask is a \(4,\)"),
        (lambda step, box: {"loss_mask": box[:1]} if step else {}, "loss_mask is not always there"),
        (lambda step, box: {} if step else {"loss_mask": box[0]}, "loss_mask is not always there"),
    ],
)
def test_losses_that_cannot_be_summed_or_logged_are_named(tmp_path, monkeypatch, more, message):
    forward, steps = OneBox.forward, []

    def forward_with_more(self, images, targets=None):
        losses = forward(self, images, targets)
        losses |= more(len(steps), self.box)
        steps.append(1)
        return losses

    monkeypatch.setattr(OneBox, "forward", forward_with_more)
    data = open_detection_set(coco_file(tmp_path / "set.json", masks=False)).with_objects()
    with pytest.raises(InputError, match=f"^detector one_box: .*{message}"):
        make_loop(RunFolder(tmp_path / "run"), data).train()


def test_custom_detector_is_trained_scored_and_resumed(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "set.json", masks=False)).with_objects()
    seen = []
    loop = make_loop(RunFolder(tmp_path / "run"), data)
    tuner, update = loop.tuner, loop.tuner.step

    def step(batch):
        assert all(image.shape == (3, SIDE, SIDE) for image in batch.images)
        loss = update(batch)
        assert tuner.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * (0.1 if tuner.finished == STEPS else 1))
        seen.append(tuner.network.box.detach().clone())
        return loss

    tuner.step = step
    assert loop.train() is None
    average = seen[0]
    for box in seen[1:]:
        average = DECAY * average + (1 - DECAY) * box
    torch.testing.assert_close(tuner.scored.box.detach(), average)
    assert not torch.equal(
        tuner.scored.norm.running_mean, tuner.network.norm.running_mean
    )  # precise batch norm of the scored weights
    assert loop.newest.scores["box_AP"] is not None

    state = RunFolder(tmp_path / "run").load_checkpoint()
    assert torch.equal(scored_weights(state)["box"], tuner.scored.box)
    assert torch.equal(state["detector"]["box"], seen[-1])
    again = make_loop(RunFolder(tmp_path / "again"), data).tuner
    again.load_state_dict(state)
    assert torch.equal(again.scored.box, tuner.scored.box)
