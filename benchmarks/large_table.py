"""A proposal table of many rows, opened by two processes: seconds, and private memory of each.

python benchmarks/large_table.py [--rows 100000000]

The table is synthetic: sorted keys, two boxes per row. The first process makes the copy that both map; each then checks
that there is a row for every image, as `socodet pretrain` does, and looks up 10,000 random rows. Memory is RssAnon in
/proc/self/status, since pages of the mapped file are shared. Prints one JSON object.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from machine import machine
from socodet.proposals import shared_copy
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable, table_schema

GROUP, LOOK_UPS = 1_000_000, 10_000


def key(index: int) -> str:
    """The key of a row."""
    return f"images/{index:012d}.jpg"


@dataclass(frozen=True)
class Images:
    """The part of an image source that the check needs."""

    count: int
    location = "made up"

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        """The key of an image."""
        return key(index)


def write_table(path: Path, count: int) -> None:
    """Writes the table, one row group at a time."""
    schema = table_schema(ProposalSettings())
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, count, GROUP):
            rows = min(GROUP, count - first)
            numbers = pc.utf8_lpad(pa.array(np.arange(first, first + rows)).cast(pa.string()), 12, "0")
            corners = np.random.default_rng(first).integers(0, 200, (rows, 2, 2)).astype(np.float32)
            boxes = np.concatenate([corners, corners + 100], 2).ravel()
            lists = pa.ListArray.from_arrays(
                pa.array(np.arange(rows + 1, dtype=np.int32) * 2),
                pa.FixedSizeListArray.from_arrays(pa.array(boxes), 4),
                type=schema.field("boxes").type,
            )
            sides = pa.array(np.full(rows, 320, np.int32))
            columns = [pc.binary_join_element_wise("images/", numbers, ".jpg", ""), sides, sides, lists]
            writer.write_table(pa.Table.from_arrays([*columns, pa.nulls(rows, pa.string())], schema=schema))


def own_memory() -> float:
    """Anonymous resident memory, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def opened(path: Path, count: int) -> dict[str, float]:
    """Opens the table in one process; returns its seconds and memory."""
    before, start = own_memory(), time.perf_counter()
    table = ProposalTable.read(path)
    read = time.perf_counter()
    table.check_images(Images(count))  # type: ignore[arg-type]
    checked = time.perf_counter()
    order = random.Random(0)
    for _ in range(LOOK_UPS):
        assert len(table.boxes(key(order.randrange(count)))) == 2
    done = time.perf_counter()
    return {
        "open_seconds": round(read - start, 1),
        "check_seconds": round(checked - read, 1),
        "look_up_microseconds": round(1e6 * (done - checked) / LOOK_UPS, 1),
        "own_MiB": round(own_memory() - before, 1),
    }


def main() -> None:
    """Makes the table and opens it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "proposals.parquet"
        write_table(path, count)
        assert shared_copy.is_large(path), "smaller tables are read into memory"
        first = opened(path, count)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            second = pool.apply(opened, (path, count))
        size = round(path.stat().st_size / 2**20)
    result = {"machine": machine(), "rows": count, "table_MiB": size, "first": first, "second": second}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
