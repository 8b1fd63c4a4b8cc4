"""The time of a training loop, and how much of it was spent waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

B = TypeVar("B")


class Clock:
    """Elapsed time and time spent waiting for data, since the last log line and in all."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._whole_waited = 0.0
        self.next_window()

    def next_window(self) -> None:
        """Starts a new log line's window."""
        self._start, self._waited = time.monotonic(), 0.0
        self.images = 0

    def wait_for(self, batches: Iterator[B]) -> B:
        """The next batch."""
        asked = time.monotonic()
        batch = next(batches)
        now = time.monotonic()
        self._waited += now - asked
        if self._begun is None:  # the first wait, with the start of the workers, does not count
            self._begun = now
            self.next_window()
        else:
            self._whole_waited += now - asked
        return batch

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Time spent in this context does not count."""
        before = time.monotonic()
        yield
        passed = time.monotonic() - before
        self._start += passed
        if self._begun is not None:
            self._begun += passed

    def window(self) -> tuple[float, float]:
        """Seconds since the last log line, and how many of them were spent waiting."""
        return time.monotonic() - self._start, self._waited

    def whole(self) -> tuple[float, float]:
        """Seconds since the first batch arrived, and how many of them were spent waiting."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun, self._whole_waited
