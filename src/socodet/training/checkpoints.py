"""When a loop's checkpoints are due, and what happens if one cannot be written."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from socodet.errors import InputError
from socodet.runtime.notices import say
from socodet.training.run_folder import RunFolder

CHECKPOINT_SECONDS = 600.0
RETRY_SECONDS = 60.0
"""Time until the next attempt, after a failed one."""


class Checkpoints:
    """The checkpoints of one call; `state` gives what is saved."""

    def __init__(self, run: RunFolder, state: Callable[[], Mapping[str, Any]], every: int | None) -> None:
        self._run, self._state, self._every = run, state, every
        self._tried_at = time.monotonic()
        self._failed = False
        self.saved = 0
        """The step of the last one that this call saved."""

    def due(self, step: int) -> bool:
        """Whether one is due after this step."""
        passed = time.monotonic() - self._tried_at
        if self._failed and passed > RETRY_SECONDS:
            return True
        return step % self._every == 0 if self._every else passed > CHECKPOINT_SECONDS

    def save(self, step: int, *, last: bool, here: bool = True) -> None:
        """Saves one; `here` is false in the processes that leave it to the first.

        If it cannot be written, a message says so and training continues; if it is the `last`, that is an InputError.
        The newest saved one is still there, and nothing unfinished.
        """
        self._tried_at = time.monotonic()
        if here:
            try:
                path = self._run.save_checkpoint(step, self._state())
            except OSError as error:
                self._complain(error, last=last)
                self._failed = True
                return
            if self._failed:
                say(f"{path}: saved again")
        self._failed = False
        self.saved = step

    def _complain(self, error: OSError, *, last: bool) -> None:
        there = self._run.checkpoints()
        newest = f"the newest checkpoint is {there[-1].name}" if there else "there is no checkpoint yet"
        why = f"{error.filename or self._run.path}: cannot be written ({error.strerror or error}); {newest}"
        if last:
            raise InputError(f"{why}; free some space on that disk; the same command resumes from there") from None
        say(f"{why}; training continues and tries again; free some space on that disk")
