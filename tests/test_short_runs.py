"""After which pretraining runs commands advise to load the backbone alone."""

from dataclasses import replace

import pytest

from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes import Recipe
from socodet.pretraining.settings import TrainingSettings
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import FINETUNED, RunFolder
from socodet.weights.pretrained_run import is_short_run, only_its_backbone

SHORT = Recipe("custom", training=TrainingSettings(epochs=100, batch_size=50))  # 2 steps per epoch


def a_run(folder, recipe, **more):
    RunFolder(folder).write_description({"recipe": to_json(recipe), "images": {"count": 100}, **more})
    return folder


@pytest.mark.parametrize(
    ("change", "short"),
    [
        ({}, True),
        ({"training": replace(SHORT.training, epochs=9_999)}, True),
        ({"training": replace(SHORT.training, epochs=10_000)}, False),
        ({"training": replace(SHORT.training, backbone_lr=0.0)}, False),
        ({"model": ModelSettings("c4")}, False),
        ({"model": ModelSettings("image")}, False),
        ({"model": ModelSettings("fpn_no_head")}, True),
    ],
)
def test_a_run_of_fewer_than_20000_steps_with_a_pyramid_is_short(tmp_path, change, short):
    assert is_short_run(a_run(tmp_path, replace(SHORT, **change))) is short
    assert not only_its_backbone(tmp_path)
    assert only_its_backbone(a_run(tmp_path, replace(SHORT, **change, name="auto"))) is short


def test_a_run_that_started_from_other_weights_is_not_short(tmp_path):
    start = {"from": "/runs/earlier", "file": "step-00100000.pt", "sha256": "0" * 64}
    run = a_run(tmp_path, replace(SHORT, name="auto"), start=start)
    assert not is_short_run(run)
    assert not only_its_backbone(run)
    assert only_its_backbone(a_run(tmp_path, replace(SHORT, name="auto"), start=None))


def test_other_initial_weights_are_not_short_runs(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    for source in ("scratch", tmp_path / "weights.pth", tmp_path / "missing", tmp_path):
        assert not is_short_run(source)
    assert not only_its_backbone(tmp_path / "missing")
    RunFolder(tmp_path / "detector").write_description({"recipe": {"name": FINETUNED}})
    assert not is_short_run(tmp_path / "detector")
