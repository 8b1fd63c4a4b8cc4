"""A large table as memory that all processes of a machine share: a copy of it in Arrow's own form, which is mapped.

A Parquet file is compressed, so every process would have to hold its own decoded copy.
"""

import atexit
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from socodet.proposals.parquet_footer import declared_values
from socodet.runtime.files import atomic_file
from socodet.runtime.notices import log_while_waiting, notice

LARGE = 2**30
"""A table is shared if it has at least this many bytes when decoded."""
BATCH = 65_536
"""Rows that are copied at a time."""
PATIENCE = 30.0
"""Seconds after which a process says that it waits."""


def is_large(path: Path) -> bool:
    """Whether it pays to share the table."""
    return _decoded_bytes(path) >= LARGE


def _decoded_bytes(path: Path) -> int:
    """About the size of the copy: 4 bytes for every number of the boxes, 64 for the rest of a row. ValueError."""
    groups = declared_values(path)  # image, width, height, boxes, error
    if any(len(columns) != 5 for columns in groups):
        raise ValueError("not the columns of a proposal table")
    return sum(4 * columns[3] + 64 * columns[0] for columns in groups)


def shared_rows(path: Path, file: pq.ParquetFile) -> pa.Table | None:
    """The rows of a table, mapped from a copy in the temporary folder; None where there is no room for it.

    The first process makes the copy while others wait, and the last one that leaves removes it. Copies that nobody
    uses any more, as after a crash, are removed here. Raises pa.ArrowException where the table is damaged.
    """
    about = path.stat()
    identity = f"{path.resolve()} {about.st_size} {about.st_mtime_ns}".encode()
    try:
        folder = _own_folder()
        copy = folder / f"proposals-{hashlib.sha256(identity).hexdigest()[:16]}.arrow"
        with _exclusive_access(folder):
            _remove_unused(folder, copy)
            if not copy.exists():
                _write(copy, path, file)
            try:
                rows = _map_file(copy)
            except pa.ArrowException:  # the copy is damaged, not the table
                copy.unlink()
                _write(copy, path, file)
                rows = _map_file(copy)
            used = os.open(copy, os.O_RDONLY)
            fcntl.flock(used, fcntl.LOCK_SH)  # for as long as this process lives
    except OSError as error:
        notice(f"{path}: every process holds a copy of its own, because none could be shared ({error})")
        return None
    atexit.register(_release_copy, copy, used, os.getpid())
    return rows


def _own_folder() -> Path:
    """A folder that only this user can write to."""
    folder = Path(tempfile.gettempdir()) / f"socodet-tables-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if folder.is_symlink() or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(f"{folder} belongs to another user")
    return folder


@contextmanager
def _exclusive_access(folder: Path) -> Iterator[None]:
    """In this context, no other process makes or removes copies. A process that dies releases the lock."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with log_while_waiting(f"waiting for another process to copy a proposal table into {folder}", PATIENCE):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_unused(folder: Path, wanted: Path) -> None:
    """Removes other copies that no process has open, and unfinished ones."""
    for partial in folder.glob("*.partial"):
        partial.unlink()
    for copy in set(folder.glob("*.arrow")) - {wanted}:
        used = os.open(copy, os.O_RDONLY)
        with suppress(BlockingIOError):
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
            copy.unlink()
        os.close(used)


def _map_file(copy: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(copy))).read_all()


def _write(copy: Path, path: Path, file: pq.ParquetFile) -> None:
    """Writes it batch by batch, to save memory; it gets its final name when all of it is on disk."""
    if _decoded_bytes(path) > shutil.disk_usage(copy.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(copy))
    notice(f"{copy}: making a copy of the proposal table that all processes share")
    with atomic_file(copy) as sink, pa.ipc.new_file(sink, file.schema_arrow) as writer:
        for batch in file.iter_batches(BATCH):
            batch.validate(full=True)
            writer.write_batch(batch)


def _release_copy(copy: Path, used: int, process: int) -> None:
    """Removes the copy unless another process has it open; forked workers share this one's lock."""
    if os.getpid() != process:
        return
    with suppress(OSError):
        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(used), copy.stat()):
            copy.unlink()
