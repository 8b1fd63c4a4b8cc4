"""The command that this process was started to run, as a run's folder notes it."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_RUNNING: ContextVar[str | None] = ContextVar("command", default=None)


@contextmanager
def set_running_command(arguments: Sequence[str]) -> Iterator[None]:
    """Within, `running_command` is `socodet` with these arguments."""
    token = _RUNNING.set(shlex.join(["socodet", *arguments]))
    try:
        yield
    finally:
        _RUNNING.reset(token)


def running_command() -> str | None:
    """The command as a shell takes it; None in a program that calls Python functions."""
    return _RUNNING.get()
