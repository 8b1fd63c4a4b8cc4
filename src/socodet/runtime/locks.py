"""Locks of files and folders between processes. The locks of a process that dies are released.

File systems without locks, such as some network ones, give no protection.
"""

import errno
import fcntl
import os
from pathlib import Path


def try_lock(handle: int, *, shared: bool = False) -> bool:
    """Takes the lock of an open file or folder without waiting; False if another process has it."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def is_still_at(handle: int, path: str | Path) -> bool:
    """Whether the opened file is still at its path: another process may have moved or removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def open_exclusively(path: str, flags: int) -> int:
    """A descriptor of a file to write anew. BlockingIOError, with nothing changed, if another process writes to it."""
    handle = os.open(path, flags & ~os.O_TRUNC, 0o666)
    try:
        if not (try_lock(handle) and is_still_at(handle, path)):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing to it", path)
        os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle
