"""Reads files that users name, with one line for each fault; writes files whole; keeps JSON notes of what was asked."""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from socodet.errors import InputError
from socodet.runtime.locks import open_exclusively

SPECIAL = "is a device or a pipe"
LFS_POINTER = b"version https://git-lfs"
"""How a file begins that Git LFS leaves in place of one that it has not downloaded."""
LONGEST_NAME = 143
"""Bytes of a file name that every common file system allows."""


class _Output(io.FileIO):
    """Keeps the error of a failed write, because some writers raise another one in its place.

    With mode `w`, only this process writes to the file: BlockingIOError if another one does.
    """

    problem: OSError | None = None

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode, opener=open_exclusively if mode == "w" else None)

    def write(self, data: Any) -> int:
        """Writes all of `data`; a raw file may take only a part of it at once."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                left = left[super().write(left) :]
        except OSError as error:
            self.problem = error
            raise
        return size


@contextmanager
def create_folder(folder: Path) -> Iterator[None]:
    """Makes a folder and those above it. Any that it made and that stay empty, as after an error, are removed."""
    made: list[Path] = []
    try:
        made += takewhile(lambda one: not one.exists(), (folder, *folder.parents))
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for one in made:
            with suppress(OSError):
                one.rmdir()


@contextmanager
def atomic_file(path: Path, partial: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when all of it is on disk, never earlier.

    If it cannot be written, or is not finished for any other reason, it is removed, and what was at `path` is still
    there. OSError then names `path`, also if that is a device or a pipe. partial: where the file is until then; by
    default a hidden file beside `path`, or beside what that links to, in a folder that is made.
    """
    problem: OSError | None = None
    place = path
    try:
        if is_special(path):
            raise OSError(errno.EINVAL, SPECIAL)
        if partial is None:
            place = link_target(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = _unfinished_name(place)
        try:
            opened = _Output(partial, "w")
        except BlockingIOError:  # each process writes its own file; the last one to finish stays
            partial = _unfinished_name(place, uuid.uuid4().hex[:8])
            opened = _Output(partial, "w")
        with opened as file:
            try:
                yield file  # type: ignore[misc]  # not buffered, else what is a file to write bytes to
                os.fsync(file.fileno())
            except Exception as error:
                problem = file.problem or (error if isinstance(error, OSError) else None)
                raise
        partial.replace(place)
    except BaseException as error:
        with suppress(OSError):
            if partial is not None:
                partial.unlink(missing_ok=True)
        problem = problem or (error if isinstance(error, OSError) else None)
        if problem is None:
            raise
        raise OSError(problem.errno, problem.strerror or str(problem), str(path)) from None


def _unfinished_name(place: Path, mark: str = "") -> Path:
    """The hidden name, in the same folder, that a file has until it is finished."""
    name = f".{place.name}{mark and '.'}{mark}.partial"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:32]}{mark}.partial"
    return place.with_name(name)


def remove_folder(folder: Path) -> None:
    """Removes a folder and what is in it; if the process is killed meanwhile, no part is left under its name.

    If a folder cannot be moved, such as a mounted volume, its contents are removed one by one.
    """
    gone = _unfinished_name(folder)
    shutil.rmtree(gone, ignore_errors=True)  # left by a process that was killed
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        with suppress(OSError):
            folder.replace(gone)
        for place in (gone, folder):
            shutil.rmtree(place, ignore_errors=True)


def is_special(path: Path) -> bool:
    """Whether it is a device, a pipe or a socket: neither a file, which may be replaced, nor a folder."""
    return path.exists() and not (path.is_file() or path.is_dir())


def link_target(path: Path) -> Path:
    """The target of a link, whether it exists or not; any other path unchanged."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def open_file(path: str | Path) -> BinaryIO:
    """A file to read. OSError when it is not a regular file: reading a pipe or a device might never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe is opened without waiting, too
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is no file", str(path))


def read_file(path: str | Path, largest: int | None = None) -> bytes:
    """The bytes of a file. OSError as `open_file`, and before it is read when it has more than `largest` bytes."""
    with open_file(path) as file:
        return read_opened(file, path, largest)


def read_opened(file: BinaryIO, path: str | Path, largest: int | None = None) -> bytes:
    """The bytes of an open file, from its current position; OSError as `read_file`, which names `path`."""
    if largest is not None and os.fstat(file.fileno()).st_size > largest:
        raise OSError(errno.EFBIG, f"is larger than {largest:,} bytes", str(path))
    return file.read()


