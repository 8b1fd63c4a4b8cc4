"""Weights & Biases and MLflow: the real packages, writing to a local folder."""

import itertools
import json
import os
import signal
import struct
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest
from test_loop import Counter, run_counter

from socodet.cli import main
from socodet.errors import InputError, SettingError
from socodet.runtime.log import LOGGER
from socodet.runtime.world import World
from socodet.training import distributed, settings, trackers
from socodet.training.log import OutcomeSink
from socodet.training.loop import resume_from_checkpoint
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.trackers import check_trackers, shown_name

RECIPE = {"name": "tiny", "training": {"epochs": 4.0, "views": [{"size": 96}]}}


def begin_and_resume(run, sink):
    """Runs ten steps in two calls, the first up to step 4, with an evaluation each step; returns the run's id."""
    run.write_description({"recipe": RECIPE})
    ids = []
    for steps in (4, None):
        learner = Counter()
        resume_from_checkpoint(run, learner, resume=False, show_progress=False)
        run_counter(
            learner,
            run,
            itertools.count(learner.finished),
            after_step=lambda step: {"note": "text", "class_AP": [step, step + 0.5, None]},
            sink=(sink,),
            max_steps=steps,
            log_every=1,
        )
        ids.append(json.loads(run.trackers.read_text())[sink])
        began = int(time.time())
        while int(time.time()) == began:  # W&B's file names have whole seconds
            time.sleep(0.05)
    assert ids[0] == ids[1]
    return ids[0]


def wandb_records(file):
    """The records of a W&B file, a log in LevelDB's format: blocks of 32 KiB with fragments of records."""
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
        if kind in (1, 4):  # a whole record, or its last fragment
            yield Record.FromString(whole)
            whole = b""


def test_wandb_gets_one_run_with_all_lines_and_the_recipe(tmp_path, monkeypatch):
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
        assert config["start"] == "scratch"
        for record in records:
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            if "sum" in items:
                sums[items["step"]] = items["sum"]
            if "class_AP/1" in items:
                areas[items["step"]] = items["class_AP/1"]
    assert sums == {step: step * (step - 1) / 2 for step in range(1, 11)}
    assert areas == {step: step + 0.5 for step in range(1, 11)}


def test_runs_of_a_study_are_told_apart(tmp_path):
    """In a comparison every run's folder is named after its seed."""
    folder = tmp_path / "compared" / "runs" / "soco" / "fraction-1" / "seed-0"
    folder.mkdir(parents=True)
    assert shown_name(folder) == "seed-0"
    (tmp_path / "compared" / "comparison.json").write_text("{}")
    assert shown_name(folder) == "compared/runs/soco/fraction-1/seed-0"


