"""When checkpoints are due, how they are written while training continues, and what happens if one cannot be."""

import errno
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from socodet.errors import InputError
from socodet.runtime.notices import log_note, log_while_waiting
from socodet.training.checkpoint_file import copy_to_cpu, find_damage
from socodet.training.run_folder import RunFolder

CHECKPOINT_SECONDS = 600.0
WAIT_NOTE_SECONDS, GIVEN_UP_AFTER = 60.0, 1800.0
"""Seconds that writing a checkpoint may take until a message says so, and until it has failed, as on a dead drive."""
RETRY_SECONDS = 60.0
"""Time between a failed attempt and the next."""


@dataclass(frozen=True)
class Kept:
    """Which checkpoints are kept for good: the first one after every `every` epochs."""

    every: int | None
    epochs: float | None
    steps: int

    def epoch(self, step: int) -> int | None:
        """The epoch that ends with this step, if the checkpoint after it is kept."""
        if self.every is None or not self.epochs:
            return None
        periods = math.floor(step / self.steps * self.epochs / self.every + 1e-9)
        before = math.floor((step - 1) / self.steps * self.epochs / self.every + 1e-9)
        return periods * self.every if periods > before else None


class Checkpoints:
    """The checkpoints of one call; `state` gives what is saved.

    Each is written by a thread from a copy in CPU memory: training waits only for the copy, and for the one before.
    """

    def __init__(
        self, run: RunFolder, state: Callable[[], Mapping[str, Any]], every: int | None, kept: Kept | None = None
    ) -> None:
        self.run, self._state, self._every, self._kept = run, state, every, kept or Kept(None, None, 1)
        self._tried_at = time.monotonic()
        self._failed = False
        self._writing: _Writing | None = None
        self._saved = 0
        self._owed: int | None = None
        """The epoch whose checkpoint is to be kept for good and has not been written yet."""

    @property
    def saved(self) -> int:
        """The step of the last checkpoint that this call saved; waits until it is written."""
        self._finish(last=False)
        return self._saved

    def resumed(self, step: int) -> None:
        """To be called when a run resumes after this step: removes half-written files and adds missing epoch names.

        A process may have been killed after it wrote a checkpoint and before it gave it an epoch's name. Damaged
        checkpoints of later steps are removed too: counted among the newest, they would displace good ones.
        """
        self.run.remove_unfinished()
        for later in (path for path in self.run.checkpoints() if path.stem > self.run.checkpoint(step).stem):
            with suppress(OSError):
                if find_damage(later) is not None:
                    later.unlink()
        there = self.run.checkpoint(step)
        epoch = self._kept.epoch(step)
        if epoch is not None and there.exists() and not self.run.kept(epoch).exists():
            try:
                self.run.keep(there, epoch)
            except OSError as error:
                self._complain(error, last=False)

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after this step."""
        if self._writing is not None and self._writing.ended:
            self._finish(last=False)
        if self._kept.epoch(step) is not None:
            return True
        passed = time.monotonic() - self._tried_at
        if self._failed and passed > RETRY_SECONDS:
            return True
        return step % self._every == 0 if self._every else passed > CHECKPOINT_SECONDS

    def save(self, step: int, *, last: bool, writes: bool = True) -> None:
        """Saves a checkpoint; `writes` is false in all processes but the first. The `last` is on disk on return.

        If it cannot be written, a message says so, at the latest at the next call, and training continues; if it is
        the `last`, that is an InputError. The newest one saved before is still there, and no unfinished file.
        """
        self._tried_at = time.monotonic()
        if not writes:
            self._saved = step
            return
        self._finish(last=False)
        epoch = self._kept.epoch(step)
        self._owed = self._owed if epoch is None else epoch
        self._writing = _Writing(self.run, step, self._owed, self._state(), at_once=last)
        if last:
            self._finish(last=True)

    def close(self) -> None:
        """Waits until the newest checkpoint is written."""
        self._finish(last=False)

    def _finish(self, *, last: bool) -> None:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        error = writing.wait()
        if error is not None:
            self._failed = True
            self._complain(error, last=last)
            return
        if self._failed:
            log_note(f"{self.run.checkpoint(writing.step)}: checkpoints are saved again")
        self._failed = False
        self._owed = None
        self._saved = writing.step

    def _complain(self, error: OSError, *, last: bool) -> None:
        there = self.run.checkpoints()
        newest = f"the newest checkpoint is {there[-1].name}" if there else "there is no checkpoint yet"
        why = f"{error.filename or self.run.path}: cannot be written ({error.strerror or error}); {newest}"
        if last:
            raise InputError(f"{why}; free some space on that disk; the same command resumes from there") from None
        log_note(f"{why}; training continues and tries again; free some space on that disk")


class _Writing:
    """One checkpoint on its way to the disk."""

    def __init__(
        self, run: RunFolder, step: int, epoch: int | None, state: Mapping[str, Any], *, at_once: bool
    ) -> None:
        self._run, self.step, self._epoch = run, step, epoch
        self._error: BaseException | None = None
        self._state: Mapping[str, Any] | None = state if at_once else copy_to_cpu(state)
        self._thread = threading.Thread(target=self._write, name="checkpoint", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        try:
            assert self._state is not None
            self._run.save_checkpoint(self.step, self._state, self._epoch)
        except BaseException as error:
            self._error = error
        finally:
            self._state = None  # frees its memory

    @property
    def ended(self) -> bool:
        """Whether it is on disk, or could not be written."""
        return self._state is None

    def wait(self) -> OSError | None:
        """Waits until it is written; returns the error if it could not be."""
        file = str(self._run.checkpoint(self.step))
        with log_while_waiting(f"{file}: waiting until it is written", WAIT_NOTE_SECONDS):
            self._thread.join(GIVEN_UP_AFTER)
        if self._thread.is_alive():
            return OSError(errno.ETIMEDOUT, f"not written within {GIVEN_UP_AFTER:.0f} s", file)
        if self._error is None or isinstance(self._error, OSError):
            return self._error
        raise self._error
