"""Images in tar files, WebDataset's layout: read in place, by an index of where each begins."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.names import Names
from socodet.images.reading import LARGEST_FILE
from socodet.images.shard_index import index_shard
from socodet.images.suffixes import Skipped
from socodet.runtime.notices import notice

OPEN_SHARDS = 128
"""Shards that a process keeps open at once; systems often allow it 1024 files."""


@dataclass(frozen=True, eq=False)
class TarShards:
    """The images of tar files, shard by shard, in the order they have there.

    Holds no open file: each process opens the shards it reads. Threads and forked processes may read at once.
    """

    location: str
    shards: tuple[str, ...]
    keys: Names
    """Names in the tar; if a name occurs in two shards, every key is prefixed with its shard's name."""
    numbers: NDArray[np.int32]
    """The shard of each image."""
    starts: NDArray[np.int64]
    """Where the bytes of each image begin in its shard."""
    sizes: NDArray[np.int64]
    modified: NDArray[np.int64]
    """When each shard was last changed, nanoseconds."""

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """The name of image `index`, as `keys` says."""
        return self.keys[index]

    def read(self, index: int) -> bytes:
        """The bytes of image `index`; OSError also when the shard was changed since it was opened."""
        number = self.numbers[index]
        shard = _opened(self.shards[number], int(self.modified[number]))
        size = int(self.sizes[index])
        if size > LARGEST_FILE:
            raise OSError(f"{self.shards[number]}: {self.key(index)} is larger than {LARGEST_FILE:,} bytes")
        data = os.pread(shard.descriptor, size, int(self.starts[index]))
        if len(data) < size:
            raise OSError(f"{self.shards[number]}: ends within {self.key(index)}")
        return data


class _Shard:
    """A file that is closed when no thread uses it any more."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(OPEN_SHARDS)
def _opened(path: str, modified: int) -> _Shard:
    shard = _Shard(path)
    if os.fstat(shard.descriptor).st_mtime_ns != modified:
        raise OSError(f"{path}: changed since its images were listed")
    return shard


def open_shards(paths: Sequence[Path], location: str) -> TarShards:
    """The images of the tar files `paths`, from `location` as the user gave it.

    An image is a file in the tar whose name ends as an image's does (`shard_index.index_shard`). A shard is
    scanned once; its index is kept beside it, or in the user's cache where that cannot be written.

    InputError when a shard cannot be read, is no tar file or is damaged, or when there is no image in any.
    """
    indices = [index_shard(path) for path in paths]
    keys = [name for index in indices for name in index.names]
    astray = [name for index in indices for name in index.astray]
    if astray:
        notice(f"{location}: {len(astray):,} images left out, whose names lead out of their shard (first: {astray[0]})")
    if not keys:
        raise InputError(f"{location}: no image in its {len(paths)} tar shards")
    skipped = Skipped()
    for index in indices:
        for name in index.skipped:
            skipped.add(name)
    skipped.report(location, len(keys))
    if len(set(keys)) < len(keys):
        top = os.path.commonpath([path.absolute().parent for path in paths])
        before = [os.path.relpath(path.absolute(), top) for path in paths]
        keys = [f"{shard}/{name}" for shard, index in zip(before, indices, strict=True) for name in index.names]
    return TarShards(
        location,
        tuple(map(str, paths)),
        Names(keys),
        np.repeat(np.arange(len(paths), dtype=np.int32), [len(index.names) for index in indices]),
        np.concatenate([index.starts for index in indices]),
        np.concatenate([index.sizes for index in indices]),
        np.array([index.modified for index in indices], np.int64),
    )


def shards_in(folder: Path) -> list[Path]:
    """The .tar files of a folder, sorted by name; not hidden ones, nor those of folders inside it."""
    tars = (path for path in folder.iterdir() if path.suffix.lower() == ".tar" and not path.name.startswith("."))
    return sorted(path for path in tars if path.is_file())
