"""`njit` for our compiled kernels: Numba's, with a cache on disk that cannot be stale and needs no writable package.

Damaged files in the cache, or a full disk, only cost the time to compile again.

Compilation takes a while the first time: `announce_compilation` tells the user about it.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import Cache

from socodet.runtime.log import LOGGER


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with the compiled code kept in `_place()`; where there is none, each process compiles anew."""

    def compiled(function: Callable[..., Any]) -> Any:
        before, place = numba.config.CACHE_DIR, _place()
        numba.config.CACHE_DIR = place
        try:
            dispatcher = numba.njit(**options if place else options | {"cache": False})(function)
        finally:
            numba.config.CACHE_DIR = before
        if isinstance(dispatcher._cache, Cache):
            dispatcher._cache = _FaultTolerantCache(dispatcher._cache)
        return dispatcher

    return compiled


def _place() -> str:
    """The folder that NUMBA_CACHE_DIR names if it is writable, else `cache_folder()`; "" if neither is writable."""
    given = str(numba.config.CACHE_DIR or "")
    if given and _made(Path(given)):
        return given
    try:
        return str(cache_folder())
    except OSError:
        return ""


class _FaultTolerantCache:
    """A Numba cache that counts as empty if it cannot be read, and keeps nothing if it cannot be written."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = self._cache.load_overload(sig, target_context)
        except Exception:  # unpickling a damaged file may raise almost anything
            return None
        return found if found is not None and tuple(found.signature.args) == tuple(sig) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(Exception):
            try:
                self._cache.save_overload(sig, data)
            except Exception:  # its index may be damaged
                self._cache.flush()
                self._cache.save_overload(sig, data)


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where compiled code is kept: below the user's cache folder, or a temporary one where that is not writable.

    Code is run from there, so a folder that other users can write to is not used.

    Numba notices a change in a file, but not in files that it calls or takes constants from. So the folder's name
    holds a hash of all our sources: after any change, everything is compiled anew.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:12]}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if home.is_absolute() and (folder := _made(home / "socodet" / name)):  # some users have no home
        return folder
    temporary = Path(tempfile.gettempdir()) / f"socodet-{os.getuid()}"
    with suppress(OSError):
        temporary.mkdir(mode=0o700, exist_ok=True)
        about = temporary.lstat()
        own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022
        if own and (folder := _made(temporary / name)):
            return folder
    return Path(tempfile.mkdtemp(prefix="socodet-"))


def _made(folder: Path) -> Path | None:
    """The folder, made if it is missing; None if it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


class _CompilationListener(event.Listener):  # type: ignore[misc]
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
def announce_compilation(what: str) -> Iterator[None]:
    """In this context, the first function that Numba must compile is announced on standard error as `what`."""
    announcer = _CompilationListener(what)
    event.register("numba:compile", announcer)
    try:
        yield
    finally:
        event.unregister("numba:compile", announcer)
