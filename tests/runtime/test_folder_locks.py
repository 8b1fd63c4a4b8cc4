"""Folders locked with flock; two handles in one process conflict like those of two processes."""

import fcntl
import os

import pytest

from socodet.errors import InputError
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks

lock_briefly = releases_folder_locks(lock_folder)


def is_locked(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_a_lock_is_held_until_the_function_ends_even_with_an_error(tmp_path):
    (tmp_path / "kept").touch()

    @releases_folder_locks
    def failing():
        lock_folder(tmp_path)
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match="another process is writing"):
            lock_briefly(tmp_path)
        raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert not is_locked(tmp_path)
    lock_briefly(tmp_path)
    assert (tmp_path / "kept").exists()


def test_a_lock_may_be_shared(tmp_path):
    @releases_folder_locks
    def sharing():
        lock_folder(tmp_path, shared=True)
        lock_briefly(tmp_path, shared=True)
        with pytest.raises(InputError, match="one\\.parquet: another"):
            lock_briefly(tmp_path, tmp_path / "one.parquet")

    sharing()
    lock_briefly(tmp_path)


def test_a_folder_replaced_while_being_opened_is_not_locked(tmp_path, monkeypatch):
    def finish_first(handle, how):
        os.rename(tmp_path / "parts", tmp_path / "output")
        (tmp_path / "parts").mkdir()

    monkeypatch.setattr(fcntl, "flock", finish_first)
    with pytest.raises(InputError, match="another process"):
        lock_briefly(tmp_path / "parts")


def test_a_locked_folder_that_stays_empty_is_removed(tmp_path):
    lock_briefly(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    @releases_folder_locks
    def forking():
        lock_folder(tmp_path)
        (begun, begin), (ended, end) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(end)
            os.write(begin, b"!")
            os.read(ended, 1)  # so the child outlives the function
            os._exit(0)
        assert os.read(begun, 1) == b"!"
        return child, end

    child, end = forking()
    try:
        assert not is_locked(tmp_path)
    finally:
        os.close(end)
        assert os.waitpid(child, 0)[1] == 0
