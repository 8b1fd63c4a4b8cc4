"""A full disk: half-written files are removed, training continues, and reports when it saves again."""

import errno
import itertools
import json
import resource
import threading
from contextlib import contextmanager

import pytest
from test_loop import Counter, go

from socodet.errors import InputError
from socodet.runtime.files import GrowingFile, write_atomically
from socodet.training import checkpoint_file, checkpoints
from socodet.training.run_folder import RunFolder


def written():
    """Waits for checkpoints on their way to the disk."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


@contextmanager
def no_file_larger_than(size):
    """Within it a write that goes beyond fails, after the part that fits, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
        written()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "a.json"
    write_atomically(file, b"before")
    with no_file_larger_than(1000), pytest.raises(OSError, match=r"a\.json") as raised:
        write_atomically(file, b"x" * 2000)
    assert raised.value.filename == str(file)
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_growing_file_keeps_whole_pieces_and_writes_the_rest_later(tmp_path):
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


@pytest.mark.parametrize("limit", [400, 3000])  # below the archive's head, and within it
def test_training_continues_without_a_checkpoint_and_reports_when_it_saves_again(tmp_path, capsys, limit):
    run, learner = RunFolder(tmp_path), Counter()
    learner.state_dict = lambda: {"finished": learner.finished, "sum": learner.sum, "text": "x" * 5000}

    def numbers():
        with no_file_larger_than(limit):
            yield from range(5)
        yield from range(5, 10)

    assert go(learner, run, numbers(), log_every=20).stopped_by is None
    said = capsys.readouterr().err.splitlines()
    assert "step-00000003.pt" in said[0]
    assert [line for line in said if "again" in line][-1].startswith(str(run.path / "checkpoints/step-00000006.pt"))
    names = [path.name for path in (run.path / "checkpoints").iterdir()]
    assert sorted(names) == ["step-00000009.pt", "step-00000010.pt"]
    assert [line["step"] for line in run.log_lines()] == [3, 6, 9, 10]


def test_the_last_checkpoint_is_one_line_and_what_is_there_stays(tmp_path):
    run, learner = RunFolder(tmp_path), Counter()
    go(learner, run, itertools.count(), max_steps=3)
    learner.state_dict = lambda: {"text": "x" * 50_000}
    with no_file_larger_than(10_000), pytest.raises(InputError, match=r"step-00000005\.pt.*step-00000003\.pt.*space"):
        go(learner, run, itertools.count(), max_steps=2)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000003.pt"]


def test_on_a_full_disk_the_older_checkpoint_makes_room(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    for step in (1, 2):
        run.save_checkpoint(step, {"step": step})

    def full(path, partial=None):
        if (run.path / "checkpoints/step-00000001.pt").exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return whole_file(path, partial)

    whole_file = checkpoint_file.whole_file
    monkeypatch.setattr(checkpoint_file, "whole_file", full)
    run.save_checkpoint(3, {"step": 3})
    assert [path.stem for path in run.checkpoints()] == ["step-00000002", "step-00000003"]


def test_on_a_full_disk_a_damaged_checkpoint_goes_and_the_one_that_can_be_read_stays(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    for step in (1, 2):
        newest = run.save_checkpoint(step, {"step": step})
    newest.write_bytes(newest.read_bytes()[:40])

    def full(path, partial=None):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint_file, "whole_file", full)
    with pytest.raises(OSError, match="No space"):
        run.save_checkpoint(3, {"step": 3})
    assert run.load_checkpoint() == {"step": 1}


def test_lines_of_the_log_wait_for_room(tmp_path, capsys):
    run, learner = RunFolder(tmp_path), Counter()

    def numbers():
        with no_file_larger_than(250):
            yield from range(8)
        yield from range(8, 10)

    go(learner, run, numbers(), checkpoint_every=20)
    assert [json.loads(line)["step"] for line in run.log.read_text().splitlines()] == [2, 4, 6, 8, 10]
    assert "written again, from step" in capsys.readouterr().err


def test_a_run_without_more_data_keeps_what_it_learned(tmp_path):
    run, learner = RunFolder(tmp_path), Counter()

    def numbers():
        yield from range(5)
        raise InputError("data workers: lost")

    with pytest.raises(InputError, match="data workers: lost; step 5 is "):
        go(learner, run, numbers())
    again = Counter()
    again.load_state_dict(run.load_checkpoint())
    assert (again.finished, again.sum) == (5, sum(range(5)))


def test_the_next_attempt_comes_soon(tmp_path, monkeypatch):
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
    written()
    clock[0] = 1200
    assert not saving.due(3)


def test_a_drive_that_does_not_answer_is_waited_for_with_a_word_and_not_for_ever(tmp_path, monkeypatch, capsys):
    answers = threading.Event()
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda *_: answers.wait(20))
    monkeypatch.setattr(checkpoints, "WAIT_NOTE_SECONDS", 0.05)
    monkeypatch.setattr(checkpoints, "GIVEN_UP_AFTER", 0.2)
    saving = checkpoints.Checkpoints(RunFolder(tmp_path), dict, None)
    saving.save(1, last=False)
    assert saving.saved == 0
    answers.set()
    said = capsys.readouterr().err
    assert "step-00000001.pt: waiting until it is written" in said
    assert "not written within" in said
    assert "training continues" in said


def test_a_drive_that_does_not_answer_to_the_last_checkpoint_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda *_: answers.wait(20))
    monkeypatch.setattr(checkpoints, "GIVEN_UP_AFTER", 0.2)
    saving = checkpoints.Checkpoints(RunFolder(tmp_path), dict, None)
    with pytest.raises(InputError, match=r"step-00000001\.pt: cannot be written \(not written within"):
        saving.save(1, last=True)
    answers.set()
