"""End to end on real photographs: propose, pretrain, stop, resume, export, load."""

import dataclasses
import json
import multiprocessing

import pytest
import torch

import socodet
from socodet.cli import main
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.models.soco import build_soco
from socodet.pretraining.recipes import Recipe, recipe
from socodet.pretraining.trainer import Trainer
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")
NARROW = ["--backbone", "timm/test_resnet", "--fpn-channels", "16", "--head-channels", "16", "--device", "cpu"]
"""Flags for commands that run in processes of their own."""


def short() -> Recipe:
    """The tiny recipe with 7 steps of 4 images."""
    tiny = recipe("tiny")
    training = dataclasses.replace(tiny.training, batch_size=4, epochs=2.4, warmup_epochs=0.5)
    return dataclasses.replace(tiny, training=training)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "proposals.parquet"
    socodet.propose(photographs(), path, show_progress=False)
    return path


def weights(run) -> dict[str, torch.Tensor]:
    state = RunFolder(run).load_checkpoint()
    assert state is not None
    return state["model"]


def logged(run) -> list[dict]:
    """The log without timings."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clocked = ("images_per_second", "data_wait", "worker_cores_needed")
    return [{k: v for k, v in line.items() if k not in clocked} for line in lines]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(table, tmp_path):
    def pretrain(name, max_steps, workers):
        return socodet.pretrain(
            photographs(),
            short(),
            tmp_path / name,
            proposals=table,
            execution=ExecutionSettings(device="cpu", workers=workers, max_steps=max_steps, log_every=1),
            show_progress=False,
        )

    whole = pretrain("whole", None, 1)
    assert whole.finished
    assert whole.total_steps == 7
    assert pretrain("parts", 2, 2).stopped_by == "max_steps"
    assert pretrain("parts", 3, 0).steps == 5
    assert pretrain("parts", None, 1).finished

    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")
    assert [line["step"] for line in logged(tmp_path / "parts")] == list(range(1, 8))
    with pytest.raises(InputError, match="holds a finished run"):
        pretrain("parts", None, 0)

    socodet.pretrain(
        *(photographs(), short(), tmp_path / "online"),
        proposals="online",
        execution=ExecutionSettings(device="cpu", workers=1, log_every=1),
        show_progress=False,
    )
    online = weights(tmp_path / "online")
    assert all(torch.equal(value, online[name]) for name, value in one.items())
    assert not RunFolder(tmp_path / "online").proposals.exists()

    file = socodet.export(tmp_path / "parts", tmp_path / "weights.safetensors").weights
    detector = socodet.build_detector(tmp_path / "whole", num_classes=3, show_report=False)
    report = socodet.load_pretrained(detector, file, show_report=False)
    assert len(report.loaded) > 100
    assert all(name.startswith(("rpn.", "roi_heads.box_predictor", "roi_heads.mask")) for name in report.fresh)
    with torch.no_grad():
        (prediction,) = detector.eval()([torch.rand(3, 120, 160)])
    assert set(prediction) == {"boxes", "labels", "scores", "masks"}


def test_training_changes_every_module(table, tmp_path):
    socodet.pretrain(photographs(), short(), tmp_path / "run", proposals=table, show_progress=False)
    trained, fresh = weights(tmp_path / "run"), build_soco(short().model, 0).state_dict()
    moved = [name for name, value in trained.items() if not torch.equal(value, fresh[name])]
    for prefix in (
        "online.encoder.backbone.body.",
        "online.encoder.backbone.fpn.",
        "online.encoder.box_head.",
    ):
        names = [name for name in trained if name.startswith(prefix) and name.endswith("weight")]
        assert set(names) <= set(moved), prefix
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert any(name.startswith("target.") and not name.endswith(statistics) for name in moved)
    losses = [line["loss"] for line in logged(tmp_path / "run")]
    assert losses[-1] < losses[0]
    assert len(set(losses)) == len(losses)


def arguments(table, tmp_path):
    """Arguments of a run in which an error will be injected."""
    flags = ["--recipe", "tiny", "--proposals", str(table), "--batch-size", "4", "--workers", "1", *NARROW]
    return ["pretrain", str(photographs()), "--output", str(tmp_path / "run"), *flags]


def test_too_little_memory_says_what_helps_and_leaves_no_worker(table, tmp_path, monkeypatch, capsys):
    def fail(_self, _batch):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Trainer, "step", fail)
    with pytest.raises(SystemExit) as end:
        main(arguments(table, tmp_path))
    assert end.value.code
    assert "lower --batch-size" in f"{end.value.code} {capsys.readouterr().err}"
    assert not multiprocessing.active_children()
