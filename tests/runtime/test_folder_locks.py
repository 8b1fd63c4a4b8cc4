"""Folders held by flock; two handles of one process conflict as those of two processes do."""

import fcntl
import os

import pytest

from socodet.errors import InputError
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks

hold_for_a_moment = releases_folder_locks(lock_folder)


def is_held(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_it_is_held_until_the_function_ends_even_by_an_error(tmp_path):
    (tmp_path / "kept").touch()

    @releases_folder_locks
    def failing():
        lock_folder(tmp_path)
        assert is_held(tmp_path)
        with pytest.raises(InputError, match="another process is writing"):
            hold_for_a_moment(tmp_path)
        raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert not is_held(tmp_path)
    hold_for_a_moment(tmp_path)
    assert (tmp_path / "kept").exists()


def test_it_may_be_shared(tmp_path):
    @releases_folder_locks
    def sharing():
        lock_folder(tmp_path, shared=True)
        hold_for_a_moment(tmp_path, shared=True)
        with pytest.raises(InputError, match="one\\.parquet: another"):
            hold_for_a_moment(tmp_path, tmp_path / "one.parquet")

    sharing()
    hold_for_a_moment(tmp_path)


def test_one_that_was_removed_while_it_was_opened_is_not_held(tmp_path, monkeypatch):
    def finish_first(handle, how):
        os.rename(tmp_path / "parts", tmp_path / "output")
        (tmp_path / "parts").mkdir()

    monkeypatch.setattr(fcntl, "flock", finish_first)
    with pytest.raises(InputError, match="another process"):
        hold_for_a_moment(tmp_path / "parts")


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    hold_for_a_moment(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_a_forked_process_does_not_go_on_holding(tmp_path):
    @releases_folder_locks
    def forking():
        lock_folder(tmp_path)
        (begun, begin), (ended, end) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(end)
            os.write(begin, b"!")
            os.read(ended, 1)  # outlives the function
            os._exit(0)
        assert os.read(begun, 1) == b"!"
        return child, end

    child, end = forking()
    try:
        assert not is_held(tmp_path)
    finally:
        os.close(end)
        assert os.waitpid(child, 0)[1] == 0
