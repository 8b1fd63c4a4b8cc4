"""A malicious file of each kind that may come from the internet: refused in one line, or its bad parts left out.

None of them runs code, which would write a sentinel file, and nothing is written outside the given folder.
"""

import io
import pickle
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from malicious import PHOTOGRAPH, SCRIPT, Sentinel, one_line, refused

from socodet.cli import main
from socodet.errors import UnreadableImageError
from socodet.images import shard_index
from socodet.images.decode import decode_image, image_size
from socodet.images.source import open_images
from socodet.proposals import table as tables
from socodet.proposals.foreign_formats import read_foreign
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable, table_schema

# Tar shards


def member(name, kind=tarfile.REGTYPE, **fields):
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def test_shard_members_outside_the_shard_or_not_files_are_ignored(folder, outside, capsys):
    with tarfile.open(folder / "s.tar", "w") as tar:
        for name in ("a.jpg", "../../evil.jpg", "/evil.jpg", "x/../../../evil.jpg"):
            tar.addfile(member(name, size=len(PHOTOGRAPH)), io.BytesIO(PHOTOGRAPH))
        for name, kind in (("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)):
            tar.addfile(member(name, kind, linkname=str(outside / "private.jpg")))
        for name, kind in (("p.jpg", tarfile.FIFOTYPE), ("z.jpg", tarfile.CHRTYPE)):
            tar.addfile(member(name, kind, devmajor=1, devminor=5))
    for _ in range(2):  # once by scanning, once from the index
        source = open_images(folder)
        assert [source.key(index) for index in range(len(source))] == ["a.jpg"]
        assert source.read(0) == PHOTOGRAPH
    assert "3 images left out" in capsys.readouterr().err
    main(["pack", str(folder), "--output", str(folder / "packed"), "--workers", "1"])
    with tarfile.open(folder / "packed" / "shard-000000.tar") as tar:
        assert tar.getnames() == ["a.jpg"]


def test_shards_with_false_sizes_or_huge_images_are_refused(folder, monkeypatch):
    entry = member("a.jpg", size=2**40)
    (folder / "s.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + PHOTOGRAPH)
    assert "damaged" in refused(open_images, folder)
    with (folder / "s.tar").open("wb") as file:  # sparse, so it takes no disk space
        file.write(member("a.jpg", size=2**33).tobuf())
        file.truncate(2**33 + 10240)
    with pytest.raises(OSError, match="larger"):
        open_images(folder).read(0)
    with (folder / "a.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="larger"):
        open_images(folder).read(0)


@pytest.mark.parametrize(
    "change",
    [
        {"start": [0, 2**62]},
        {"start": [-1, 0]},
        {"size": [5, -5]},
        {"size": [2**40, 5]},
        {"name": [b"../../evil.jpg", b"b.jpg"]},
        {"name": [None, b"b.jpg"]},
        {"start": ["text", "text"]},
    ],
)
def test_an_impossible_index_beside_a_shard_is_not_used(folder, change):
    with tarfile.open(folder / "s.tar", "w") as tar:
        for name in ("a.jpg", "b.jpg"):
            tar.addfile(member(name, size=700), io.BytesIO(bytes(700)))
    source = open_images(folder / "s.tar")
    index = folder / ".s.tar.index"
    table = pa.ipc.open_file(index).read_all()
    ((column, values),) = change.items()
    table = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
    with pa.ipc.new_file(index, table.schema) as writer:
        writer.write_table(table)
    again = open_images(folder / "s.tar")
    assert [again.key(k) for k in range(2)] == [source.key(k) for k in range(2)] == ["a.jpg", "b.jpg"]
    assert again.read(1) == bytes(700)
    assert shard_index.index_shard(folder / "s.tar").sizes.tolist() == [700, 700]


# Proposal tables


def write_table(file, names, schema=None):
    schema = schema or table_schema(ProposalSettings())
    count = len(names)
    boxes = pa.array([[[0, 0, 9, 9]]] * count, schema.field("boxes").type)
    columns = [pa.array(names, pa.string()), pa.array([400] * count, pa.int32()), pa.array([266] * count, pa.int32())]
    pq.write_table(pa.Table.from_arrays([*columns, boxes, pa.array([None] * count, pa.string())], schema=schema), file)


def test_a_table_makes_no_other_file_be_read(folder):
    """Names in a table are never opened; its rows are looked up by the names of the user's images."""
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    write_table(folder / "p.parquet", ["../../private.jpg", "/etc/passwd", SCRIPT])
    assert "lacks 1 of the 1 images" in refused(
        ProposalTable.read(folder / "p.parquet").check_images, open_images(folder)
    )
    write_table(folder / "p.parquet", ["a.jpg", "../../private.jpg"])
    ProposalTable.read(folder / "p.parquet").check_images(open_images(folder))


def test_pickled_code_in_columns_is_not_run(folder, outside):
    code = pickle.dumps(Sentinel(outside / "sentinel"))
    schema = table_schema(ProposalSettings())
    for name in ("arrow.py_extension_type", "arrow.json", "pandas"):
        marks = {"ARROW:extension:name": name, "ARROW:extension:metadata": code}
        field = schema.field("image").with_metadata(marks)
        write_table(folder / "p.parquet", ["a.jpg"], schema.set(0, field))
        for read in (ProposalTable.read, read_foreign):
            assert one_line(read, folder / "p.parquet") is not False
    pa_table = pa.table({"image": ["a"], "boxes": pa.array([code], pa.binary())})
    pq.write_table(pa_table, folder / "p.parquet")
    refused(read_foreign, folder / "p.parquet")


def test_a_small_table_of_too_many_values_for_memory_is_refused(folder, monkeypatch):
    write_table(folder / "p.parquet", ["a.jpg"] * 20_000)
    monkeypatch.setattr(tables, "LEAST_BYTES", 2**40)
    assert "do not fit into the memory" in refused(ProposalTable.read, folder / "p.parquet")
    pq.write_table(pa.table({"image": ["a"], "xywh": [[[1, 2, 3, 4]]]}), folder / "q.parquet")
    assert "do not fit into the memory" in refused(read_foreign, folder / "q.parquet")


def test_pickled_arrays_and_arrays_with_false_sizes_are_refused(folder, outside):
    np.save(folder / "a.npy", np.array([Sentinel(outside / "sentinel")]), allow_pickle=True)
    refused(read_foreign, folder)
    with (folder / "a.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 4)}
        np.lib.format.write_array_header_1_0(file, header)
    refused(read_foreign, folder)
    (folder / "a.npy").write_bytes(pickle.dumps(Sentinel(outside / "sentinel")))
    refused(read_foreign, folder)
    (folder / "a.npy").unlink()
    (folder / "a.json").write_text("[" * 100_000)
    refused(read_foreign, folder / "a.json")


# Images


def png(width, height):
    from zlib import compress, crc32

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compress(bytes(99))) + chunk(b"IEND", b"")


def test_images_above_the_pixel_limit_are_not_decoded(folder):
    jpeg = bytearray(PHOTOGRAPH)
    at = next(k for k in range(len(jpeg)) if jpeg[k] == 0xFF and jpeg[k + 1] in (0xC0, 0xC2))
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    for bomb in (png(60_000, 60_000), png(2**31 - 1, 2**31 - 1), bytes(jpeg)):
        for read in (decode_image, image_size):
            with pytest.raises(UnreadableImageError) as told:
                read(bomb)
            assert "\n" not in str(told.value)
