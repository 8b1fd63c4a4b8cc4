import threading
import time
from contextvars import ContextVar

import pytest

from socodet.errors import InputError
from socodet.runtime import threads
from socodet.runtime.threads import map_in_order


def test_tasks_run_concurrently_and_results_keep_their_order():
    together = threading.Barrier(3, timeout=10)

    def work(task):
        together.wait()  # needs three concurrent tasks
        return task * task

    assert list(map_in_order(work, range(30), 3)) == [(task, task * task) for task in range(30)]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_is_raised_in_place_of_its_result(error):
    def work(task):
        if task == 2:
            raise error
        return -task

    done = map_in_order(work, range(9), 2)
    assert [next(done), next(done)] == [(0, 0), (1, -1)]
    with pytest.raises(error):
        next(done)


def test_tasks_are_started_only_a_little_ahead():
    begun = []
    results = map_in_order(begun.append, range(1000), 2)
    next(results)
    assert len(begun) <= 9
    results.close()
    assert len(begun) <= 9


def test_a_hanging_task_is_named_and_abandoned(monkeypatch, capsys):
    monkeypatch.setattr(threads, "TICK", 0.01)
    monkeypatch.setattr(threads, "WAIT_NOTE_SECONDS", 5)
    monkeypatch.setattr(threads, "HANGS_AFTER", 12)
    ever = threading.Event()
    began = time.monotonic()
    with pytest.raises(InputError, match=r"b\.jpg: has not been read"):
        list(map_in_order(lambda name: name == "b.jpg" and ever.wait(20), ["a.jpg", "b.jpg", "c.jpg"], 2))
    assert time.monotonic() - began < 10
    assert capsys.readouterr().err.count("waiting for b.jpg, for") == 2
    ever.set()


def test_tasks_run_in_the_callers_context():
    asked = ContextVar("asked", default="nothing")
    asked.set("this")
    assert [result for _, result in map_in_order(lambda _: asked.get(), range(20), 3)] == ["this"] * 20
