"""The proposal table: rows are read back as written, and other files are refused."""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from socodet._version import __version__
from socodet.errors import InputError
from socodet.images.folder import ImageFolder
from socodet.proposals import shared_copy
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable, Row, rows_to_arrow, table_schema

SETTINGS = ProposalSettings("random", seed=4)
NONE = np.empty((0, 4), np.float32)
ROWS = [
    Row("b/é.jpg", 40, 30, np.array([[1, 2, 3.5, 4], [0, 0, 40, 30]], np.float32)),
    Row("b/Z.png", 0, 0, NONE, "truncated"),
    Row("a.jpg", 7, 9, NONE),
    Row("z.jpg", 10, 10, np.array([[5, 5, 6, 6]], np.float32)),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table of two row groups."""
    path = tmp_path / "proposals.parquet"
    pq.write_table(rows_to_arrow(ROWS, table_schema(SETTINGS)), path, row_group_size=3)
    return path


def check_rows(table: ProposalTable) -> None:
    assert len(table) == 4
    assert table.keys == [row.key for row in ROWS]
    for row in ROWS:
        np.testing.assert_array_equal(table.boxes(row.key), row.boxes)
        assert table.boxes(row.key).dtype == np.float32
        assert table.size(row.key) == (row.width, row.height)
        assert table.unreadable.get(row.key) == row.error
    assert table.unreadable == {"b/Z.png": "truncated"}
    assert (table.settings, table.version) == (SETTINGS, __version__)


def test_a_rows_error_may_name_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    shard = os.fsdecode(b"caf\xe9.tar")
    rows = rows_to_arrow([Row("a.jpg", 0, 0, NONE, f"{shard}: changed")], table_schema(SETTINGS))
    assert rows.column("error").to_pylist() == ["caf\\xe9.tar: changed"]


def test_rows_are_read_back_as_written(path: Path) -> None:
    table = ProposalTable.read(path)
    assert table.path == path
    check_rows(table)
    with pytest.raises(KeyError, match=r"c\.jpg"):
        table.boxes("c.jpg")


def test_file_names_that_are_not_utf_8_are_found(tmp_path: Path) -> None:
    key = b"f\xe9e.jpg".decode("utf-8", "surrogateescape")
    path = tmp_path / "table"
    pq.write_table(rows_to_arrow([ROWS[0]._replace(key=key)], table_schema(SETTINGS)), path)
    table = ProposalTable.read(path)
    np.testing.assert_array_equal(table.boxes(key), ROWS[0].boxes)
    assert table.keys == [r"f\xe9e.jpg"]
    table.check_images(ImageFolder(tmp_path, (key,)))


def test_a_table_is_small_when_pickled_for_a_worker(path: Path) -> None:
    data = pickle.dumps(ProposalTable.read(path))
    assert len(data) < 500
    check_rows(pickle.loads(data))


def test_other_parquet_readers_understand_a_table(path: Path) -> None:
    assert pq.read_table(path).to_pylist()[0] == {
        "image": "b/é.jpg",
        "width": 40,
        "height": 30,
        "boxes": [[1.0, 2.0, 3.5, 4.0], [0.0, 0.0, 40.0, 30.0]],
        "error": None,
    }


def test_images_without_a_row_are_named(path: Path) -> None:
    table = ProposalTable.read(path)
    table.check_images(ImageFolder(Path("photos"), ("a.jpg", "z.jpg")))
    with pytest.raises(InputError, match=r"lacks 2 of the 3 images in photos, first c\.jpg; make a table"):
        table.check_images(ImageFolder(Path("photos"), ("a.jpg", "c.jpg", "d.jpg")))


def test_files_that_are_not_tables_are_refused(tmp_path: Path, path: Path) -> None:
    text, other, broken = tmp_path / "text", tmp_path / "other.parquet", tmp_path / "broken.parquet"
    text.write_text("not parquet")
    pq.write_table(pa.table({"a": [1]}), other)
    broken.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="no such proposal table"):
        ProposalTable.read(tmp_path / "missing")
    for file in (text, other, broken):
        with pytest.raises(InputError, match=f"{file.name}: is not a proposal table"):
            ProposalTable.read(file)


def test_a_table_in_another_format_version_is_refused(tmp_path: Path) -> None:
    schema = table_schema(SETTINGS)
    facts = schema.metadata[b"socodet.proposals"].replace(b'"format": 1', b'"format": 99')
    path = tmp_path / "later.parquet"
    pq.write_table(rows_to_arrow(ROWS, schema.with_metadata({b"socodet.proposals": facts})), path)
    with pytest.raises(InputError, match=f"made by socodet {__version__} in a format"):
        ProposalTable.read(path)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes every table count as large; returns the folder of shared copies."""
    monkeypatch.setattr(shared_copy, "LARGE", 0)
    monkeypatch.setattr(shared_copy, "BATCH", 3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"socodet-tables-{os.getuid()}"


READING = """
import sys, tempfile
from pathlib import Path
from socodet.proposals import shared_copy
from socodet.proposals.table import ProposalTable
shared_copy.LARGE, tempfile.tempdir = 0, sys.argv[2]
table = ProposalTable.read(sys.argv[1])
mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".arrow")]
print(len(table), len(mapped), *table.boxes("z.jpg")[0])
"""


def test_processes_map_one_copy_of_a_large_table_and_the_last_removes_it(path: Path, shared: Path) -> None:
    table = ProposalTable.read(path)
    check_rows(table)
    (copy,) = shared.glob("*.arrow")
    written = copy.stat().st_mtime_ns
    command = [sys.executable, "-c", READING, str(path), str(shared.parent)]
    assert subprocess.check_output(command, text=True).split()[0::2] == ["4", "5.0", "6.0"]
    assert copy.stat().st_mtime_ns == written  # this process has it open
    pq.write_table(rows_to_arrow(ROWS[3:], table_schema(SETTINGS)), path)  # another table with the same name
    size, mapped, *box = subprocess.check_output(command, text=True).split()
    assert (size, box) == ("1", ["5.0", "5.0", "6.0", "6.0"])
    assert int(mapped) > 0
    assert [*shared.glob("*.arrow")] == [copy]  # the other table's copy is gone


def test_a_table_is_read_even_if_no_copy_can_be_shared(
    path: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)  # anybody could plant a copy there
    check_rows(ProposalTable.read(path))
    assert "a copy of its own" in capsys.readouterr().err
    assert not [*shared.iterdir()]


def test_without_disk_space_for_a_copy_each_reader_has_its_own(
    path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    for _ in range(2):
        check_rows(ProposalTable.read(path))
    assert [one.name for one in shared.iterdir()] == ["lock"]


def test_copies_may_be_damaged_removed_or_left_by_a_crash(path: Path, shared: Path) -> None:
    shared.mkdir(mode=0o700)
    for name in ("proposals-of_another.arrow", "proposals-cut.partial"):
        (shared / name).write_bytes(b"")
    check_rows(ProposalTable.read(path))
    (copy,) = [one for one in shared.iterdir() if one.name != "lock"]
    copy.write_bytes(b"")
    check_rows(ProposalTable.read(path))
    assert copy.stat().st_size > 0
    copy.unlink()  # as a cleanup of temporary files would
    check_rows(ProposalTable.read(path))
    assert copy.exists()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_rows_are_found_whether_or_not_they_are_sorted_by_key(tmp_path: Path, order: tuple[int]) -> None:
    rows = [Row(f"{name}.jpg", 9, 9, np.full((1, 4), number, np.float32)) for number, name in enumerate("abcd")]
    path = tmp_path / "table"
    pq.write_table(rows_to_arrow([rows[i] for i in order], table_schema(SETTINGS)), path, row_group_size=2)
    table = ProposalTable.read(path)
    assert isinstance(table._sorted, range) == (order == (0, 1, 2, 3))
    for row in rows:
        np.testing.assert_array_equal(table.boxes(row.key), row.boxes)
    for name in ("", "bb", "z"):
        with pytest.raises(KeyError):
            table.boxes(name)
