"""Damage anywhere in a checkpoint is noticed, and checkpoints are written while training continues."""

import errno
import itertools
import os
import pickle
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from test_loop import Counter, run_counter

from socodet.errors import InputError
from socodet.training import checkpoint_file, run_folder
from socodet.training.checkpoint_file import copy_to_cpu, find_damage, read_state, unsupported_value, write_state
from socodet.training.checkpoints import Kept
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile

STATE = {"step": 3, "model": {"w": torch.arange(300.0), "b": torch.ones(7, dtype=torch.float64)}, "name": "x"}


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_flipped_bit_is_noticed_or_harmless(tmp_path):
    """Only the padding between the archive's members is not covered, and it is never read."""
    file = tmp_path / "state.pt"
    write_state(file, STATE)
    whole = file.read_bytes()
    noticed, where = 0, range(0, len(whole), 5)
    for place in where:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            assert same(read_state(file), STATE)
        except ValueError:
            noticed += 1
    assert noticed > 0.3 * len(where)
    data = whole.index(STATE["model"]["w"].numpy().tobytes())
    file.write_bytes(whole[: data + 13] + bytes([whole[data + 13] ^ 1]) + whole[data + 14 :])
    assert torch.load(file, weights_only=True)["model"]["w"].shape == (300,)  # torch itself does not notice
    assert "damaged" in find_damage(file)


def test_truncation_is_noticed_at_any_length(tmp_path):
    file = tmp_path / "state.pt"
    write_state(file, STATE)
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"damaged|cut short"):
            read_state(file)


def test_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, capsys):
    run = RunFolder(tmp_path)
    for step in (1, 2):
        newest = run.save_checkpoint(step, STATE | {"step": step})
    content = bytearray(newest.read_bytes())
    content[content.index(STATE["model"]["w"].numpy().tobytes()) + 2] ^= 16
    newest.write_bytes(content)
    assert run.load_checkpoint()["step"] == 1
    assert "step-00000002.pt" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"recipe": {}}')
    assert WeightsFile.find(tmp_path).path.name == "step-00000001.pt"
    with pytest.raises(InputError, match="damaged"):
        WeightsFile(newest).read()


def test_damaged_checkpoint_is_replaced_so_that_two_good_ones_remain(tmp_path):
    run = RunFolder(tmp_path)
    run_counter(Counter(), run, itertools.count(), checkpoint_every=2, max_steps=6)
    assert [path.stem[-1] for path in run.checkpoints()] == ["4", "6"]
    run.checkpoint(6).write_bytes(run.checkpoint(6).read_bytes()[:99])
    learner = Counter()
    learner.load_state_dict(run.load_checkpoint())
    run_counter(learner, run, itertools.count(4), max_steps=1)
    assert [read_state(path)["finished"] for path in run.checkpoints()] == [4, 5]


def test_training_continues_while_a_checkpoint_is_written_without_changing_it(tmp_path, monkeypatch):
    started, enough, steps_seen = threading.Event(), threading.Event(), []

    def slow(path, state):
        steps_seen.append(learner.finished)
        if len(steps_seen) == 1:
            started.set()
            assert enough.wait(30)
            steps_seen.append(learner.finished)
        write_state(path, state)

    monkeypatch.setattr(run_folder, "write_state", slow)
    run, learner = RunFolder(tmp_path), Counter()
    total = torch.zeros(1)
    learner.state_dict = lambda: {"finished": learner.finished, "sum": total}

    def numbers():
        for number in itertools.count(1):
            total.add_(number)
            if number == 4:
                assert started.wait(30)
            if number == 6:
                enough.set()
            yield number

    run_counter(learner, run, numbers(), max_steps=6)
    assert steps_seen[0] < steps_seen[1]  # training continued meanwhile
    states = [read_state(path) for path in run.checkpoints()]
    assert [(state["finished"], float(state["sum"])) for state in states] == [(3, 6.0), (6, 21.0)]


def test_copied_state_is_independent_and_keeps_its_types():
    weights = OrderedDict(w=torch.zeros(2))
    weights._metadata = {"": {"version": 2}}
    twin = copy_to_cpu({"model": weights, "rng": (1, [torch.ones(1), "x"])})
    weights["w"] += 1
    assert twin["model"]["w"].tolist() == [0, 0]
    assert twin["model"]._metadata == {"": {"version": 2}}
    assert twin["rng"] == (1, [torch.ones(1), "x"])


