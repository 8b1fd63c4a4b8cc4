"""Stopping on the signals that shells, terminals and job schedulers send."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C; the end of a job; a terminal that closes; and what SLURM's --signal is often set to."""
SAME_HANGUP = 1.0
"""Seconds within which a second SIGHUP is the same one: the shell and the kernel each send theirs."""
GRACE = 10.0
"""Seconds after the second signal until a process that has not exited, since it waits for another, is ended."""

_WAKEUP: list[socket.socket] = []
"""Receives the numbers of this process's signals, while someone listens."""
_open: list[list[str]] = []
"""The list of the outermost context, while there is one."""


@contextmanager
def stop_requests(say: bool = False) -> Iterator[list[str]]:
    """In this context, the signals of `STOPPING` add their names to the list instead of ending the process.

    say: also print a line. A second signal of any kind raises KeyboardInterrupt; a process that hangs and does not exit
    is ended `GRACE` seconds later. A nested context shares the outer one's list, so that earlier requests are not lost.
    Outside the main thread, where no handler can be set, the list stays empty. A SIGHUP or SIGUSR1 that is ignored from
    the start, as by `nohup`, stays ignored; a handler that Python did not set, as in a program that embeds Python,
    stays too, since it could not be restored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    if _open:
        yield _open[0]
        return
    requests: list[str] = []
    heard = time.monotonic()

    def note(number: int, _frame: object) -> None:
        nonlocal heard
        name, since = signal.Signals(number).name, time.monotonic() - heard
        if requests and not (name == requests[-1] == "SIGHUP" and since < SAME_HANGUP):
            raise KeyboardInterrupt
        heard = time.monotonic()
        if not requests:
            requests.append(name)
            if say and sys.__stderr__ is not None:  # if it is closed, 2 may be the number of any file
                with suppress(OSError):  # the terminal may be gone
                    os.write(2, b"\nstopping after this step; a second signal stops at once\n")

    ignored = [number for number in STOPPING[2:] if signal.getsignal(number) is signal.SIG_IGN]
    foreign = [number for number in STOPPING if signal.getsignal(number) is None]
    before = {number: signal.signal(number, note) for number in STOPPING if number not in (*ignored, *foreign)}
    _open.append(requests)
    try:
        with _exit_if_it_hangs(set(before)):
            yield requests
    finally:
        _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _exit_if_it_hangs(numbers: set[int]) -> Iterator[None]:
    """Ends the process `GRACE` seconds after its second signal if it is still in this context.

    Python runs a handler only between two instructions of the main thread; this thread notices signals even while the
    main thread waits in C for a process that is gone.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    left = threading.Event()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    _WAKEUP.append(writer)

    def listen() -> None:
        first: tuple[int, float] | None = None
        while heard := reader.recv(1):
            number, now = heard[0], time.monotonic()
            if number not in numbers:
                continue
            again = first is not None and not (number == first[0] == signal.SIGHUP and now - first[1] < SAME_HANGUP)
            first = first or (number, now)
            if again:
                with suppress(TimeoutError):
                    while (left_s := now + GRACE - time.monotonic()) > 0:
                        reader.settimeout(left_s)
                        if not reader.recv(1):
                            return  # left in time
                if not left.is_set():
                    os._exit(128 + number)
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        _WAKEUP.clear()
        writer.shutdown(socket.SHUT_WR)  # a child that was forked may still hold it
        writer.close()
        thread.join(1.0)
        reader.close()


def _drop_in_child() -> None:
    """To be called in a forked process, whose signals do not concern its parent."""
    for writer in _WAKEUP:
        with suppress(ValueError):  # not in the main thread
            signal.set_wakeup_fd(-1)
        writer.close()
    _WAKEUP.clear()


os.register_at_fork(after_in_child=_drop_in_child)
