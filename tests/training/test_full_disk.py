"""A full disk: partial files are removed, training continues, and a message says when saving works again."""

import errno
import itertools
import json
import resource
import threading
from contextlib import contextmanager

import pytest
from test_loop import Counter, run_counter

from socodet.errors import InputError
from socodet.runtime.files import GrowingFile, write_atomically
from socodet.training import checkpoint_file, checkpoints
from socodet.training.run_folder import RunFolder


def wait_until_written():
    """Waits until checkpoints in the background are written."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


@contextmanager
def no_file_larger_than(size):
    """Inside, a longer write fails after the part that fits, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
        wait_until_written()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    write_atomically(file, b"before")
    with no_file_larger_than(1000), pytest.raises(OSError, match=r"a\.json") as raised:
        write_atomically(file, b"x" * 2000)
    assert raised.value.filename == str(file)
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_growing_file_keeps_whole_pieces_and_writes_the_rest_later(tmp_path):
    file = tmp_path / "log"
    growing = GrowingFile(file)
    growing.append(b"1" * 800)
    with no_file_larger_than(1000):
        for piece in (b"2" * 400, b"3"):
            with pytest.raises(OSError, match="log"):
                growing.append(piece)
            assert file.read_bytes() == b"1" * 800
    growing.append(b"4")
    assert file.read_bytes() == b"1" * 800 + b"2" * 400 + b"34"
    growing.close()


@pytest.mark.parametrize("limit", [400, 3000])  # before and within the archive's header
def test_training_continues_without_checkpoints_and_reports_when_saving_works_again(tmp_path, capsys, limit):
    run, learner = RunFolder(tmp_path), Counter()
    learner.state_dict = lambda: {"finished": learner.finished, "sum": learner.sum, "text": "x" * 5000}

    def numbers():
        with no_file_larger_than(limit):
            yield from range(5)
        yield from range(5, 10)

    assert run_counter(learner, run, numbers(), log_every=20).stopped_by is None
    messages = capsys.readouterr().err.splitlines()
    assert "step-00000003.pt" in messages[0]
    assert [line for line in messages if "again" in line][-1].startswith(str(run.path / "checkpoints/step-00000006.pt"))
    names = [path.name for path in (run.path / "checkpoints").iterdir()]
    assert sorted(names) == ["step-00000009.pt", "step-00000010.pt"]
    assert [line["step"] for line in run.log_lines()] == [3, 6, 9, 10]


def test_last_checkpoint_that_fails_is_one_line_and_the_previous_one_stays(tmp_path):
    run, learner = RunFolder(tmp_path), Counter()
    run_counter(learner, run, itertools.count(), max_steps=3)
    learner.state_dict = lambda: {"text": "x" * 50_000}
    with no_file_larger_than(10_000), pytest.raises(InputError, match=r"step-00000005\.pt.*step-00000003\.pt.*space"):
        run_counter(learner, run, itertools.count(), max_steps=2)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000003.pt"]


def test_older_checkpoint_is_deleted_to_make_room(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    for step in (1, 2):
        run.save_checkpoint(step, {"step": step})

    def full(path, partial=None):
        if (run.path / "checkpoints/step-00000001.pt").exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return atomic_file(path, partial)

    atomic_file = checkpoint_file.atomic_file
    monkeypatch.setattr(checkpoint_file, "atomic_file", full)
    run.save_checkpoint(3, {"step": 3})
    assert [path.stem for path in run.checkpoints()] == ["step-00000002", "step-00000003"]


def test_damaged_checkpoint_is_deleted_to_make_room_and_the_readable_one_stays(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    for step in (1, 2):
        newest = run.save_checkpoint(step, {"step": step})
    newest.write_bytes(newest.read_bytes()[:40])

    def full(path, partial=None):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint_file, "atomic_file", full)
    with pytest.raises(OSError, match="No space"):
        run.save_checkpoint(3, {"step": 3})
    assert run.load_checkpoint() == {"step": 1}


def test_log_lines_wait_for_free_space(tmp_path, capsys):
    run, learner = RunFolder(tmp_path), Counter()

    def numbers():
        with no_file_larger_than(250):
            yield from range(8)
        yield from range(8, 10)

    run_counter(learner, run, numbers(), checkpoint_every=20)
    assert [json.loads(line)["step"] for line in run.log.read_text().splitlines()] == [2, 4, 6, 8, 10]
    assert "written again, from step" in capsys.readouterr().err


def test_run_that_loses_its_data_saves_its_last_step(tmp_path):
    run, learner = RunFolder(tmp_path), Counter()

    def numbers():
        yield from range(5)
        raise InputError("data workers: lost")

    with pytest.raises(InputError, match="data workers: lost; step 5 is "):
        run_counter(learner, run, numbers())
    again = Counter()
    again.load_state_dict(run.load_checkpoint())
    assert (again.finished, again.sum) == (5, sum(range(5)))


def test_failed_checkpoint_is_soon_retried(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    saving = checkpoints.Checkpoints(RunFolder(tmp_path / "missing"), dict, None)
    clock[0] = 601
    assert saving.due(1)
    with no_file_larger_than(10):
        saving.save(1, last=False)
    assert not saving.due(2)
    clock[0] = 662
    assert saving.due(2)
    saving.save(2, last=False)
    wait_until_written()
    clock[0] = 1200
    assert not saving.due(3)


def test_unresponsive_drive_is_reported_and_given_up_after_a_while(tmp_path, monkeypatch, capsys):
    answers = threading.Event()
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda *_: answers.wait(20))
    monkeypatch.setattr(checkpoints, "WAIT_NOTE_SECONDS", 0.05)
    monkeypatch.setattr(checkpoints, "GIVEN_UP_AFTER", 0.2)
    saving = checkpoints.Checkpoints(RunFolder(tmp_path), dict, None)
    saving.save(1, last=False)
    assert saving.saved == 0
    answers.set()
    messages = capsys.readouterr().err
    assert "step-00000001.pt: waiting until it is written" in messages
    assert "not written within" in messages
    assert "training continues" in messages


def test_last_checkpoint_on_an_unresponsive_drive_is_given_up_after_a_while(tmp_path, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda *_: answers.wait(20))
    monkeypatch.setattr(checkpoints, "GIVEN_UP_AFTER", 0.2)
    saving = checkpoints.Checkpoints(RunFolder(tmp_path), dict, None)
    with pytest.raises(InputError, match=r"step-00000001\.pt: cannot be written \(not written within"):
        saving.save(1, last=True)
    answers.set()
