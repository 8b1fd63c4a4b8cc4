"""Stopping on the signals that shells and job schedulers send."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests(say: bool = False) -> Iterator[list[str]]:
    """Within the context SIGINT and SIGTERM add their names to the list instead of ending the process.

    say: also print a line. A second SIGINT raises KeyboardInterrupt. Outside the main thread, where no handler can be
    set, the list stays empty.
    """
    requests: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def note(number: int, _frame: object) -> None:
        if requests and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.append(signal.Signals(number).name)
        if say:
            os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