def test_keep_every_keeps_checkpoints_of_epochs(tmp_path):
    """Ten steps in five epochs: every other epoch ends at steps 4 and 8."""
    run = RunFolder(tmp_path)
    run_counter(Counter(), run, itertools.count(), checkpoint_every=100, keep_every=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch-0002.pt", "epoch-0004.pt", "step-00000008.pt", "step-00000010.pt"]
    assert read_state(tmp_path / "checkpoints/epoch-0002.pt") == {"finished": 4, "sum": 0 + 1 + 2 + 3}


@pytest.mark.parametrize(
    ("every", "epochs", "steps", "ends"),
    [(1, 3.0, 7, {3: 1, 5: 2, 7: 3}), (2, 5.0, 10, {4: 2, 8: 4}), (10, 0.5, 9, {}), (1, 4.0, 2, {1: 2, 2: 4})],
)
def test_kept_epochs_end_at_the_first_step_past_them(every, epochs, steps, ends):
    kept = Kept(every, epochs, steps)
    assert {step: epoch for step in range(1, steps + 1) if (epoch := kept.epoch(step)) is not None} == ends


def test_partial_file_of_a_killed_process_is_removed(tmp_path):
    run = RunFolder(tmp_path)
    left = tmp_path / "checkpoints" / ".step-00000001.pt.partial"
    left.parent.mkdir()
    left.write_bytes(b"half")
    run_counter(Counter(), run, itertools.count(), max_steps=1)
    assert [path.name for path in left.parent.iterdir()] == ["step-00000001.pt"]


def test_best_checkpoint_may_be_written_at_the_same_time(tmp_path, monkeypatch):
    """Saving a checkpoint in the background leaves a half-written best.pt alone."""
    run, learner = RunFolder(tmp_path), Counter()
    half = tmp_path / "checkpoints" / ".best.pt.partial"

    def numbers():
        for number in range(10):
            if number == 2:
                half.parent.mkdir(exist_ok=True)
                half.write_bytes(b"half")
            yield number

    run_counter(learner, run, numbers(), checkpoint_every=3)
    assert half.read_bytes() == b"half"


def test_epoch_whose_checkpoint_failed_is_kept_with_the_next_one(tmp_path, monkeypatch, capsys):
    run, failures = RunFolder(tmp_path), []

    def once(path, state):
        if path.name == "step-00000004.pt" and not failures:
            failures.append(path)
            raise OSError(errno.EIO, "Input/output error", str(path))
        write_state(path, state)

    monkeypatch.setattr(run_folder, "write_state", once)
    run_counter(Counter(), run, itertools.count(), checkpoint_every=5, keep_every=2, max_steps=7)
    assert len(failures) == 1
    assert read_state(tmp_path / "checkpoints/epoch-0002.pt")["finished"] == 5


def test_missing_name_of_an_epochs_checkpoint_is_restored_on_resume(tmp_path):
    run = RunFolder(tmp_path)
    run_counter(Counter(), run, itertools.count(), checkpoint_every=1, keep_every=2, max_steps=4)
    kept = tmp_path / "checkpoints/epoch-0002.pt"
    kept.unlink()
    learner = Counter()
    learner.load_state_dict(run.load_checkpoint())
    run_counter(learner, run, itertools.count(), checkpoint_every=1, keep_every=2, max_steps=1)
    assert read_state(kept)["finished"] == 4


def test_file_system_without_hard_links_gets_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(run_folder.os, "link", refuse)
    run = RunFolder(tmp_path)
    run.save_checkpoint(4, STATE, epoch=2)
    assert same(read_state(run.kept(2)), STATE)
    assert run.kept(2).read_bytes() == run.checkpoint(4).read_bytes()


def test_checksum_is_computed_once_and_again_after_a_change(tmp_path, monkeypatch):
    sums = []
    once = checkpoint_file._find_damage
    monkeypatch.setattr(checkpoint_file, "_find_damage", lambda path: sums.append(path) or once(path))
    run = RunFolder(tmp_path)
    file = run.save_checkpoint(1, STATE)
    os.utime(file, (1e9, 1e9))  # long ago
    assert same(run.load_checkpoint(), STATE)
    assert WeightsFile.find(file).path == file
    assert find_damage(file) is None
    assert sums == [file]
    content = bytearray(file.read_bytes())
    content[content.index(torch.arange(300.0).numpy().tobytes()) + 9] ^= 1
    file.write_bytes(content)
    assert find_damage(file) is not None
    file.write_bytes(bytes(content))  # damaged and recently written files are checked every time
    assert find_damage(file) is not None
    assert len(sums) == 3


@pytest.mark.parametrize(
    "value", [1, 0.5, True, None, "a", b"a", [1, (2, {"b": 3})], torch.float32, torch.Size([2]), {1, 2}]
)
def test_supported_values_survive_a_round_trip(value, tmp_path):
    state = {"weights": torch.ones(2), "groups": [{"value": value}]}
    assert unsupported_value(state) is None
    write_state(tmp_path / "state.pt", state)
    assert read_state(tmp_path / "state.pt")["groups"] == [{"value": value}]


def test_tensor_that_would_count_as_damaged_is_named(tmp_path):
    """For example a sparse buffer of a user's backbone."""
    state = {"weights": torch.eye(3).to_sparse()}
    assert unsupported_value(state).startswith("weights, a sparse tensor")
    write_state(tmp_path / "state.pt", state)
    with pytest.raises(ValueError, match="damaged"):
        read_state(tmp_path / "state.pt")


@pytest.mark.parametrize("value", [np.float64(0.5), np.arange(2), Path("a"), range(2), lambda: 0])
def test_unsupported_value_is_named(value, tmp_path):
    state = {"weights": torch.ones(2), "groups": [{"fine": 1}, {"value": value}]}
    assert unsupported_value(state) == f"groups.1.value, a {type(value).__name__}"

    def written_and_read():
        write_state(tmp_path / "state.pt", state)
        return read_state(tmp_path / "state.pt")

    with pytest.raises((ValueError, pickle.PicklingError)):
        written_and_read()
