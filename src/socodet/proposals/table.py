"""The proposal table: a Parquet file with one row per image, in the order of the image source.

Columns: `image` (string, the key in the source), `width` and `height` (int32, pixels of the upright image),
`boxes` (list of fixed-size lists of 4 float32: xyxy, pixels, exclusive right and bottom), `error` (string,
null for an image that could be read). The schema's metadata holds, under `socodet.proposals`, a JSON object
with the `format` version, the package `version` and the `settings`; and, for imported boxes, their `origin`.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from socodet._version import __version__
from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import image_size
from socodet.images.source import ImageSource
from socodet.proposals.parquet_footer import declared_values
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.shared_copy import is_large, shared_rows
from socodet.runtime.serialization import from_json, to_json

FORMAT = 1
METADATA_KEY = b"socodet.proposals"
LEAST_BYTES = 4
"""Bytes of memory that a value takes at least."""


class Row(NamedTuple):
    """One image of a table."""

    key: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    """(N, 4) xyxy; empty if there was an error."""
    error: str | None = None


class Origin(NamedTuple):
    """Where imported boxes come from."""

    file: str
    """Name of the file or folder."""
    filtered: bool
    """Whether they were filtered by the table's settings, whose other fields do not apply."""


def table_schema(settings: ProposalSettings, origin: Origin | None = None) -> pa.Schema:
    """The columns and the metadata of a table of proposals made with `settings`, or filtered by them."""
    facts = {"format": FORMAT, "version": __version__, "settings": to_json(settings)}
    if origin is not None:
        facts["origin"] = origin._asdict()
    return pa.schema(
        [
            pa.field("image", pa.string(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),
            pa.field("error", pa.string()),
        ],
        {METADATA_KEY: json.dumps(facts).encode()},
    )


def rows_to_arrow(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table of that schema."""
    keys, widths, heights, boxes, errors = zip(*rows, strict=True)
    offsets = np.cumsum([0, *map(len, boxes)])
    numbers = pa.array(np.concatenate(boxes).astype(np.float32).ravel())
    lists = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.FixedSizeListArray.from_arrays(numbers, 4), type=schema.field("boxes").type
    )
    columns = [
        pa.array(map(as_text, keys), pa.string()),
        pa.array(widths, pa.int32()),
        pa.array(heights, pa.int32()),
        lists,
        pa.array((error and as_text(error) for error in errors), pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def as_text(key: str) -> str:
    r"""A key as a table holds it: bytes of a file name that are not UTF-8 are written as \xff."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_fits_memory(path: Path, *, by_group: bool = False) -> None:
    """InputError for a Parquet file whose values do not fit into memory: even a small file may hold any number.

    by_group: it is read one row group at a time.
    """
    try:
        sizes = [sum(columns) for columns in declared_values(path)]
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: is damaged ({' '.join(str(error).split())}); make it again") from None
    values = max(sizes, default=0) if by_group else sum(sizes)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if LEAST_BYTES * values > there:
        raise InputError(
            f"{path}: holds {values:,} values, which do not fit into the memory of this machine ({there / 2**30:.0f} "
            "GiB); make a table of fewer images or boxes"
        )


class _Rows:
    """Consecutive rows of a table, as views of Arrow's memory."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        lists = rows.column("boxes")
        self.keys, self.errors = rows.column("image"), rows.column("error")
        self.widths, self.heights = rows.column("width").to_numpy(), rows.column("height").to_numpy()
        self.offsets = lists.offsets.to_numpy()
        self._boxes = lists.values.flatten().to_numpy().reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.keys)

    def boxes(self, row: int) -> NDArray[np.float32]:
        """The boxes of a row, (N, 4)."""
        found: NDArray[np.float32] = self._boxes[self.offsets[row] : self.offsets[row + 1]]
        return found

    def failed(self) -> NDArray[np.bool_]:
        """For each row, whether its image could not be read."""
        found: NDArray[np.bool_] = self.errors.is_valid().to_numpy(zero_copy_only=False)
        return found


class ProposalTable:
    """The proposals of a set of images, looked up by image.

    It is held in Arrow's memory, which forked data workers share, and for a large table all processes of a machine.
    Unpickling reads it again from its file.
    """

    def __init__(
        self, path: Path, rows: pa.Table, settings: ProposalSettings, version: str, origin: Origin | None = None
    ) -> None:
        self.path, self.settings, self.version, self.origin = path, settings, version, origin
        self._keys = rows.column("image")
        self._parts = [_Rows(batch) for batch in rows.to_batches() if len(batch)]
        self._starts = np.cumsum([0, *map(len, self._parts)])

    @classmethod
    def read(cls, path: str | Path) -> "ProposalTable":
        """Reads a table. InputError if the file is missing or is not a proposal table."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such proposal table; make one with `socodet propose`")
        damaged = f"{path}: is damaged (%s); make it again with `socodet propose`"
        try:
            schema = pq.read_schema(path)
            facts = json.loads((schema.metadata or {})[METADATA_KEY])
            if facts["format"] != FORMAT:
                raise InputError(
                    f"{path}: made by socodet {facts['version']} in a format that {__version__} does not know; "
                    "make it again with `socodet propose`"
                )
            settings = from_json(ProposalSettings, facts["settings"], f"{path}: settings")
            origin = Origin(**facts["origin"]) if "origin" in facts else None
            version = str(facts["version"])
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
            raise InputError(f"{path}: is not a proposal table; make one with `socodet propose`") from None
        if not schema.equals(table_schema(settings), check_metadata=False):
            raise InputError(damaged % "not the columns of a proposal table")
        check_fits_memory(path, by_group=True)
        try:
            with pq.ParquetFile(path) as file:
                rows = shared_rows(path, file) if is_large(path) else None
                if rows is None:
                    check_fits_memory(path)
                    rows = file.read()
                    rows.validate(full=True)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise InputError(damaged % " ".join(str(error).split())) from None
        return cls(path, rows, settings, version, origin)

    def __reduce__(self) -> Any:
        return ProposalTable.read, (self.path,)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def keys(self) -> list[str]:
        """`as_text` of the images' keys, in the order of the table."""
        return [key for part in self._parts for key in part.keys.to_pylist()]

    @property
    def unreadable(self) -> dict[str, str]:
        """The images that could not be read, by `as_text` of their key, with the reason."""
        found: dict[str, str] = {}
        for part in self._parts:
            failed = pa.array(np.flatnonzero(part.failed()))
            found |= zip(part.keys.take(failed).to_pylist(), part.errors.take(failed).to_pylist(), strict=True)
        return found

    @property
    def without_boxes(self) -> set[str]:
        """The images that could be read and have no proposal, by `as_text` of their key."""
        found: set[str] = set()
        for part in self._parts:
            rows = np.flatnonzero((np.diff(part.offsets) == 0) & ~part.failed())
            found.update(part.keys.take(pa.array(rows)).to_pylist())
        return found

    def boxes(self, key: str) -> NDArray[np.float32]:
        """The proposals of an image, (N, 4) xyxy in its pixels; none if it could not be read."""
        part, row = self._row(key)
        return part.boxes(row)

    def size(self, key: str) -> tuple[int, int]:
        """Width and height of an image, pixels; zeros when it could not be read."""
        part, row = self._row(key)
        return int(part.widths[row]), int(part.heights[row])

    def look_up(self, key: str, data: bytes) -> tuple[int, NDArray[np.float32]]:
        """The width of an encoded image, pixels, and its proposals. UnreadableImageError if it is another image."""
        size = self.size(key)
        if image_size(data, sys.maxsize) != size:
            raise UnreadableImageError("its size differs from the one its proposals were made for")
        return size[0], self.boxes(key)

    def check_images(self, source: ImageSource) -> None:
        """InputError if the table lacks a row for some image of the source."""
        if len(source) == len(self) and all(
            part.keys.equals(_keys(source, first, first + len(part)))
            for part, first in zip(self._parts, self._starts, strict=False)
        ):
            return
        keys = pa.chunked_array([_keys(source, 0, len(source))])
        known = pc.is_in(keys, value_set=self._keys).to_numpy(zero_copy_only=False)
        if not known.all():
            first = keys[int(np.argmin(known))].as_py()
            raise InputError(
                f"{self.path}: lacks {int((~known).sum())} of the {len(keys)} images in {source.location}, "
                f"first {first}; make a table for this folder with `socodet propose`"
            )

    def without_image(self, source: ImageSource) -> tuple[int, str]:
        """How many rows belong to images that the source does not have, and the first of these."""
        known = pc.is_in(self._keys, value_set=_keys(source, 0, len(source))).to_numpy(zero_copy_only=False)
        first = int(np.argmin(known)) if len(known) else 0
        return int((~known).sum()), str(self._keys[first]) if len(known) else ""

    @cached_property
    def _sorted(self) -> Sequence[int] | NDArray[np.uint64]:
        """Row numbers sorted by key; a dict of a million would be copied into every worker."""
        if self._is_sorted():
            return range(len(self))
        rows: NDArray[np.uint64] = pc.sort_indices(self._keys).to_numpy()
        return rows

    def _is_sorted(self) -> bool:
        """Whether the rows are in the order of their keys, as those of a folder mostly are."""
        ends = pa.chunked_array([part.keys.take([0, len(part) - 1]) for part in self._parts], pa.string())
        return all(
            bool(pc.all(pc.less(keys[:-1], keys[1:])).as_py())
            for keys in (*(part.keys for part in self._parts if len(part) > 2), ends.unique())
        )

    def _at(self, row: int) -> tuple[_Rows, int]:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._parts[part], row - int(self._starts[part])

    def _row(self, key: str) -> tuple[_Rows, int]:
        key = as_text(key)
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            part, row = self._at(int(self._sorted[middle]))
            found = part.keys[row].as_py()
            if found == key:
                return part, row
            if found < key:
                low = middle + 1
            else:
                high = middle
        raise KeyError(f"{key} is not in {self.path}")


def _keys(source: ImageSource, first: int, last: int) -> pa.Array:
    return pa.array((as_text(source.key(index)) for index in range(first, last)), pa.string())
