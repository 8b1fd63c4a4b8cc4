"""The end of a command's process."""

import atexit
import os
import sys
import threading
from contextlib import suppress


def leave(code: int) -> None:
    """Ends the process with this exit code, after what was registered for its end.

    Without taking apart the interpreter's modules, which with torch among them takes a second, and many on a busy
    machine. Returns, for an end as usual, where something still needs that: other threads, a profiler or a debugger.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(not thread.daemon for thread in others) or sys.getprofile() or sys.gettrace():
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)
