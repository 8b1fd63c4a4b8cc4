"""Names of images: a million of them without a million Python strings, and as paths within a folder."""

import os
import posixpath
from collections.abc import Sequence
from typing import Any, overload

import pyarrow as pa


class Names(Sequence[str]):
    """An immutable sequence of strings, held in one Arrow array.

    A tuple of a million strings is pickled string by string, and a forked worker copies its memory page by page, as
    it counts references. An Arrow array is two blocks of bytes. Names of files may hold bytes that are not UTF-8, as
    Python's own names of files do.
    """

    def __init__(self, names: Sequence[str]) -> None:
        try:
            self._names = pa.array(names, pa.large_string())
        except UnicodeEncodeError:
            self._names = pa.array([name.encode(errors="surrogatepass") for name in names], pa.large_binary())

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        found: Any = self._names[index]
        return [_text(name) for name in found.to_pylist()] if isinstance(index, slice) else _text(found.as_py())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and self._names.equals(other._names)


def is_valid_file_name(name: str) -> bool:
    """Whether a file can have that name: not with a zero byte, or half of a surrogate pair, both of which JSON has."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def inner_path(name: str) -> str:
    """A name as a path that cannot lead out of a folder or tar: without a `/` at the start, `.` or `..`."""
    return "/".join(part for part in posixpath.normpath(name).split("/") if part not in ("", ".", ".."))


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode(errors="surrogatepass")
