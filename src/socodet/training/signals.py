"""Stopping on the signals that shells and job schedulers send."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_open: list[list[str]] = []
"""The list of the outermost context, while there is one."""


@contextmanager
def stop_requests(say: bool = False) -> Iterator[list[str]]:
    """Within the context SIGINT and SIGTERM add their names to the list instead of ending the process.

    say: also print a line. A second SIGINT raises KeyboardInterrupt. A context within another one shares its list, so
    that what was asked before it began is not lost. Outside the main thread, where no handler can be set, the list
    stays empty.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    if _open:
        yield _open[0]
        return
    requests: list[str] = []

    def note(number: int, _frame: object) -> None:
        if requests and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.append(signal.Signals(number).name)
        if say:
            os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    _open.append(requests)
    try:
        yield requests
    finally:
        _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
