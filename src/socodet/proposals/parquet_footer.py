"""How many values a Parquet file declares, from its footer (Thrift's compact protocol).

pyarrow has these numbers too, but it aborts the process where a damaged footer looks encrypted.
"""

import struct
from pathlib import Path
from typing import Any

MAGIC = b"PAR1"
ROW_GROUPS, COLUMNS, META_DATA, NUM_VALUES, ENCRYPTED = 4, 1, 3, 5, {8, 9}
"""Numbers of fields in parquet.thrift: of FileMetaData, RowGroup, ColumnChunk, ColumnMetaData, ColumnChunk."""
DEEPEST = 16
"""Maximum depth of nested structures; parquet.thrift has eight."""


def declared_values(path: Path) -> list[list[int]]:
    """How many values each leaf column of each row group has. ValueError for a damaged footer; OSError."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 8))
        length, magic = struct.unpack("<I4s", file.read(8).rjust(8))
        if magic != MAGIC or length > end - 12:
            raise ValueError("no Parquet footer")
        file.seek(end - 8 - length)
        footer = _Compact(file.read(length)).structure(0)
    try:
        chunks = [group[COLUMNS] for group in footer.get(ROW_GROUPS, [])]
        if any(ENCRYPTED & set(chunk) for group in chunks for chunk in group):
            raise ValueError("encrypted")
        return [[int(chunk[META_DATA][NUM_VALUES]) for chunk in group] for group in chunks]
    except (LookupError, TypeError, AttributeError):
        raise ValueError("the footer lacks what every file has") from None


class _Compact:
    """Reads values one after another. ValueError when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def structure(self, depth: int) -> dict[int, Any]:
        """Fields by their number."""
        if depth > DEEPEST:
            raise ValueError("too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > len(self._data) - self._at:  # every element takes a byte at least
                raise ValueError("a list is longer than the footer")
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.structure(depth + 1)
        raise ValueError("an unknown type")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise ValueError("the footer is cut")
        self._at += count
        return found

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
