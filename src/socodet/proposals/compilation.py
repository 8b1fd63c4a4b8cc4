"""Saying so when the kernels are compiled, which takes a while the first time and is kept on disk."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event


class _Announcer(event.Listener):  # type: ignore[misc]
    """Prints one line when Numba starts to compile; loading what was compiled before starts nothing."""

    def __init__(self, what: str) -> None:
        self._what, self._said = what, False

    def on_start(self, event: Any) -> None:
        if not self._said:
            self._said = True
            print(
                f"compiling {self._what}, which takes up to half a minute and is kept for the next time",
                file=sys.stderr,
                flush=True,
            )

    def on_end(self, event: Any) -> None:
        pass


@contextmanager
def compilation_announced(what: str) -> Iterator[None]:
    """Within it, the first function that Numba must compile is announced on standard error as `what`."""
    announcer = _Announcer(what)
    event.register("numba:compile", announcer)
    try:
        yield
    finally:
        event.unregister("numba:compile", announcer)
