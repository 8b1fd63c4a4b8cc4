"""Data workers: processes that make batches, in order, and are replaced when they die or hang."""

import contextlib
import gc
import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from socodet.errors import InputError, is_out_of_memory
from socodet.runtime.notices import log_note
from socodet.runtime.process import raise_open_files
from socodet.training import one_buffer
from socodet.training.signals import STOPPING
from socodet.training.worker_progress import WorkerProgress

T = TypeVar("T")
B = TypeVar("B")
Begin = Callable[[str], None]
"""Called with the name of each image that is begun."""
Make = Callable[[T, Begin], B]

FORKED = sys.platform.startswith("linux")
AHEAD = 2
"""How many batches a worker makes ahead."""
IN_PIPE = 2**12
"""Maximum size of a task, in bytes, that fits into a pipe beside others; sending a larger one would block until it is
read. macOS's pipes hold 8 KiB."""
TICK = 1.0
WAIT_NOTE_SECONDS, HANGS_AFTER = 30, 300
"""Ticks without a new image after which a message calls a worker slow, and after which it is replaced."""
TRIES = 3
"""How many workers may be lost with the same batch."""


class _LostError(Exception):
    """A worker died or hangs; the message says how, and at which image."""


def make_batches(
    make: Make[T, B], tasks: Iterable[T], workers: int, *, pin_on: torch.device | None = None
) -> Generator[B, None, None]:
    """Yields `make(task)` for each task, in order, computed by `workers` processes; with 0, by this one.

    A worker that dies, as when the kernel kills it to free memory, or makes no progress for `HANGS_AFTER` seconds is
    replaced, and its batches are made again. InputError when `TRIES` workers are lost with the same batch. Workers
    start with the first batch and end when the generator is closed. pin_on: a CUDA device; a thread then puts batches
    into page-locked memory.
    """
    if workers == 0:
        batches = (make(task, lambda _name: None) for task in tasks)
        return batches if pin_on is None else (batch.pin_memory() for batch in batches)  # type: ignore[attr-defined]
    cancelled = threading.Event()
    batches = _batches(make, tasks, workers, cancelled)
    if pin_on is None:
        return batches

    def pinned(batch: Any) -> Any:
        torch.cuda.set_device(pin_on)  # for this thread
        return batch.pin_memory()

    return prefetch(batches, pinned, cancelled.set)