def read_user_file(path: Path) -> bytes:
    """The bytes of a file that the user named. InputError when it cannot be read, or is a pointer of Git LFS."""
    try:
        data = read_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    if data.startswith(LFS_POINTER):
        raise InputError(f"{path}: is a pointer of Git LFS, not the file itself; git lfs pull gets the file")
    return data


def parse_json(path: Path, data: bytes, fix: str) -> Any:
    """The content of a JSON file; bytes that are not UTF-8 are kept as file names keep them. InputError if not JSON."""
    try:
        try:
            return json.loads(data)
        except UnicodeDecodeError:
            return json.loads(os.fsdecode(data))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({error}); {fix}") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, completely or not at all, even if the process is killed. OSError names the path."""
    with atomic_file(path) as file:
        file.write(data)


class JsonList:
    """Writes `json.dumps(entries)` without holding all entries, or their text, in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._before = file, "["

    def write(self, entries: Sequence[Any]) -> None:
        """Writes more of the entries."""
        if entries:
            self._file.write((self._before + ", ".join(map(json.dumps, entries))).encode())
            self._before = ", "

    def end(self) -> None:
        """To be called after the last entry."""
        self._file.write(b"[]" if self._before == "[" else b"]")


class GrowingFile:
    """A file that grows by whole pieces. What did not fit on a full disk is kept, and written with the next piece."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, _Output(path, "a")
        self._waiting = b""

    def append(self, data: bytes) -> None:
        """Writes `data` at the end. On OSError, which names the file, no part of it is there."""
        self._waiting += data
        end = os.fstat(self._file.fileno()).st_size
        try:
            self._file.write(self._waiting)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise OSError(error.errno, error.strerror or str(error), str(self._path)) from None
        self._waiting = b""

    def close(self) -> None:
        """Closes the file; tries once more to write what is left."""
        try:
            if self._waiting:
                self.append(b"")
        finally:
            self._file.close()


def resolve_path(path: str | Path) -> Path:
    """The path that will be written to: without `..`, which leads elsewhere once a folder before it is made.

    To be used before checking what is there: `new/../run` does not exist as long as there is no folder `new`.
    """
    given = Path(path)
    return Path(os.path.realpath(given)) if ".." in given.parts else given


def check_output_file(path: str | Path, *, overwrite: bool) -> Path:
    """Checks that a file may be written to, before the work is done, and returns its path. Nothing is made yet.

    InputError when it exists, unless `overwrite`, when it is a folder or a device, or when its folder cannot be written
    to or made.
    """
    file = resolve_path(path)
    if file.is_dir():
        raise InputError(f"{file}: is a folder; give the name of a file")
    if is_special(file):
        raise InputError(f"{file}: {SPECIAL}; give the name of a file")
    if file.exists() and not overwrite:
        raise InputError(f"{file}: exists; give another name or pass --overwrite")
    there = next(folder for folder in link_target(file).absolute().parents if os.path.lexists(folder))
    problem = None if os.access(there, os.W_OK | os.X_OK) else errno.EACCES
    if not there.is_dir():
        problem = errno.ENOTDIR
    if problem is not None:
        raise InputError(f"{file}: cannot be written ({there}: {os.strerror(problem)}); give another name")
    return file


def read_note(path: Path) -> dict[str, Any] | None:
    """The contents of a note, a JSON file that records what was asked for or how something ended; None if missing."""
    if not path.is_file():
        return None
    try:
        noted = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); restore it, or give another --output") from None
    if not isinstance(noted, dict):
        raise InputError(f"{path}: holds no JSON object; restore it, or give another --output")
    return noted


def write_note(path: Path, noted: Mapping[str, Any]) -> None:
    """Writes a note, completely or not at all."""
    write_atomically(path, json.dumps(dict(noted), indent=2).encode() + b"\n")


def refuse_foreign_folder(folder: Path, note: Path, kind: str) -> None:
    """InputError if the folder of a study, recognised by its note, is a file or holds something else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder for --output")
    foreign = folder.is_dir() and any(not _unfinished(path) for path in folder.iterdir())
    if foreign and not note.exists():
        raise InputError(f"{folder}: holds files that are not of {kind}; give another --output")


def _unfinished(path: Path) -> bool:
    """Whether a process that was killed before it had written anything else may have left it."""
    return path.name.startswith(".") and path.name.endswith(".partial")
