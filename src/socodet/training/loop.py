"""The training loop: stopping, checkpoints, log and progress. What is trained, and how, is up to a `Learner`."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

from socodet.errors import InputError, is_out_of_memory
from socodet.runtime.extensions import resolve_extension
from socodet.runtime.log import LOGGER
from socodet.runtime.progress import progress_bar
from socodet.runtime.world import World
from socodet.training.checkpoint_file import unsupported_value
from socodet.training.checkpoints import Checkpoints, Kept
from socodet.training.clock import Clock
from socodet.training.distributed import equal_in_all_processes, in_every_process, lost_process, set_training_timeout
from socodet.training.learner import B, DivergedError, Learner, StoppedEarlyError
from socodet.training.log import FAILED, FINISHED, KILLED, LogSink, Sinks, folder_sinks
from socodet.training.run_folder import LISTED_AGAIN, RunFolder
from socodet.training.settings import PATIENCE, ExecutionSettings
from socodet.training.signals import stop_requests
from socodet.training.trackers import TRACKERS

NOT_SHARED = "is not the same folder for all processes; put --output on a disk that they share"


@dataclass(frozen=True)
class LoopResult:
    """How a call of `run_loop` ended."""

    stopped_by: str | None
    """The name of a signal, `max_steps`, `patience`, or None when every step was done."""
    seconds: float
    """From the first batch's arrival to the end, without `after_step`."""
    waited: float
    """How many of these seconds were spent waiting for data."""


def require_shared_folder(run: RunFolder, world: World) -> None:
    """InputError, in every process, unless all see the run that the first has begun in the folder."""
    for pause in LISTED_AGAIN:
        if run.exists():
            break
        time.sleep(pause)
    if not all(equal_in_all_processes(world, int(run.exists()))):
        raise InputError(f"{run.path}: {NOT_SHARED}")


def resume_from_checkpoint(run: RunFolder, learner: Learner[Any], *, resume: bool, show_progress: bool) -> None:
    """Loads the folder's newest checkpoint, if there is one. A learner that has finished steps needs none.

    Raises InputError when the run is finished and `resume` is false, when the processes see different folders, or when
    the learner, parts of which may be the user's, has something that a checkpoint cannot hold.
    """
    lost = unsupported_value(learner.state_dict())
    if lost is not None:
        raise InputError(
            f"{run.path}: a checkpoint cannot hold {lost}, so the run could not be resumed; make it a tensor, text or "
            "a Python number"
        )
    state = run.load_checkpoint()
    if state is not None:
        learner.load_state_dict(state)
    if not all(equal_in_all_processes(learner.world, learner.finished)):
        raise InputError(f"{run.path}: {NOT_SHARED}")
    if not learner.finished:
        return
    if learner.finished == learner.total and not learner.pending and not resume:
        raise InputError(
            f"{run.path}: holds a finished run; pass --resume to leave it so without an error, --overwrite "
            "to train again, or give another --output"
        )
    if show_progress and (learner.finished < learner.total or learner.pending):
        LOGGER.info(f"resuming {run.path} at step {learner.finished} of {learner.total}")


