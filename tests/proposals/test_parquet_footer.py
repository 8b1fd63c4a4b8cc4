"""The number of values that a Parquet file declares, against pyarrow's; damaged footers raise ValueError."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from socodet.proposals.parquet_footer import declared_values
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import Row, rows_to_arrow, table_schema


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A proposal table of three row groups."""
    rows = [Row(f"{n}.jpg", 9, 9, np.zeros((n, 4), np.float32)) for n in range(1, 8)]
    path = tmp_path / "table"
    pq.write_table(rows_to_arrow(rows, table_schema(ProposalSettings())), path, row_group_size=3)
    return path


def by_pyarrow(path: Path) -> list[list[int]]:
    about = pq.read_metadata(path)
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    return [[group.column(number).num_values for number in range(group.num_columns)] for group in groups]


def test_declared_values_match_pyarrow(path: Path, tmp_path: Path) -> None:
    assert declared_values(path) == by_pyarrow(path)
    assert declared_values(path)[0] == [3, 3, 3, 4 * (1 + 2 + 3), 3]
    other = tmp_path / "other"
    columns = {"a": [None, True] * 5_000, "b": [1.5] * 10_000, "c": [{"d": [1, 2], "e": "x"}] * 10_000}
    pq.write_table(pa.table(columns), other, row_group_size=4_000, compression="gzip")
    assert declared_values(other) == by_pyarrow(other)


def test_damaged_footers_are_a_value_error(path: Path, tmp_path: Path) -> None:
    data, damaged = path.read_bytes(), tmp_path / "damaged"
    length = int.from_bytes(data[-8:-4], "little")
    for size in range(len(data) - length, len(data), 7):
        damaged.write_bytes(data[:size])
        with pytest.raises(ValueError):
            declared_values(damaged)
    for place in range(len(data) - 8 - length, len(data) - 8, 3):
        damaged.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
        try:
            assert isinstance(declared_values(damaged), list)
        except ValueError:
            continue
