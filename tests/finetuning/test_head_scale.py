"""A pretrained box head's output is rescaled to that of a fresh head, whatever its scale after pretraining."""

import dataclasses
import math

import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file
from torch import nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from socodet.detection.detectors.by_name import new_detector
from socodet.finetuning.finetune import finetune
from socodet.finetuning.head_scale import FRESH_RMS, match_head_scale
from socodet.finetuning.settings import FinetuneSettings
from socodet.models.architectures import build_encoder
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

WIDE = dataclasses.replace(NARROW, representation_size=128)  # wide enough for a stable RMS
BRIEF = FinetuneSettings("faster_rcnn_fpn", iterations=2, batch_size=2, size=64, precise_bn=0)
HERE = ExecutionSettings(device="cpu", workers=0, log_every=1)


def a_batch(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(3, 64, 80, generator=generator) for _ in range(2)]
    target = {"boxes": torch.tensor([[5.0, 5, 40, 50], [20, 10, 70, 60]]), "labels": torch.tensor([1, 2])}
    return images, [target] * 2


def outputs(detector: nn.Module) -> torch.Tensor:
    """The box head's output for a training batch; leaves the detector unchanged."""
    found: list[torch.Tensor] = []
    hook = detector.roi_heads.box_head.register_forward_hook(lambda _, __, output: found.append(output.clone()))
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with torch.no_grad():
        torch.manual_seed(3)
        detector.train()(*a_batch())
    hook.remove()
    detector.load_state_dict(before)
    return found[0]


@pytest.mark.parametrize("size", [1.0, 50.0, 0.01])
def test_output_gets_a_fresh_heads_scale_and_keeps_its_direction(size):
    detector = new_detector("faster_rcnn_fpn", WIDE, 3)
    layer = detector.roi_heads.box_head[2]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(size)
    before, state = outputs(detector), {name: value.clone() for name, value in detector.state_dict().items()}

    def forward(batch):
        torch.manual_seed(3)
        return detector(*batch)

    factor = match_head_scale(detector.eval(), forward, [a_batch()])
    assert not detector.training
    after = outputs(detector)
    assert after.square().mean().sqrt().item() == pytest.approx(math.sqrt(1 / 12), rel=1e-5)
    torch.testing.assert_close(after, factor * before)
    changed = {name for name, value in detector.state_dict().items() if not torch.equal(value, state[name])}
    assert changed <= {"roi_heads.box_head.2.weight", "roi_heads.box_head.2.bias"}
    if size == 1.0:  # a fresh head has it already, up to chance
        assert factor == pytest.approx(1, abs=0.25)


def test_fresh_rms_is_that_of_untrained_layers():
    torch.manual_seed(0)
    features = nn.BatchNorm1d(4000)(torch.randn(512, 4000) * 3 + 1).relu()
    h = nn.Linear(4000, 1024)(features).relu()
    assert h.square().mean().sqrt().item() == pytest.approx(FRESH_RMS, rel=0.02)


def test_batches_without_boxes_do_not_count_and_a_head_that_ends_in_a_norm_is_left_alone():
    detector, forward = nn.Module(), lambda x: detector.roi_heads.box_head(x)
    detector.roi_heads = nn.Module()
    detector.roi_heads.box_head = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    some = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    before = forward(some).square().mean().sqrt().item()
    factor = match_head_scale(detector, forward, [torch.empty(0, 4), some])
    assert factor == pytest.approx(math.sqrt(1 / 12) / before)
    assert match_head_scale(detector, forward, [torch.empty(0, 4)]) is None
    detector.roi_heads.box_head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert match_head_scale(detector, forward, [some]) is None


def test_torchvisions_head_is_rescaled_too():
    detector = new_detector("faster_rcnn_fpn", WIDE, 3)
    detector.roi_heads.box_head = TwoMLPHead(16 * 49, 128)
    layer = detector.roi_heads.box_head.fc7
    with torch.no_grad():
        layer.weight.mul_(30)
    assert match_head_scale(detector, lambda batch: detector(*batch), [a_batch()]) < 1


@pytest.mark.parametrize("name", ["faster_rcnn_c4", "retinanet_fpn"])
def test_detectors_without_such_a_head_are_unchanged(name):
    detector = new_detector(name, WIDE, 3)
    before = {key: value.clone() for key, value in detector.state_dict().items()}

    def forward(batch):
        raise AssertionError("nothing is to be measured")

    assert match_head_scale(detector, forward, [a_batch()]) is None
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


def pretrained(folder, factor: float):
    """A pretraining run whose box head's output is scaled by `factor`."""
    torch.manual_seed(1)
    run = RunFolder(folder)
    folder.mkdir()
    run.write_description({"recipe": to_json(Recipe("custom", model=WIDE))})
    state = SoCo(build_encoder(WIDE), WIDE).state_dict()
    for name in ("weight", "bias"):
        state[f"online.encoder.box_head.2.{name}"] *= factor
    run.save_checkpoint(1, {"step": 1, "model": state})
    return folder


def losses(run) -> list[float]:
    return [line["loss"] for line in RunFolder(run).log_lines() if "loss" in line]


def test_fine_tuning_does_not_depend_on_the_scale_unless_it_is_kept(tmp_path, capsys):
    data = coco_file(tmp_path / "set.json")
    inits = {factor: pretrained(tmp_path / f"times-{factor}", factor) for factor in (1, 100)}
    for factor, init in inits.items():
        finetune(data, tmp_path / f"matched-{factor}", BRIEF, init=init, execution=HERE)
        assert "box head: output multiplied by" in capsys.readouterr().err
    assert losses(tmp_path / "matched-100") == pytest.approx(losses(tmp_path / "matched-1"), rel=1e-4)
    for factor, init in inits.items():
        kept = dataclasses.replace(BRIEF, keep_head_scale=True)
        finetune(data, tmp_path / f"kept-{factor}", kept, init=init, execution=HERE)
        assert "box head: output multiplied by" not in capsys.readouterr().err
    assert losses(tmp_path / "kept-100")[0] > 1.2 * losses(tmp_path / "kept-1")[0]


def test_fresh_head_is_left_alone(tmp_path, capsys):
    data = coco_file(tmp_path / "set.json")
    finetune(data, tmp_path / "run", BRIEF, init="scratch", model=WIDE, execution=HERE)
    assert "box head" not in capsys.readouterr().err
