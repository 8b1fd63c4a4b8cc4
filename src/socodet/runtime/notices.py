"""Notes about the input that a user should know, printed where they are found out."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from socodet.runtime.log import LINE_COUNT, LOGGER
from socodet.runtime.world import world_from_environment

QUIET = 10.0
"""Seconds after which work that may take minutes says what it is; then after twice as long, and so on."""
LOADING_AFTER, LOOKED_EVERY = 3.0, 0.5
"""Seconds without a line after which loading is mentioned, and between checks from then on."""

_SAID: ContextVar[set[str] | None] = ContextVar("said", default=None)


@cache
def notice(text: str) -> None:
    """Prints a line on stderr: once in a process, and only in the first of several processes."""
    if world_from_environment(rendezvous=False).is_first:
        log_note(text)


@contextmanager
def log_each_once() -> Iterator[None]:
    """In this context, as while the runs of a study follow each other, `log_new` says every text once."""
    token = _SAID.set(set())
    try:
        yield
    finally:
        _SAID.reset(token)


def log_new(text: str, *, but_for: str = "", level: int = logging.INFO) -> None:
    """Logs a text of one or more lines, unless `log_each_once` it is no news.

    but_for: a beginning of the text that does not make it news, as it follows from what is said elsewhere.
    """
    said = _SAID.get()
    if said is not None:
        new = text.removeprefix(but_for)
        if new in said:
            return
        said.add(new)
    LOGGER.log(level, text)


def log_note(text: str) -> None:
    """Logs a line, made printable."""
    LOGGER.warning(printable(text))


@contextmanager
def log_while_waiting(
    text: str, seconds: float, *, growing: float = 1.0, log: Callable[[str], object] = log_note
) -> Iterator[None]:
    """Says the text whenever another `seconds` have passed in this context; they grow by the factor `growing`."""
    left, began = threading.Event(), time.monotonic()

    def watch() -> None:
        wait = seconds
        while not left.wait(wait):
            log(f"{text}, for {time.monotonic() - began:.0f} s")
            wait *= growing

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()


@contextmanager
def log_if_slow(text: str, *, show: bool = True) -> Iterator[None]:
    """`log_while_waiting` of work that may take minutes, as progress, in the first of several processes."""
    if not (show and world_from_environment(rendezvous=False).is_first):
        yield
        return
    with log_while_waiting(text, QUIET, growing=2, log=lambda line: LOGGER.info(printable(line))):
        yield


@contextmanager
def log_slow_imports() -> Iterator[None]:
    """In this context, says once that modules are being imported, after `LOADING_AFTER` seconds without a line.

    Not if anything has been said, nor while the main thread does something else.
    """
    left, before, main = threading.Event(), LINE_COUNT.times, threading.get_ident()

    def watch() -> None:
        wait = LOADING_AFTER
        while not left.wait(wait) and LINE_COUNT.times == before:
            wait = LOOKED_EVERY
            if _imports(main):
                LOGGER.info("loading the package, and torch with it; on a busy machine this takes a while")
                return

    if LOGGER.isEnabledFor(logging.INFO) and world_from_environment(rendezvous=False).is_first:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _imports(thread: int) -> bool:
    """Whether a thread is within an import."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def printable(text: str) -> str:
    """A text that may hold file names, escaped so that it is one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