def test_mlflow_gets_one_run_with_all_lines_and_the_recipe(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # creating a database takes ten seconds
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
        run_counter(learner, diverged, itertools.count(), sink=("mlflow",), log_every=1)
    assert client.get_run(json.loads(diverged.trackers.read_text())["mlflow"]).info.status == "FAILED"

    client.delete_run(identity)
    RunFolder(run.path).checkpoint(10).unlink()
    learner = Counter()
    resume_from_checkpoint(run, learner, resume=False, show_progress=False)
    assert learner.finished == 9
    run_counter(learner, run, itertools.count(9), sink=("mlflow",))
    assert json.loads(run.trackers.read_text())["mlflow"] != identity


@pytest.fixture
def failing(tmp_path, monkeypatch, caplog):
    """A run logged to a server that fails with the given error at the first metrics; returns what it was sent."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setattr(LOGGER, "propagate", True)
    run = RunFolder(tmp_path / "run")
    run.write_description({"recipe": RECIPE})
    send, clock = mlflow.MlflowClient.log_batch, [0.0]
    monkeypatch.setattr(trackers, "time", SimpleNamespace(monotonic=lambda: clock[0], time_ns=time.time_ns))

    def train(error, seconds_between_steps):
        sent = []

        def log_batch(self, *args, **given):
            if "metrics" in given:
                sent.append({one.step for one in given["metrics"]})
                if len(sent) == 1:
                    clock[0] += 2 * trackers.PATIENCE_SECONDS  # the client has given up by then
                    raise error
            return send(self, *args, **given)

        def after_step(step):
            clock[0] += seconds_between_steps

        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
        run_counter(Counter(), run, itertools.count(), after_step, sink=("mlflow",), log_every=1)
        identity = json.loads(run.trackers.read_text())["mlflow"]
        history = mlflow.MlflowClient().get_metric_history(identity, "sum")
        assert mlflow.MlflowClient().get_run(identity).info.status == "FINISHED"
        notices = [one.getMessage() for one in caplog.records if "log lines" in one.getMessage()]
        return sent, sorted(one.step for one in history), notices

    return train


def test_server_unreachable_until_the_end_gets_the_lines_then(failing):
    sent, kept, notices = failing(OSError("no answer"), seconds_between_steps=0)
    assert sent == [{1}, {*range(1, 11)}]  # no later step waits for the server
    assert kept == [*range(1, 11)]
    assert len(notices) == 1
    assert "no answer" in notices[0]


def test_server_unreachable_for_a_while_gets_the_lines_later(failing):
    sent, kept, notices = failing(OSError("no answer"), seconds_between_steps=trackers.PATIENCE_SECONDS / 2.5)
    assert sent == [{1}, {1, 2, 3, 4}, *({step} for step in range(5, 11))]
    assert kept == [*range(1, 11)]
    assert "no answer" in notices[0]
    assert [notice.rpartition(" ")[2] for notice in notices[1:]] == ["4"]


def test_line_that_a_server_refuses_is_dropped(failing):
    mlflow = pytest.importorskip("mlflow")
    sent, kept, notices = failing(mlflow.exceptions.MlflowException.invalid_parameter_value("no such"), 0)
    assert sent == [{step} for step in range(1, 11)]
    assert kept == [*range(2, 11)]
    assert "no such" in notices[0]
    assert [notice.rpartition(" ")[2] for notice in notices[1:]] == ["2"]


def test_mlflow_gets_the_outcome_of_a_run_and_does_not_start_it_twice(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    run = RunFolder(tmp_path / "run")
    run.write_description({"recipe": RECIPE})

    def train(after_step=None):
        learner = Counter()
        resume_from_checkpoint(run, learner, resume=False, show_progress=False)
        run_counter(learner, run, itertools.count(learner.finished), after_step, sink=("mlflow",))

    train(lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 3 else None)
    noted = run.trackers.read_text()
    identity = json.loads(noted)["mlflow"]
    client = mlflow.MlflowClient()
    assert client.get_run(identity).info.status == "KILLED"

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "get_run", fail_with_expired_token)
        with pytest.raises(InputError, match="token has expired"):
            train()
    assert run.trackers.read_text() == noted
    try:
        raise ValueError  # the calling program handles an error and then trains
    except ValueError:
        train()
    assert run.trackers.read_text() == noted
    assert client.get_run(identity).info.status == "FINISHED"


def fail_with_expired_token(self, identity):
    from mlflow.exceptions import MlflowException

    raise MlflowException("the token has expired")


class OutcomeSink(OutcomeSink):
    """A sink that records how it was closed."""

    closed: ClassVar = []

    def __init__(self, folder=None):
        pass

    def write(self, step, line):
        raise AssertionError("nothing is trained")

    def close(self):
        self.closed.append(self.outcome)


def test_sinks_are_closed_if_a_later_one_fails_to_open(tmp_path, monkeypatch):
    def broken(folder):
        raise InputError("no server")

    monkeypatch.setattr(OutcomeSink, "closed", [])
    monkeypatch.setattr(settings, "find_spec", lambda name: SimpleNamespace(origin="here"))
    monkeypatch.setitem(trackers.TRACKERS, "wandb", OutcomeSink)
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", broken)
    run = RunFolder(tmp_path / "run")
    run.write_description({"recipe": RECIPE})
    with pytest.raises(InputError, match="no server"):
        run_counter(Counter(), run, itertools.count(), sinks=[OutcomeSink()], sink=("wandb", "mlflow"))
    assert OutcomeSink.closed == ["FAILED", "FAILED"]


def test_other_processes_learn_of_an_unusable_tracker(monkeypatch):
    monkeypatch.setattr(distributed, "any_process", lambda world, here: True)
    with pytest.raises(InputError, match="first process"):
        check_trackers(["mlflow"], World(1, 2))


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_missing_tracker_package_is_one_line_before_anything_is_read(capsys, monkeypatch, tmp_path, command):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main([command, str(tmp_path / "nothing"), "--output", str(tmp_path / "x"), "--sink", "wandb"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'socodet[wandb]'" in line


def test_folder_of_that_name_is_not_a_package(monkeypatch, tmp_path):
    (tmp_path / "own_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not settings._is_installed("own_tracker")
    with pytest.raises(SettingError, match="wandb"):
        ExecutionSettings(sink=("wand",))


def test_mlflow_without_a_usable_server_is_one_line(monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        check_trackers(["own:Lines", "mlflow"], World())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"127\.0\.0\.1"):
        check_trackers(["mlflow"], World())


def test_wandb_without_a_login_is_one_line(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(InputError, match="WANDB_MODE=offline"):
        check_trackers(["wandb"], World())
    wandb.teardown()
