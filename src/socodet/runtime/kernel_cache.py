"""`njit` for our compiled kernels: Numba's, with a cache on disk that cannot be stale and needs no writable package.

Compilation takes a while the first time: `compilation_announced` tells the user about it.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event

from socodet.runtime.log import LOGGER


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with the compiled code kept in `cache_folder()`, unless NUMBA_CACHE_DIR names a place."""
    decorate = numba.njit(**options)

    def compiled(function: Callable[..., Any]) -> Any:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = before or str(cache_folder())
        try:
            return decorate(function)
        finally:
            numba.config.CACHE_DIR = before

    return compiled


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where compiled code is kept: below the user's cache folder, or a temporary one where that is not writable.

    Numba sees that a file has changed, but not one that it calls or takes constants from. So the folder's name
    holds a hash of all our sources: any change compiles everything anew.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:12]}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    temporary = Path(tempfile.gettempdir()) / f"socodet-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    for parent in (home / "socodet", temporary) if home.is_absolute() else (temporary,):  # some users have no home
        folder = parent / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="socodet-"))


class _Announcer(event.Listener):  # type: ignore[misc]
    """Prints one line when Numba starts to compile; loading what was compiled before starts nothing."""

    def __init__(self, what: str) -> None:
        self._what, self._said = what, False

    def on_start(self, event: Any) -> None:
        if not self._said:
            self._said = True
            LOGGER.info(f"compiling {self._what}, which takes up to half a minute and is kept for the next time")

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