def default_log_every(total: int) -> int:
    """Steps between log lines in a run of `total` steps, unless the user sets it."""
    return min(50, max(1, total // 500))


def last_step(learner: Learner[Any], execution: ExecutionSettings) -> int:
    """The step at which this call ends: the run's last, or `max_steps` from here."""
    if execution.max_steps is None:
        return learner.total
    return min(learner.total, learner.finished + execution.max_steps)


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
    enough: Callable[[], bool] | None = None,
    sinks: Sequence[LogSink] = (),
) -> LoopResult:
    """Trains from `learner.finished` to the end, to `max_steps`, or until asked to stop.

    batches: one per step, in CPU memory; a generator is closed at the end, whatever happens. description: the progress
    bar's title. epochs: length of the whole run, to log the current epoch. after_step: called in every process with the
    number of finished steps, before that step's checkpoint, so that interrupted work is repeated on resume; its return
    value becomes a log line of its own. If it raises StoppedEarlyError, the run stops with a checkpoint that says so,
    and a resumed run begins with that work; after DivergedError, the run ends as after a step that diverges; after any
    other exception, a single process saves such a checkpoint first. enough: called next; once it returns True, in every
    process alike, the run ends with a checkpoint, stopped by `patience`. sinks: where log lines go besides the run's
    folder and what `execution.sink` names; they are closed at the end.

    If no more data comes because data workers are lost, a checkpoint is saved before the error. A checkpoint or log
    line that cannot be written does not end the run, unless it is the last.
    The signals of `stop_requests` stop the loop after the current step, with a checkpoint; a second one at once.
    Raises DivergedError when the loss, gradients or weights are no longer finite; the newest checkpoint is good.
    """
    world = learner.world
    start, stop = learner.finished, last_step(learner, execution)
    log_every = execution.log_every or default_log_every(learner.total)
    kept = Kept(execution.keep_every, epochs, learner.total)
    checkpoints = Checkpoints(run, learner.state_dict, execution.checkpoint_every, kept)
    stopped_by: str | None = None
    clock = Clock()
    if world.is_first:
        checkpoints.resumed(start)
    set_training_timeout()
    with (
        stop_requests(show_progress) as requests,
        progress_bar(description, learner.total, show=show_progress and world.is_first) as progress,
        ExitStack() as stack,
    ):
        log = Sinks(sinks if world.is_first else ())

        def close_log(error: type[BaseException] | None, *_: object) -> None:
            if error is None:
                log.close(FINISHED if stopped_by in (None, PATIENCE) else KILLED)
            else:
                log.close(FAILED if issubclass(error, Exception) else KILLED)

        stack.push(close_log)
        with in_every_process(world, f"{run.path}: the first process could not begin its log; see its message"):
            if world.is_first:
                own = (
                    folder_sinks(run, start) if learner.pending or start < stop else ()
                )  # a finished run stays as it is
                log.add(chain(own, _named(execution.sink, run)))
        stack.callback(checkpoints.close)
        if isinstance(batches, Generator):
            stack.callback(batches.close)
        progress.done_earlier(start)

        def follow(done: int) -> None:
            """Calls `after_step`, and logs what it returns."""
            if after_step is None:
                learner.pending = False
                return
            try:
                with clock.stopped(), progress.aside():
                    evaluated = after_step(done)
            except StoppedEarlyError:
                learner.pending = True
                return
            except DivergedError as error:
                raise _diverged(learner, checkpoints, str(error)) from None
            except Exception as error:
                if world.size == 1 and done > start:  # other processes may be waiting for this one in the evaluation
                    learner.pending = True
                    checkpoints.save(done, last=True)
                raise lost_process(error) or error from None
            learner.pending = False
            if evaluated:
                log.write(done, evaluated)

        if learner.pending:
            follow(start)
            if not learner.pending:
                checkpoints.save(start, last=start == learner.total, writes=world.is_first)
            if learner.pending:
                stopped_by, stop = requests[0] if requests else "another process", start
            elif enough is not None and enough() and start < learner.total:
                stopped_by, stop = PATIENCE, start
        batch: B | None = None
        while learner.finished < stop:
            failure: InputError | OSError | None = None
            first = batch is None
            try:
                batch = clock.wait_for(batches)
            except (InputError, OSError) as error:
                if batch is None:
                    raise
                failure = error  # the other processes learn of it with the previous batch
            if first:
                progress.begin()
            due = checkpoints.due(learner.finished + 1)
            # One process's clock, signal or failure decides for all of them, at the same step.
            batch, (due, asked_to_stop, failed) = learner.agree(batch, (due, bool(requests), failure is not None))
            if failed:
                raise _without_data(failure, learner, checkpoints)
            images = learner.images(batch) * world.size
            try:
                learner.step(batch)
            except DivergedError as error:
                raise _diverged(learner, checkpoints, str(error)) from None
            except RuntimeError as error:
                in_one_line = lost_process(error) or _too_large(error, learner, images)
                if in_one_line is None:
                    raise
                raise in_one_line from error
            clock.images += images
            done = learner.finished
            save = due or asked_to_stop or done == stop
            logged = done % log_every == 0 or save
            if logged:  # before a checkpoint could save weights that are not
                _check_finite(learner, checkpoints)
                log.write(done, _line(learner, clock, epochs))  # also at a checkpoint: a step is in one line only
            progress.advance(units=images, figures=learner.summary())
            follow(done)
            asked_to_stop = asked_to_stop or learner.pending
            ended = enough is not None and enough()
            if (ended or asked_to_stop) and not logged:
                _check_finite(learner, checkpoints)
                log.write(done, _line(learner, clock, epochs))
            if save or ended or asked_to_stop:
                checkpoints.save(done, last=asked_to_stop or ended or done == stop, writes=world.is_first)
            if asked_to_stop:
                stopped_by = requests[0] if requests else "another process"
                break
            if ended and done < learner.total:
                stopped_by = PATIENCE
                break
    if requests and stopped_by is None:  # asked during the last step
        stopped_by = requests[0]
    if stopped_by is None and learner.finished < learner.total:
        stopped_by = "max_steps"
    return LoopResult(stopped_by, *clock.whole())


def _named(names: Sequence[str], run: RunFolder) -> Iterator[LogSink]:
    """Creates the run's sinks of these names."""
    for name in names:
        if name in TRACKERS:
            yield TRACKERS[name](run.path)
        else:
            yield resolve_extension(name, LogSink, run.path)  # type: ignore[type-abstract]


def _line(learner: Learner[Any], clock: Clock, epochs: float | None) -> dict[str, Any]:
    seconds, waited = clock.window()
    line: dict[str, Any] = {}
    if epochs is not None:
        line["epoch"] = learner.finished / learner.total * epochs
    line |= learner.metrics(seconds, waited)
    seconds = max(seconds, 1e-9)
    line |= {"images_per_second": clock.images / seconds, "data_wait": waited / seconds}
    clock.next_window()
    return line


def _without_data(
    failure: InputError | OSError | None, learner: Learner[Any], checkpoints: Checkpoints
) -> InputError | OSError:
    """Saves a checkpoint, and returns the error that ends the run; `failure` is None if another process has it."""
    kept = ""
    if learner.finished and learner.check_finite() is None:
        if learner.finished > checkpoints.saved:
            checkpoints.save(learner.finished, last=True, writes=learner.world.is_first)
        kept = f"; step {learner.finished} is saved as a checkpoint, from which the same command resumes"
    return InputError(f"{failure or 'another process has no more data; see its message'}{kept}")


def _check_finite(learner: Learner[Any], checkpoints: Checkpoints) -> None:
    problem = learner.check_finite()
    if problem is not None:
        raise _diverged(learner, checkpoints, problem)


def _diverged(learner: Learner[Any], checkpoints: Checkpoints, problem: str) -> DivergedError:
    checkpoints.close()
    run = checkpoints.run
    saved = run.checkpoints()
    last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
    return DivergedError(
        f"{run.path}: diverged by step {learner.finished} ({problem}); {last}; {learner.when_diverged}",
        learner.finished,
    )


def _too_large(error: RuntimeError, learner: Learner[Any], images: int) -> InputError | None:
    """An error of one line when a step ran out of memory, None for any other error."""
    if not is_out_of_memory(error):
        return None
    return InputError(
        f"a batch of {images} images does not fit into the memory of {learner.device}; {learner.when_too_large}"
    )