def prefetch(
    batches: Generator[B, None, None], prepare: Callable[[B], B], stop: Callable[[], None]
) -> Generator[B, None, None]:
    """Yields `prepare(batch)`, computed by a thread while the batch before is used. stop: makes `batches` end soon."""
    ready: queue.Queue[tuple[B | None, BaseException | None]] = queue.Queue(1)
    stopped = threading.Event()

    def put(batch: B | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((batch, error), timeout=0.1)
                return

    def work() -> None:
        try:
            for batch in batches:
                put(prepare(batch), None)
                if stopped.is_set():
                    return
            put(None, None)
        except BaseException as error:
            put(None, error)
        finally:
            batches.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            if batch is None:
                return
            yield batch
    finally:
        stopped.set()
        stop()
        thread.join(10)


class _Worker(Generic[T, B]):
    """One worker process, and the tasks it was given."""

    def __init__(self, make: Make[T, B], cancelled: threading.Event) -> None:
        self._make, self._cancelled = make, cancelled
        self.asked: deque[T] = deque()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork" if FORKED else None)
        self._progress = WorkerProgress()
        self._held: deque[bytes] = deque()
        # A signal to the process group before the worker ignores signals would be taken for one to the parent.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            # Two pipes: on macOS, a descriptor is acknowledged on the one it came by, where nothing else may be sent.
            (self._tasks, their_tasks), (self._answers, their_answers) = context.Pipe(), context.Pipe()
            given = self._make, their_tasks, their_answers, self._progress, os.getpid()
            process = context.Process(target=_serve, args=given, daemon=True)
            with warnings.catch_warnings():  # of Python 3.12 and later, which -W may turn into errors
                warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
                process.start()
            self._process = process
            their_tasks.close()
            their_answers.close()
        except OSError as error:
            raise InputError(f"data workers: cannot be started ({error.strerror}); lower --workers") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def ask(self, task: T) -> None:
        """Requests one more batch, without waiting for the process, whatever the size of the task."""
        self.asked.append(task)
        self._send(task)

    def _send(self, task: T) -> None:
        pickled = pickle.dumps(task)
        fits = len(pickled) <= IN_PIPE
        if FORKED or (fits and not self._held):
            self._send_pickled(pickled if fits else np.frombuffer(pickled, np.uint8))
            return
        self._held.append(pickled)  # not by descriptor, which the worker would have to acknowledge
        self._send_held()

    def _send_held(self) -> None:
        """Sends the first task that does not fit, once the process has nothing else to do and reads it."""
        if self._held and len(self._held) == len(self.asked):
            self._send_pickled(self._held.popleft())

    def _send_pickled(self, pickled: bytes | NDArray[np.uint8]) -> None:
        """Sends a task; that a worker has died is noticed when its batch is taken."""
        try:
            one_buffer.send(self._tasks, pickled)
        except ConnectionError:
            pass
        except OSError as error:
            raise _sending_error(error) from None

    def take(self) -> B:
        """The batch of the oldest pending task. InputError when workers are lost with it again and again."""
        for attempt in range(1, TRIES + 1):
            try:
                batch = self._take()
            except _LostError as lost:
                if attempt == TRIES:
                    raise InputError(
                        f"data workers: {TRIES} were lost with the same batch, the last one {lost}; give more memory, "
                        "lower --workers or --batch-size, or use --workers 0 to see why"
                    ) from None
                log_note(f"a data worker {lost}; another one takes its place")
                self.end()
                self._start()
                again, self.asked = self.asked, deque()
                for task in again:
                    self.ask(task)
            else:
                self.asked.popleft()
                self._send_held()
                return batch
        raise AssertionError

    def _take(self) -> B:
        """Waits tick by tick, not by the clock: a process that is stopped and continued has not hung."""
        silent, known = 0, self._progress.read()
        while not self._answers.poll(TICK):
            if self._cancelled.is_set():
                raise KeyboardInterrupt
            now = self._progress.read()
            silent, known = (0 if now != known else silent + 1), now
            if silent == WAIT_NOTE_SECONDS:
                at = f", which is at {known[1]}" if known[1] else ""
                log_note(f"still waiting, after {silent * TICK:.0f} s, for a data worker{at}")
            if silent >= HANGS_AFTER and FORKED:
                raise _LostError(f"made no progress for {silent * TICK:.0f} s at {known[1]}")
        try:
            answer, error = one_buffer.receive(self._answers)
        except (EOFError, OSError):
            self._process.join(TICK)
            code = self._process.exitcode
            name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            why = ", often because memory ran out" if name == "SIGKILL" else ""
            raise _LostError(f"ended by {name}{why}, at {self._progress.read()[1] or 'its start'}") from None
        if isinstance(error, Exception):
            raise error
        if error is not None:
            raise RuntimeError(f"in a data worker:\n{error}")
        result: B = answer
        return result

    def end(self) -> None:
        """Ends the process: it holds nothing that would be lost."""
        self._process.kill()
        self._process.join(10)
        self._tasks.close()
        self._answers.close()


def _batches(make: Make[T, B], tasks: Iterable[T], count: int, cancelled: threading.Event) -> Generator[B, None, None]:
    """Batch n comes from worker n modulo `count`. Another thread can set `cancelled`, which ends a wait for a batch."""
    raise_open_files()
    left = iter(tasks)
    workers: list[_Worker[T, B]] = []
    try:
        workers += (_Worker(make, cancelled) for _ in range(count))
        for _, worker in itertools.product(range(AHEAD), workers):
            for task in itertools.islice(left, 1):
                worker.ask(task)
        for worker in itertools.cycle(workers):
            if not worker.asked:
                return
            taken = [worker.take()]
            for task in itertools.islice(left, 1):
                worker.ask(task)
            yield taken.pop()  # whose memory is free when the caller lets go of it
    finally:
        for worker in workers:
            worker.end()


def _serve(make: Make[T, B], tasks: Connection, answers: Connection, progress: WorkerProgress, parent: int) -> None:
    """A worker's main loop, in one thread; signals are ignored, as the training loop decides when workers end."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)  # the parent's
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    torch.set_num_threads(1)
    gc.freeze()  # collecting the parent's objects would copy their memory
    while True:
        while not tasks.poll(5 * TICK):
            if os.getppid() != parent:  # the parent was killed
                return
        try:
            task = pickle.loads(one_buffer.receive(tasks))
        except (EOFError, OSError):
            return
        try:
            answer: tuple[B | None, Exception | str | None] = make(task, progress.begin), None
        except (InputError, OSError) as error:
            answer = None, error
        except Exception as error:
            lack = InputError("data workers: not enough memory; lower --workers or --batch-size")
            answer = None, lack if is_out_of_memory(error) else traceback.format_exc()
        try:
            one_buffer.send(answers, answer)
        except ConnectionError:
            return
        except OSError as error:
            one_buffer.send(answers, (None, _sending_error(error)))
        del answer  # a batch; its memory is free while the next one is made


def _sending_error(error: OSError) -> InputError:
    return InputError(
        f"data workers: a batch cannot be handed over ({error.strerror}); lower --workers or --batch-size"
    )
