"""The loop around every kind of training: stopping, checkpoints, log and progress; what is learned is a `Learner`'s."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from socodet.errors import InputError
from socodet.runtime.progress import progress_bar
from socodet.runtime.world import World
from socodet.training.distributed import agree_flags, same_everywhere
from socodet.training.log import RunLog
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.signals import stop_requests

CHECKPOINT_SECONDS = 600.0

B = TypeVar("B")


class DivergedError(InputError):
    """The loss, the gradients or the weights are NaN or infinite; `step` is the one at which the loop found it."""

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step


class Learner(ABC, Generic[B]):
    """Networks, their optimiser and the step they are at; `B` is what a data loader hands out for one step."""

    world: World
    device: torch.device
    total: int
    """Optimiser steps of the whole run."""
    finished: int
    """Of them done."""
    when_diverged = "lower the learning rate"
    """How the user mends a divergence."""
    when_too_large = "lower --batch-size"
    """How the user mends a batch that does not fit into memory."""

    @abstractmethod
    def step(self, batch: B) -> object:
        """One optimiser step on a batch in CPU memory, counted in `finished`; never waits for the device.

        What it returns is not looked at. DivergedError when the step itself finds that there is no going on.
        """

    @abstractmethod
    def figures(self, seconds: float, waited: float) -> dict[str, Any]:
        """What to log of the steps since the last call, `step` among it; may wait for the device.

        seconds: since the last call. waited: of them, for the data. Called at the same steps in all processes.
        """

    @abstractmethod
    def short_figures(self) -> str:
        """What the progress bar shows, of the last log line: `loss 1.234  lr 0.01`."""

    @abstractmethod
    def check_finite(self) -> str | None:
        """What is NaN or infinite, in words; None when nothing is. The same answer in all processes."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that going on from here needs, for `torch.load(weights_only=True)`."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state. InputError when it is that of another run."""

    @abstractmethod
    def images(self, batch: B) -> int:
        """Images of this process's batch."""

    def agree(self, batch: B, flags: tuple[bool, ...]) -> tuple[B, tuple[bool, ...]]:
        """The batch as all processes will treat it, and each of `flags` where any process has it."""
        return batch, agree_flags(self.world, flags)


@dataclass(frozen=True)
class LoopResult:
    """How far a loop came."""

    stopped_by: str | None
    """A signal, `max_steps`, or None when every step was done."""
    seconds: float
    """From the first batch's arrival to the end, without `after_step`."""
    waited: float
    """Of them, for data."""


def go_on_from(run: RunFolder, learner: Learner[Any], *, resume: bool, show_progress: bool) -> None:
    """Loads the folder's newest checkpoint, if there is one.

    InputError when the run is finished, unless `resume`, and when the processes see different folders.
    """
    state = run.load_checkpoint()
    if state is not None:
        learner.load_state_dict(state)
    if not same_everywhere(learner.world, learner.finished):
        raise InputError(f"{run.path}: is not the same folder for all processes; put --output on a disk that all share")
    if state is None:
        return
    if learner.finished == learner.total and not resume:
        raise InputError(f"{run.path}: holds a finished run; give another --output or pass --overwrite")
    if show_progress and learner.finished < learner.total:
        print(f"resuming {run.path} at step {learner.finished} of {learner.total}", file=sys.stderr)


