"""The proposal table: rows are read as written, and other files are refused."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from socodet._version import __version__
from socodet.errors import InputError
from socodet.images.source import ImageFolder
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
    assert table.total_boxes == 3
    assert table.keys == [row.key for row in ROWS]
    for row in ROWS:
        np.testing.assert_array_equal(table.boxes(row.key), row.boxes)
        assert table.boxes(row.key).dtype == np.float32
        assert table.size(row.key) == (row.width, row.height)
        assert table.unreadable.get(row.key) == row.error
    assert table.unreadable == {"b/Z.png": "truncated"}
    assert (table.settings, table.version) == (SETTINGS, __version__)


def test_rows_are_read_as_written(path: Path) -> None:
    table = ProposalTable.read(path)
    assert table.path == path
    check_rows(table)
    with pytest.raises(KeyError, match=r"c\.jpg"):
        table.boxes("c.jpg")


def test_file_names_that_are_not_utf_8(tmp_path: Path) -> None:
    key = b"f\xe9e.jpg".decode("utf-8", "surrogateescape")
    path = tmp_path / "table"
    pq.write_table(rows_to_arrow([ROWS[0]._replace(key=key)], table_schema(SETTINGS)), path)
    table = ProposalTable.read(path)
    np.testing.assert_array_equal(table.boxes(key), ROWS[0].boxes)
    assert table.keys == [r"f\xe9e.jpg"]
    table.check_images(ImageFolder(tmp_path, (key,)))


def test_pickled_for_a_worker_it_is_a_few_bytes(path: Path) -> None:
    data = pickle.dumps(ProposalTable.read(path))
    assert len(data) < 500
    check_rows(pickle.loads(data))


def test_other_readers_understand_it(path: Path) -> None:
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


def test_no_table(tmp_path: Path, path: Path) -> None:
    text, other, broken = tmp_path / "text", tmp_path / "other.parquet", tmp_path / "broken.parquet"
    text.write_text("not parquet")
    pq.write_table(pa.table({"a": [1]}), other)
    broken.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="no such proposal table"):
        ProposalTable.read(tmp_path / "missing")
    for file in (text, other, broken):
        with pytest.raises(InputError, match=f"{file.name}: is not a proposal table"):
            ProposalTable.read(file)


def test_a_table_of_another_form_is_refused(tmp_path: Path) -> None:
    schema = table_schema(SETTINGS)
    facts = schema.metadata[b"socodet.proposals"].replace(b'"format": 1', b'"format": 99')
    path = tmp_path / "later.parquet"
    pq.write_table(rows_to_arrow(ROWS, schema.with_metadata({b"socodet.proposals": facts})), path)
    with pytest.raises(InputError, match=f"made by socodet {__version__} in a format"):
        ProposalTable.read(path)
