"""While a function writes to a folder, no other process does."""

import functools
import os
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, TypeVar

from socodet.errors import InputError
from socodet.runtime.files import create_folder
from socodet.runtime.locks import is_still_at, try_lock

P = ParamSpec("P")
R = TypeVar("R")

_RELEASED: ContextVar[ExitStack | None] = ContextVar("released", default=None)
_OPEN: set[int] = set()


def releases_folder_locks(function: Callable[P, R]) -> Callable[P, R]:
    """Makes the function release, on its return, the folders that `lock_folder` held in it."""

    @functools.wraps(function)
    def with_locks(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            outer = _RELEASED.set(stack)
            try:
                return function(*args, **kwargs)
            finally:
                _RELEASED.reset(outer)

    return with_locks


def lock_folder(folder: Path, output: Path | None = None, *, shared: bool = False) -> None:
    """Makes the folder and locks it against other processes until the function around this call returns.

    If it is new and still empty then, it is removed, with those that were made above it. InputError when another
    process holds it. A process that dies releases it. File systems without such locks, as some network ones, give no
    protection. output: what the message names in place of the folder. shared: only processes that hold it alone are
    excluded.
    """
    stack = _RELEASED.get()
    assert stack is not None, "called outside a function that releases_folder_locks"
    with ExitStack() as making:
        making.enter_context(create_folder(folder))
        handle = os.open(folder, os.O_RDONLY)
        _OPEN.add(handle)
        stack.callback(_close, handle)
        stack.push(making.pop_all())  # removed, if it is empty, before it is released
    # The previous holder may have removed the folder since it was opened.
    if not (try_lock(handle, shared=shared) and (shared or is_still_at(handle, folder))):
        raise InputError(
            f"{output or folder}: another process is writing to it; wait until that ends, or give another --output"
        )


def _close(handle: int) -> None:
    _OPEN.discard(handle)
    os.close(handle)


def _drop_in_child() -> None:
    """To be called in a forked process, such as a data worker, which may live a little longer than its parent."""
    for handle in list(_OPEN):
        _close(handle)


os.register_at_fork(after_in_child=_drop_in_child)
