"""The process itself: how it ends, standard streams that may be closed or lost, and how many files it may have open."""

import atexit
import io
import os
import resource
import sys
import threading
from contextlib import suppress
from typing import Any

ENOUGH_FILES = 65_536


def exit_process(code: int) -> None:
    """Ends the process with this exit code, after its exit handlers.

    The interpreter's modules are not torn down, which takes a second with torch, and many on a busy machine. Returns,
    so that the process ends as usual, if something still needs that: other threads, a profiler or a debugger.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(not thread.daemon for thread in others) or sys.getprofile() or sys.gettrace():
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)


def open_standard_streams() -> None:
    """Opens /dev/null for each of standard input, output and error that is closed, as after `2>&-`.

    Otherwise a file opened later could get the number of standard error, and with it whatever libraries write there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


class _LossyStream(io.FileIO):
    def write(self, data: Any) -> int:
        """Writes what can be written; the rest is lost."""
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def ignore_stderr_errors() -> None:
    """From here on, drops what standard error cannot take, so that no closed terminal or full disk ends the work.

    Only if standard error is the process's own.
    """
    stream = sys.__stderr__
    if stream is None or sys.stderr is not stream:  # it has been replaced, as tests do
        return
    try:
        file = _LossyStream(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):  # closed
        return
    buffered = io.BufferedWriter(file)  # type: ignore[type-var]  # a FileIO
    sys.stderr = io.TextIOWrapper(buffered, stream.encoding, errors="replace", line_buffering=True)


def raise_open_files() -> None:
    """Raises the soft limit, 1,024 on most systems, as far as the system allows, to `ENOUGH_FILES` at most.

    macOS has no hard limit, but refuses a soft one above a number that depends on its memory.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    while soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            wanted //= 2
        else:
            return