def usual_log_every(total: int) -> int:
    """Steps between the log lines of a run of so many, where the user names no number."""
    return min(50, max(1, total // 500))


def last_step(learner: Learner[Any], execution: ExecutionSettings) -> int:
    """The step at which this call ends: the run's last, or `max_steps` further."""
    if execution.max_steps is None:
        return learner.total
    return min(learner.total, learner.finished + execution.max_steps)


def loader_batches(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """The loader's batches. Its workers start when the first is asked for and end when the generator is closed.

    Deaf to signals, a worker must be told to end, also by an error, or it is waited for at exit for ever.
    """
    batches = iter(loader)
    try:
        yield from batches
    except InputError as error:  # with a worker's traceback before it
        last = str(error).strip().splitlines()[-1]
        raise InputError(last.partition(": ")[2] if "\n" in str(error) else last) from error
    finally:
        getattr(batches, "_shutdown_workers", lambda: None)()


def run_loop(
    learner: Learner[B],
    batches: Iterator[B],
    run: RunFolder,
    execution: ExecutionSettings,
    *,
    description: str,
    epochs: float | None = None,
    show_progress: bool = True,
    after_step: Callable[[int], Mapping[str, Any] | None] | None = None,
) -> LoopResult:
    """Trains from where the learner stands to the end, or to `max_steps`, or until asked to stop.

    batches: one a step from `learner.finished` on, in CPU memory; a generator is closed at the end, whatever
    happened. description: what the progress bar is headed. epochs: of the whole run, to log how many are done.
    after_step: called in every process with the number of finished steps, before that step's checkpoint, so that
    what it was amid when the process died is done again; what it returns becomes a log line of its own.

    SIGINT and SIGTERM end it after the step under way, with a checkpoint; a second SIGINT ends it at once.
    DivergedError when the learner's loss, gradients or weights are no longer finite; the newest checkpoint is good.
    """
    world = learner.world
    start, stop = learner.finished, last_step(learner, execution)
    log_every = execution.log_every or usual_log_every(learner.total)
    saved_at = time.monotonic()
    stopped_by: str | None = None
    clock = _Clock()
    with (
        RunLog(run, start, enabled=world.is_first) as log,
        stop_requests(show_progress) as requests,
        progress_bar(description, learner.total, show=show_progress and world.is_first) as progress,
        ExitStack() as stack,
    ):
        if isinstance(batches, Generator):
            stack.callback(batches.close)
        progress.done_earlier(start)
        while learner.finished < stop:
            batch = clock.wait_for(batches)
            every, following = execution.checkpoint_every, learner.finished + 1
            due = following % every == 0 if every else time.monotonic() - saved_at > CHECKPOINT_SECONDS
            # What one process decides by its clock or a signal, all do at the same step.
            batch, (due, asked_to_stop) = learner.agree(batch, (due, bool(requests)))
            images = learner.images(batch) * world.size
            try:
                learner.step(batch)
            except DivergedError as error:
                raise _diverged(learner, run, str(error)) from None
            except RuntimeError as error:
                too_large = _too_large(error, learner, images)
                if too_large is None:
                    raise
                raise too_large from error
            clock.images += images
            done = learner.finished
            save = due or asked_to_stop or done == stop
            if done % log_every == 0 or save:  # before a checkpoint could keep what is not finite
                problem = learner.check_finite()
                if problem is not None:
                    raise _diverged(learner, run, problem)
                log.write(_line(learner, clock, epochs))  # also at a checkpoint: each step is in just one line
            progress.advance(units=images, figures=learner.short_figures())
            if after_step is not None:
                with clock.stopped():
                    figures = after_step(done)
                if figures:
                    log.write({"step": done, **figures})
            if save:
                if world.is_first:
                    run.save_checkpoint(done, learner.state_dict())
                saved_at = time.monotonic()
            if asked_to_stop:
                stopped_by = requests[0] if requests else "another process"
                break
    if requests and stopped_by is None:  # asked amid the last step
        stopped_by = requests[0]
    if stopped_by is None and learner.finished < learner.total:
        stopped_by = "max_steps"
    return LoopResult(stopped_by, *clock.whole())


def _line(learner: Learner[Any], clock: "_Clock", epochs: float | None) -> dict[str, Any]:
    seconds, waited = clock.window()
    line: dict[str, Any] = {"step": learner.finished}
    if epochs is not None:
        line["epoch"] = learner.finished / learner.total * epochs
    line |= learner.figures(seconds, waited)
    line |= {"images_per_second": clock.images / seconds, "data_wait": waited / seconds}
    clock.next_window()
    return line


class _Clock:
    """Time that went by, and the part of it that was spent waiting for data: of a log window, and of the whole."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._whole_waited = 0.0
        self.next_window()

    def next_window(self) -> None:
        """A log window begins."""
        self._start, self._waited = time.monotonic(), 0.0
        self.images = 0

    def wait_for(self, batches: Iterator[B]) -> B:
        """The next batch."""
        asked = time.monotonic()
        batch = next(batches)
        now = time.monotonic()
        self._waited += now - asked
        if self._begun is None:  # the first wait is for the workers to start
            self._begun = now
        else:
            self._whole_waited += now - asked
        return batch

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done within takes no time."""
        before = time.monotonic()
        yield
        passed = time.monotonic() - before
        self._start += passed
        if self._begun is not None:
            self._begun += passed

    def window(self) -> tuple[float, float]:
        """Seconds of this log window, and of them waited."""
        return time.monotonic() - self._start, self._waited

    def whole(self) -> tuple[float, float]:
        """Seconds since the first batch came, and of them waited."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun, self._whole_waited


def _diverged(learner: Learner[Any], run: RunFolder, problem: str) -> DivergedError:
    saved = run.checkpoints()
    last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
    return DivergedError(
        f"{run.path}: diverged by step {learner.finished} ({problem}); {last}; {learner.when_diverged}",
        learner.finished,
    )


def _too_large(error: RuntimeError, learner: Learner[Any], images: int) -> InputError | None:
    """One line when memory ran out in a step, None for any other error."""
    if not any(sign in str(error) for sign in ("out of memory", "can't allocate memory")):
        return None
    return InputError(
        f"a batch of {images} images does not fit into the memory of {learner.device}; {learner.when_too_large}"
    )
