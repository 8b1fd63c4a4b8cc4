"""What a user should know about the input, said where it is found out."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from socodet.runtime.log import LOGGER
from socodet.runtime.world import world_from_environment


@cache
def notice(text: str) -> None:
    """Prints a line on stderr: once in a process, and only in the first of several processes."""
    if world_from_environment(meeting=False).is_first:
        say(text)


def say(text: str) -> None:
    """Logs a line, made printable."""
    LOGGER.warning(printable(text))


@contextmanager
def said_if_long(text: str, seconds: float) -> Iterator[None]:
    """Prints the text whenever another `seconds` have passed within."""
    left, began = threading.Event(), time.monotonic()

    def watch() -> None:
        while not left.wait(seconds):
            say(f"{text}, for {time.monotonic() - began:.0f} s")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()


def printable(text: str) -> str:
    """A text that may hold file names, escaped so that it is one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
