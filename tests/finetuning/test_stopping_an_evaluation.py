"""Ctrl-C during an evaluation of a fine-tuning run: it stops at once with a checkpoint, and resumes the evaluation."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file

import socodet.detection.inference as inference_module
from socodet.cli import main
from socodet.finetuning.finetune import finetune
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.training.precise_bn import _Moments
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

SETTINGS = FinetuneSettings("retinanet_fpn", iterations=2, batch_size=2, size=32, precise_bn=2)
ASKED = {
    "model": NARROW,
    "evaluation": EvaluationSettings(every=1),
    "execution": ExecutionSettings(device="cpu", workers=0, log_every=5),
    "show_progress": False,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return coco_file(tmp_path_factory.mktemp("data") / "set.json", ("hopper", "chelsea"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert finetune(data, run, SETTINGS, val=data, **ASKED).finished
    return RunFolder(run)


def log_of(run):
    """The log without timings."""
    lines = [dict(line) for line in run.log_lines()]
    return [
        {name: value for name, value in line.items() if name not in ("images_per_second", "data_wait")}
        for line in lines
    ]


def interrupt_at(monkeypatch, owner, name, call):
    """Raises SIGINT at a function's `call`-th call, counted from 1; returns the list of calls."""
    original, calls = getattr(owner, name), []

    def counting(*arguments):
        calls.append(name)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(owner, name, counting)
    return calls


@pytest.mark.parametrize(
    ("owner", "name", "call", "steps"),
    [(_Moments, "add", 1, 1), (inference_module, "as_detections", 1, 1), (inference_module, "as_detections", 3, 2)],
)
def test_interrupted_evaluation_stops_at_once_and_resumes_to_the_same_result(
    owner, name, call, steps, data, whole, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        calls = interrupt_at(patch, owner, name, call)
        result = finetune(data, tmp_path / "run", SETTINGS, val=data, **ASKED)
    assert (result.steps, result.stopped_by, result.pending, result.finished) == (steps, "SIGINT", True, False)
    assert name != "as_detections" or len(calls) == call  # the second of two images was not reached
    run = RunFolder(tmp_path / "run")
    assert not [line for line in run.log_lines() if line["step"] == steps and "box_AP" in line]
    result = finetune(data, tmp_path / "run", SETTINGS, val=data, **ASKED)
    assert (result.steps, result.stopped_by, result.finished) == (2, None, True)
    assert [line for line in log_of(run) if "box_AP" in line] == [line for line in log_of(whole) if "box_AP" in line]
    assert (run.path / "scores.json").read_text() == (whole.path / "scores.json").read_text()
    one, other = run.load_checkpoint(), whole.load_checkpoint()
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other["detector"][name]) for name, value in one["detector"].items())
    assert run.load_best()["step"] == whole.load_best()["step"]


def test_repeated_evaluation_counts_once_for_patience(data, tmp_path, monkeypatch):
    """Stopped during the evaluation of step 1, then killed while repeating it, before the next checkpoint."""

    class Killed(BaseException):
        pass

    def save(*_):
        raise Killed

    with monkeypatch.context() as patch:
        interrupt_at(patch, inference_module, "as_detections", 1)
        assert finetune(data, tmp_path / "run", SETTINGS, val=data, patience=1, **ASKED).pending
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", save)
        with pytest.raises(Killed):
            finetune(data, tmp_path / "run", SETTINGS, val=data, patience=1, **ASKED)
    scored = [line["step"] for line in RunFolder(tmp_path / "run").log_lines() if "box_AP" in line]
    assert scored == [1]
    result = finetune(data, tmp_path / "run", SETTINGS, val=data, patience=1, **ASKED)
    assert (result.steps, result.stopped_by) == (2, None)


def test_failed_evaluation_is_repeated_with_the_same_result(data, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(inference_module, "as_detections", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finetune(data, tmp_path / "run", SETTINGS, val=data, **ASKED)
    run = RunFolder(tmp_path / "run")
    assert run.load_checkpoint()["step"] == 1
    assert finetune(data, run.path, SETTINGS, val=data, **ASKED).finished
    assert [line for line in log_of(run) if "box_AP" in line] == [line for line in log_of(whole) if "box_AP" in line]
    one, other = run.load_checkpoint(), whole.load_checkpoint()
    assert all(torch.equal(value, other["detector"][name]) for name, value in one["detector"].items())


def test_evaluation_is_repeated_even_if_a_smaller_patience_has_run_out(data, tmp_path, monkeypatch):
    """Otherwise the run would never finish."""
    longer = replace(SETTINGS, iterations=4)
    with monkeypatch.context() as patch:
        interrupt_at(patch, inference_module, "as_detections", 5)
        assert finetune(data, tmp_path / "run", longer, val=data, patience=9, **ASKED).steps == 3
    lines = [line for line in RunFolder(tmp_path / "run").log_lines() if "box_AP" in line]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[1]["box_AP"] <= lines[0]["box_AP"]
    result = finetune(data, tmp_path / "run", longer, val=data, patience=1, **ASKED)
    assert (result.steps, result.stopped_by, result.finished) == (3, "patience", True)
    assert result.evaluation is not None


def test_command_says_what_remains_to_be_done(data, tmp_path, monkeypatch, capsys):
    flags = "--detector retinanet_fpn --iterations 1 --batch-size 2 --size 32 --precise-bn 0 --device cpu --workers 0"
    flags += " --backbone resnet18 --fpn-channels 16"
    command = ["finetune", str(data), "--val", str(data), "--output", str(tmp_path / "my run"), *flags.split()]
    with monkeypatch.context() as patch:
        interrupt_at(patch, inference_module, "as_detections", 1)
        with pytest.raises(SystemExit) as ended:
            main(command)
    assert ended.value.code == 130
    assert "stopped by SIGINT after 1 of 1 step, before they were scored; the same" in capsys.readouterr().out
    main(command)
    printed = capsys.readouterr()
    assert "resuming" in printed.err
    assert "scores after step 1 on set (2 images), in percent:" in printed.out
    assert f"socodet predict '{tmp_path}/my run' " in printed.out
    scores = json.loads((tmp_path / "my run" / "scores.json").read_text())
    assert scores["step"] == 1


def test_stop_requested_during_a_step_does_not_wait_for_its_evaluation(data, tmp_path, monkeypatch):
    settings = replace(SETTINGS, precise_bn=0)
    with monkeypatch.context() as patch:
        interrupt_at(patch, torch.optim.SGD, "step", 1)
        found = interrupt_at(patch, inference_module, "as_detections", 99)
        result = finetune(data, tmp_path / "run", settings, val=data, **ASKED)
    assert (result.steps, result.pending) == (1, True)
    assert len(found) <= 1
