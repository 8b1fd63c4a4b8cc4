"""Weights & Biases and MLflow, the real packages, which write to a local folder."""

import itertools
import json
import struct

import pytest
from test_loop import Counter, go

from socodet.cli import main
from socodet.errors import InputError, SettingError
from socodet.training import settings
from socodet.training.loop import resume_from_checkpoint
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.trackers import check_trackers

RECIPE = {"name": "tiny", "training": {"epochs": 4.0, "views": [{"size": 96}]}}


def begin_and_resume(run, sink):
    """A run of ten steps whose first process stops after step 4, scored after each step; the ids it had in each."""
    run.write_description({"recipe": RECIPE})
    ids = []
    for steps in (4, None):
        learner = Counter()
        resume_from_checkpoint(run, learner, resume=False, show_progress=False)
        go(
            learner,
            run,
            itertools.count(learner.finished),
            after_step=lambda step: {"note": "text", "class_AP": [step, step + 0.5]},
            sink=(sink,),
            max_steps=steps,
            log_every=1,
        )
        ids.append(json.loads(run.trackers.read_text())[sink])
    assert ids[0] == ids[1]
    return ids[0]


def wandb_records(file):
    """The records of one of W&B's files, a log in LevelDB's format: blocks of 32 KiB with pieces of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, offset, whole = file.read_bytes(), 7, b""
    while offset + 7 <= len(data):
        left = 32768 - offset % 32768
        if left < 7:
            offset += left
            continue
        length, kind = struct.unpack("<HB", data[offset + 4 : offset + 7])
        whole += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # a full record, or the last piece of one
            yield Record.FromString(whole)
            whole = b""


def test_wandb_offline_has_one_run_with_all_lines_and_the_recipe(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = RunFolder(tmp_path / "run")
    identity = begin_and_resume(run, "wandb")
    files = sorted(run.path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    sums, areas = {}, {}
    for file in files:
        records = list(wandb_records(file))
        (began,) = (record.run for record in records if record.HasField("run"))
        assert (began.run_id, began.project, began.display_name) == (identity, "socodet", "run")
        config = {one.key: json.loads(one.value_json) for one in began.config.update}
        assert config["recipe"] == RECIPE
        for record in records:
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            if "sum" in items:
                sums[items["step"]] = items["sum"]
            if "class_AP/1" in items:
                areas[items["step"]] = items["class_AP/1"]
    assert sums == {step: step * (step - 1) / 2 for step in range(1, 11)}
    assert areas == {step: step + 0.5 for step in range(1, 11)}


def test_mlflow_has_one_run_with_all_lines_and_the_recipe(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes ten seconds to make
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "birds")
    run = RunFolder(tmp_path / "run")
    identity = begin_and_resume(run, "mlflow")
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("birds").experiment_id])
    assert (found.info.run_id, found.info.run_name, found.info.status) == (identity, "run", "FINISHED")
    assert found.data.params["recipe.training.views.0.size"] == "96"
    sums = [(one.step, one.value) for one in client.get_metric_history(identity, "sum")]
    assert sorted(sums) == [(step, step * (step - 1) / 2) for step in range(1, 11)]
    areas = [(one.step, one.value) for one in client.get_metric_history(identity, "class_AP/1")]
    assert sorted(areas) == [(step, step + 0.5) for step in range(1, 11)]

    learner = Counter()
    learner.bad = 2
    (tmp_path / "diverged").mkdir()
    diverged = RunFolder(tmp_path / "diverged")
    diverged.write_description({"recipe": RECIPE})
    with pytest.raises(Exception, match="diverged"):
        go(learner, diverged, itertools.count(), sink=("mlflow",), log_every=1)
    assert client.get_run(json.loads(diverged.trackers.read_text())["mlflow"]).info.status == "FAILED"

    client.delete_run(identity)
    RunFolder(run.path).checkpoint(10).unlink()
    learner = Counter()
    resume_from_checkpoint(run, learner, resume=False, show_progress=False)
    assert learner.finished == 9
    go(learner, run, itertools.count(9), sink=("mlflow",))
    assert json.loads(run.trackers.read_text())["mlflow"] != identity


def test_a_server_that_is_away_for_a_while_gets_the_lines_later(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    run = RunFolder(tmp_path / "run")
    run.write_description({"recipe": RECIPE})
    send, asked = mlflow.MlflowClient.log_batch, []

    def log_batch(self, *args, **given):
        asked.append(given)
        if len([one for one in asked if "metrics" in one]) == 1:
            raise mlflow.exceptions.MlflowException("no answer")
        return send(self, *args, **given)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    assert go(Counter(), run, itertools.count(), sink=("mlflow",), log_every=1).stopped_by is None
    assert len([one for one in asked if "metrics" in one]) == 2  # the second at the end; no step waited for it
    identity = json.loads(run.trackers.read_text())["mlflow"]
    history = mlflow.MlflowClient().get_metric_history(identity, "sum")
    assert sorted(one.step for one in history) == [*range(1, 11)]


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_missing_package_is_one_line_before_anything_is_read(capsys, monkeypatch, tmp_path, command):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main([command, str(tmp_path / "nothing"), "--output", str(tmp_path / "x"), "--sink", "wandb"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'socodet[wandb]'" in line


def test_a_folder_of_that_name_is_no_package(monkeypatch, tmp_path):
    (tmp_path / "own_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not settings._is_installed("own_tracker")
    with pytest.raises(SettingError, match="wandb"):
        ExecutionSettings(sink=("wand",))


def test_without_a_login_or_a_place_to_log_to_it_is_one_line(monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        check_trackers(["own:Lines", "mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"127\.0\.0\.1"):
        check_trackers(["mlflow"])


def test_wandb_without_a_login_is_one_line(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(InputError, match="WANDB_MODE=offline"):
        check_trackers(["wandb"])
    wandb.teardown()
