"""The progress bar: steps done, images per second, time left, and a job's own figures."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from socodet.runtime.log import LINE_COUNT, LOGGER


class ProgressBar:
    """Counts work done and shows it; on a terminal as a live bar, elsewhere as a line every ten to sixty seconds.

    `unit` names what the rate counts (`images`); one step may be worth several of them.
    """

    def __init__(self, description: str, total: int, unit: str, bar: Progress | None) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._bar = bar
        self._task = bar.add_task(description, total=total, figures="") if bar is not None else None
        self._done = self._earlier = 0
        self._units = self._aside = 0.0
        self._start = self._last_line = time.monotonic()

    def done_earlier(self, steps: int) -> None:
        """`steps` were done earlier, and do not count in the rate."""
        self._done += steps
        self._earlier += steps
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps)

    def begin(self) -> None:
        """Starts the clock: what came before, such as the start of the workers, does not count."""
        self._start, self._aside = time.monotonic(), 0.0

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Time spent in this context counts towards the time left, as it recurs, but not towards the rate."""
        before = time.monotonic()
        try:
            yield
        finally:
            self._aside += time.monotonic() - before

    def advance(self, steps: int = 1, *, units: float | None = None, figures: str = "") -> None:
        """`steps` more are done, worth `units` (default: as many); `figures` is shown beside the rate."""
        self._done += steps
        self._units += steps if units is None else units
        elapsed = max(time.monotonic() - self._start, 1e-9)
        left = elapsed / max(self._done - self._earlier, 1) * (self._total - self._done)
        at_work = max(elapsed - self._aside, 1e-9)
        text = f"{self._units / at_work:.1f} {self._unit}/s  {figures}".rstrip() + f"  {duration(left)} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps, figures=text)
        elif time.monotonic() - self._last_line > min(max(elapsed / 10, 10), 60) or self._done == self._total:
            self._last_line = time.monotonic()
            LOGGER.info(f"{self._description}: {self._done}/{self._total}  {text}")


def duration(seconds: float) -> str:
    """A duration in words, in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def progress_bar(description: str, total: int, *, unit: str = "images", show: bool = True) -> Iterator[ProgressBar]:
    """A progress bar for `total` steps on standard error; silent where `show` is false."""
    show = show and LOGGER.isEnabledFor(logging.INFO)
    console = Console(stderr=True, quiet=not show)
    LINE_COUNT.times += show
    if not console.is_terminal and show:
        yield ProgressBar(description, total, unit, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield ProgressBar(description, total, unit, bar)
