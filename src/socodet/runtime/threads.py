"""Work done by a few threads at once, with the results in the order of the tasks."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextvars import copy_context
from multiprocessing.pool import AsyncResult, ThreadPool
from typing import TypeVar, cast

from socodet.errors import InputError
from socodet.runtime.notices import log_note

T = TypeVar("T")
R = TypeVar("R")

THREADS, TOGETHER = 8, 64
"""How many files are opened at once, and how many a thread takes before its results are handed over."""
TICK = 1.0
WAIT_NOTE_SECONDS, HANGS_AFTER = 60, 1800
"""Ticks after which a message names the task that is waited for, and after which it is given up."""


def map_in_order(
    function: Callable[[T], R], tasks: Iterable[T], workers: int, name: Callable[[T], str] = str
) -> Generator[tuple[T, R], None, None]:
    """Each task with its result, in the order of the tasks; at most 4 · `workers` are queued, so memory is bounded.

    Threads are enough, since decoders and kernels release the interpreter lock: of the 5 ms that selective search
    takes for an image, a thread holds it for less than 0.2. They measured as fast as processes, which outlive a
    parent that is killed.

    The function sees the context variables of the caller. name: what a task is about, for messages. InputError for a
    task without a result after `HANGS_AFTER` seconds, as when a network drive does not answer; its thread does not keep
    the process from ending.
    """

    def caught(task: T) -> tuple[R | None, BaseException | None]:
        try:
            return function(task), None
        except BaseException as error:  # it would end the thread, and no result would ever come
            return None, error

    pool = ThreadPool(workers)
    queued: deque[tuple[T, AsyncResult[tuple[R | None, BaseException | None]]]] = deque()
    try:
        for task in tasks:
            queued.append((task, pool.apply_async(copy_context().run, (caught, task))))
            if len(queued) > 4 * workers:
                first, result = queued.popleft()
                yield first, _wait_for_result(result, first, name)
        for first, result in queued:
            yield first, _wait_for_result(result, first, name)
    finally:
        pool.terminate()  # drops queued tasks; running ones end by themselves


def map_files(function: Callable[[T], R], files: Sequence[T], name: Callable[[T], str] = str) -> Iterator[R]:
    """`function` of each file, in their order, several at once: on a network drive, opening one takes a while."""

    def some(first: int) -> list[R]:
        return [function(file) for file in files[first : first + TOGETHER]]

    firsts = range(0, len(files), TOGETHER)
    for _, results in map_in_order(some, firsts, min(THREADS, len(firsts) or 1), lambda first: name(files[first])):
        yield from results


def _wait_for_result(
    result: AsyncResult[tuple[R | None, BaseException | None]], task: T, name: Callable[[T], str]
) -> R:
    """Waits tick by tick, not by the clock: a process that is stopped and continued has not hung."""
    for ticks in range(1, HANGS_AFTER + 1):
        try:
            value, error = result.get(TICK)
        except multiprocessing.TimeoutError:
            if ticks % WAIT_NOTE_SECONDS == 0:
                log_note(f"waiting for {name(task)}, for {ticks * TICK:.0f} s")
            continue
        if error is not None:
            raise error
        return cast(R, value)
    raise InputError(
        f"{name(task)}: has not been read in {HANGS_AFTER * TICK:.0f} s; check the disk or network it is on; the same "
        "command resumes"
    )
