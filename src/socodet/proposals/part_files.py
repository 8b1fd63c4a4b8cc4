"""Part files, from which a table is merged: each is complete or absent, so any process can resume another's work."""

import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from socodet._version import __version__
from socodet.errors import InputError
from socodet.images.reading import PLAIN
from socodet.images.source import Images, ImageSource, as_source, digest_names, digest_sizes, reading_of
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import Row, rows_to_arrow, table_schema
from socodet.runtime.files import atomic_file, check_output_file, link_target
from socodet.runtime.folder_locks import lock_folder
from socodet.runtime.notices import log_if_slow, notice

PART = 64
"""Images per part file: an interruption loses at most this many."""
ROW_GROUP = 4096
"""Images per row group of the table."""
SIZES_KEY = b"socodet.sizes"
"""The entry of a part's metadata that tells whether its images have been replaced since."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A table to make, and its part files in a hidden folder beside it.

    The folder's name holds a digest of images, settings and version, so a changed job never uses another's parts. A
    part is made again if the file size of one of its images has changed.
    """

    source: ImageSource
    settings: ProposalSettings
    output: Path
    overwrite: bool

    @classmethod
    def of(cls, images: Images, output: str | Path, settings: ProposalSettings, overwrite: bool) -> "Job":
        """InputError if there are no images, or if `output` is a folder, or exists and `overwrite` is false."""
        source = as_source(images)
        file = check_output_file(output, overwrite=overwrite)
        return cls(source, settings, link_target(file), overwrite)

    @property
    def count(self) -> int:
        """Part files of the whole table."""
        return -(-len(self.source) // PART)

    @cached_property
    def folder(self) -> Path:
        """The folder of the part files."""
        return self.output.with_name(f".{self.output.name}.{self._digest()}.parts")

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of the table and of its parts."""
        return table_schema(self.settings)

    def _digest(self) -> str:
        reading = reading_of(self.source)
        asked = [__version__, os.path.abspath(self.source.location), dataclasses.asdict(self.settings)]
        asked += [] if reading == PLAIN else [dataclasses.asdict(reading)]
        return digest_names(self.source, json.dumps(asked).encode())[:12]

    def hold(self, share: str = "", *, alone: bool = False) -> None:
        """Makes the folder, and locks it against other processes until the function around this call returns.

        Processes that make shares exclude only one that is `alone`, and one with the same `share` if that has a name.
        InputError when such a process holds the folder, or when `output` cannot be written.
        """
        try:
            lock_folder(self.folder, self.output, shared=not alone)
            if share:
                lock_folder(self.folder / share, self.output)
        except FileNotFoundError:
            raise  # the table was finished meanwhile
        except OSError as error:
            raise InputError(f"{self.output}: cannot be written ({error.strerror}); give another output") from None

    def indices(self, part: int) -> range:
        """The images in a part."""
        return range(part * PART, min((part + 1) * PART, len(self.source)))

    def images_in(self, parts: Iterable[int]) -> int:
        """The number of images in these parts together."""
        return sum(len(self.indices(part)) for part in parts)

    def missing(self, parts: Iterable[int]) -> list[int]:
        """Which of these parts are missing or incomplete."""
        with suppress(FileNotFoundError):
            there = set(os.listdir(self.folder))  # one listing: checking 20,000 files one by one takes a while
            with log_if_slow(f"{self.output}: comparing what is finished with the image files"):
                return [part for part in parts if self._path(part).name not in there or not self._is_whole(part)]
        return list(parts)

    def sizes(self, part: int) -> bytes:
        """A digest of the current file sizes of a part's images."""
        return digest_sizes(self.source, self.indices(part)).encode()

    def write(self, part: int, rows: list[Row], sizes: bytes) -> None:
        """Writes a part, completely or not at all, even if the process is killed. sizes: from before it was made."""
        path = self._path(part)
        unfinished = path.with_suffix(f".{platform.node()}.{os.getpid()}")
        noted = self.schema.with_metadata({**self.schema.metadata, SIZES_KEY: sizes})
        with atomic_file(path, unfinished) as file:
            pq.write_table(rows_to_arrow(rows, noted), file, compression="zstd")

    def merge(self) -> tuple[int, list[tuple[str, str]]]:
        """Merges the parts, all of which must exist, into the table and removes them.

        Returns the number of boxes, and key and reason of each image that could not be read.
        """
        check_output_file(self.output, overwrite=self.overwrite)  # another job may have made it meanwhile
        boxes = 0
        unreadable: list[tuple[str, str]] = []
        without: list[str] = []
        together = ROW_GROUP // PART
        with (
            atomic_file(self.output, self.folder / "table") as file,
            pq.ParquetWriter(file, self.schema, compression="zstd") as writer,
        ):
            for first in range(0, self.count, together):
                parts = range(first, min(first + together, self.count))
                rows = pa.concat_tables([self._read(part) for part in parts])
                writer.write_table(rows.combine_chunks(), row_group_size=ROW_GROUP)
                empty = pc.equal(pc.list_value_length(rows.column("boxes")), 0)
                none = rows.filter(pc.and_(empty, pc.is_null(rows.column("error"))))
                without += none.column("image").to_pylist()
                boxes += sum(len(lists.flatten()) for lists in rows.column("boxes").chunks)
                failed = rows.filter(rows.column("error").is_valid())
                unreadable += zip(failed.column("image").to_pylist(), failed.column("error").to_pylist(), strict=True)
        shutil.rmtree(self.folder)
        if without:
            notice(
                f"{self.source.location}: {len(without):,} of {len(self.source):,} images have no proposal "
                f"(first: {without[0]}); pretraining uses the region that all views show, unless nearly all have none"
            )
        return boxes, unreadable

    def _read(self, part: int) -> pa.Table:
        path = self._path(part)
        try:
            return pq.ParquetFile(path).read().replace_schema_metadata(self.schema.metadata)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk; Arrow's own have no number
            path.unlink()
            raise InputError(
                f"{path}: was damaged ({' '.join(str(error).split())}) and is removed; the same call makes it again"
            ) from None

    def _path(self, part: int) -> Path:
        return self.folder / f"{part * PART:010d}.parquet"

    def _is_whole(self, part: int) -> bool:
        with suppress(pa.ArrowException, OSError):
            found = pq.read_metadata(self._path(part))
            same = (found.metadata or {}).get(SIZES_KEY) == self.sizes(part)
            return same and bool(found.num_rows == len(self.indices(part)))
        return False
