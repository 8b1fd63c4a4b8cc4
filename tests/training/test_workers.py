"""Batches from worker processes: how they are handed over, and workers that die, hang or run out of memory."""

import gc
import multiprocessing
import os
import resource
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from socodet.errors import InputError
from socodet.runtime.process import raise_open_files
from socodet.training import one_buffer, workers
from socodet.training.workers import make_batches, prefetch

TENSORS = 20


def numbers(task, begin):
    begin(f"image {task}")
    if task == "unreadable":
        raise InputError("nothing can be read any more")
    return [torch.full((3, task), task + k, dtype=torch.int64) for k in range(TENSORS)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_batches_come_in_the_order_of_their_tasks(count):
    made = list(make_batches(numbers, iter(range(8)), count))
    assert len(made) == 8
    for task, batch in enumerate(made):
        assert same(batch, numbers(task, lambda _name: None))
    made[3][0] += 1  # batches are writable


@pytest.mark.parametrize("lengths", [[1] * 9, [100_000] * 9, [1, 100_000, 1, 1, 100_000, 100_000, 1, 100_000, 1]])
def test_batches_are_handed_over_on_systems_that_acknowledge_descriptors(monkeypatch, tmp_path, lengths):
    """As on macOS, where pipes also hold little. A worker that dies is replaced there too."""
    monkeypatch.setattr("multiprocessing.reduction.ACKNOWLEDGE", True)
    monkeypatch.setattr(workers, "FORKED", False)

    def make(task, _begin):
        if task[0] == 4 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor([task[0], len(task)])

    made = list(make_batches(make, ([number] * length for number, length in enumerate(lengths)), 2))
    assert [batch.tolist() for batch in made] == [[number, length] for number, length in enumerate(lengths)]
    assert (tmp_path / "failed").exists()


def mapped_from_dev_shm():
    """What this process has mapped from /dev/shm; other files there may belong to any process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "/dev/shm/" in line]


def test_a_batch_takes_one_descriptor_and_nothing_of_dev_shm(monkeypatch):
    def refused(*_):
        raise AssertionError("shared memory of torch's")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refused)
    gc.collect()  # objects of earlier tests may hold descriptors
    batches = make_batches(numbers, iter(range(1, 4)), 1)
    first = next(batches)
    before, there = len(os.listdir("/proc/self/fd")), mapped_from_dev_shm()
    second = next(batches)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert mapped_from_dev_shm() == there
    del first, second
    assert len(os.listdir("/proc/self/fd")) == before - 1
    batches.close()


def test_workers_start_if_warnings_are_errors(monkeypatch):
    """Since 3.12 Python warns about forking a process with threads, and torch always has threads."""
    fork = os.fork

    def warning():
        pid = fork()
        if pid:
            text = "This process (pid=1) is multi-threaded, use of fork() may lead to deadlocks in the child."
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        return pid

    monkeypatch.setattr(os, "fork", warning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [batch[0].shape for batch in make_batches(numbers, [1, 2], 1)] == [(3, 1), (3, 2)]


def test_handed_over_content_is_unchanged():
    ours, theirs = multiprocessing.Pipe()
    content = {
        "none": torch.empty(0, 4),
        "array": np.arange(6.0).reshape(2, 3),
        "turned": torch.arange(6).reshape(2, 3).T,
        "flag": torch.tensor([True, False]),
        "text": ("a", 1.5, None),
    }
    one_buffer.send(ours, content)
    got = one_buffer.receive(theirs)
    assert got["none"].shape == (0, 4)
    assert np.array_equal(got["array"], content["array"])
    assert torch.equal(got["turned"], content["turned"])
    assert torch.equal(got["flag"], content["flag"])
    assert got["text"] == content["text"]
    one_buffer.send(ours, [torch.empty(0), "nothing in it"])
    assert one_buffer.receive(theirs)[1] == "nothing in it"


def test_one_line_errors_of_workers_are_passed_on():
    with pytest.raises(InputError, match=r"^nothing can be read any more$"):
        list(make_batches(numbers, iter([1, "unreadable"]), 1))
    with pytest.raises(RuntimeError, match="TypeError"):
        list(make_batches(numbers, iter([None]), 1))


def test_tensor_that_does_not_fit_into_memory_is_one_line():
    """torch raises its own error for it, in workers as in the training process."""
    with pytest.raises(InputError, match="not enough memory"):
        list(make_batches(lambda _task, _begin: torch.empty(2**60), iter([1]), 1))


def fail_once(folder, what):
    """A `make` that calls `what` the first time it gets task 3."""

    def make(task, begin):
        begin(f"image {task}")
        if task == 3 and not (folder / "failed").exists():
            (folder / "failed").touch()
            what()
        return task

    return make


def test_killed_worker_is_replaced(tmp_path, capfd):
    make = fail_once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert list(make_batches(make, iter(range(8)), 2)) == list(range(8))
    printed = capfd.readouterr().err
    assert "SIGKILL" in printed
    assert "image 3" in printed


def test_hanging_worker_is_reported_and_replaced(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(workers, "TICK", 0.05)
    monkeypatch.setattr(workers, "WAIT_NOTE_SECONDS", 10)
    monkeypatch.setattr(workers, "HANGS_AFTER", 30)
    make = fail_once(tmp_path, lambda: time.sleep(600))
    assert list(make_batches(make, iter(range(8)), 2)) == list(range(8))
    waiting, replaced = [line for line in capfd.readouterr().err.splitlines() if "image 3" in line]
    assert "waiting" in waiting
    assert "takes its place" in replaced


def test_worker_that_cannot_be_replaced_is_one_line_and_the_others_end(tmp_path, monkeypatch):
    start, started = multiprocessing.context.ForkProcess.start, []

    def no_memory_for_a_third(process):
        if len(started) == 2:
            raise OSError(12, "Cannot allocate memory")
        started.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", no_memory_for_a_third)
    make = fail_once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(InputError, match=r"cannot be started.*--workers"):
        list(make_batches(make, iter(range(8)), 2))
    assert not any(process.is_alive() for process in started)


def test_workers_that_keep_dying_are_one_line():
    def make(task, begin):
        begin("big.tif")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match=r"SIGKILL.*big\.tif.*--workers"):
        list(make_batches(make, iter(range(8)), 2))


def test_batch_without_free_memory_is_one_line(monkeypatch):
    def full(_name):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(InputError, match=r"Cannot allocate memory.*--workers"):
        list(make_batches(numbers, iter(range(1, 4)), 1))


def test_workers_ignore_signals_and_end_with_the_generator():
    batches = make_batches(lambda _task, _begin: os.getpid(), iter(range(8)), 1)
    worker = next(batches)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(worker, number)
    assert next(batches) == worker
    batches.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_prefetch_prepares_the_next_batch_and_passes_on_errors():
    stopped = []
    assert list(prefetch((n for n in range(5)), lambda n: n + 1, lambda: None)) == [1, 2, 3, 4, 5]
    with pytest.raises(ZeroDivisionError):
        list(prefetch((n for n in (1, 0)), lambda n: 1 / n, lambda: None))
    endless = prefetch(iter_forever(), lambda n: n, lambda: stopped.append(True))
    assert [next(endless) for _ in range(3)] == [0, 1, 2]
    endless.close()
    assert stopped == [True]


def iter_forever():
    number = 0
    while True:
        yield number
        number += 1


def test_limit_of_open_files_is_raised():
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        raise_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_limit_of_open_files_is_raised_without_a_hard_limit(monkeypatch):
    """As on macOS: there is no hard limit, but a soft limit above a system constant is refused."""
    limits = [(256, resource.RLIM_INFINITY)]

    def limit(_which, wanted):
        if wanted[0] > 10_240:
            raise ValueError("not allowed")
        limits.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", limit)
    raise_open_files()
    assert 5_120 < limits[-1][0] <= 10_240


def test_worker_does_not_garbage_collect_its_parents_objects():
    """Garbage collection would copy the parent's memory into every worker."""
    held = [[k] for k in range(5000)]
    before = gc.get_freeze_count()
    assert next(make_batches(lambda _task, _begin: gc.get_freeze_count(), iter([1]), 1)) >= before + len(held)


def test_task_larger_than_a_pipe_does_not_block_the_next_one(tmp_path, monkeypatch):
    """Otherwise the training process would wait for each batch in turn, and hang with a hanging worker."""
    monkeypatch.setattr(workers, "AHEAD", 3)
    second_sent = tmp_path / "second_sent"

    def tasks():
        yield "a" * 10**6
        yield "b" * 10**6
        second_sent.touch()  # the second task has been sent
        yield "c" * 10**6

    def make(task, begin):
        for _ in range(50):
            if second_sent.exists():
                return task[0], len(task)
            time.sleep(0.1)
        return "late", len(task)

    assert list(make_batches(make, tasks(), 1)) == [(name, 10**6) for name in "abc"]


def test_task_without_free_memory_is_one_line(monkeypatch):
    def full(_name):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(InputError, match=r"Cannot allocate memory.*--workers"):
        list(make_batches(lambda task, _begin: len(task), iter(["a" * 10**6]), 1))
