"""Everything printed besides results goes through the logger `socodet`, whose plain lines go to standard error.

Programs configure it like any other, once socodet is imported: `logging.getLogger("socodet").setLevel("WARNING")` drops
notes and progress; with `propagate` set and `handlers` emptied, the lines get the format of the program's own. A level
that was set before the import is kept too.
"""

import logging
import sys
from contextlib import suppress

LOGGER = logging.getLogger("socodet")


class LineCount:
    """How often this process has said something on standard error, by the logger or with a progress bar."""

    def __init__(self) -> None:
        self.times = 0


LINE_COUNT = LineCount()


class _StandardError(logging.Handler):
    """Prints to what is then standard error. If that is closed, gone or on a full disk, nothing fails."""

    def emit(self, record: logging.LogRecord) -> None:
        LINE_COUNT.times += 1
        if sys.stderr is not None:  # else `print` would take standard output
            line = self.format(record)
            with suppress(OSError, ValueError):  # ValueError: the program has closed it
                print(line, file=sys.stderr, flush=True)


if not LOGGER.handlers:
    LOGGER.addHandler(_StandardError())
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
