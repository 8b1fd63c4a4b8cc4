import json
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from socodet.errors import InputError
from socodet.images.source import open_images, version_of

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    "image": {"_type": "Image"},
}


def save(folder: Path, *files: list[dict[str, object] | None], features: object = FEATURES) -> Path:
    """Writes what `Dataset.save_to_disk` of the library `datasets` would."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{number:05d}-of-{len(files):05d}.arrow" for number in range(len(files))]
    column = next((name for name, kind in features.items() if kind["_type"] == "Image"), "image")
    schema = pa.schema([("label", pa.int64()), (column, IMAGE)])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for name, rows in zip(names, files, strict=True):
        table = pa.table([pa.array(range(len(rows)), pa.int64()), pa.array(rows, IMAGE)], schema=schema)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            writer.write_table(table, max_chunksize=2)
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
    }
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"citation": "", "features": features, "splits": {}}))
    return folder


def row(data: bytes | None, path: str | None = None) -> dict[str, object]:
    return {"bytes": data, "path": path}


def test_rows_of_all_files_are_read_in_order(tmp_path: Path) -> None:
    rows = [row(f"picture {i}".encode() * (i + 1), None if i % 2 else "same.jpg") for i in range(8)]
    folder = save(tmp_path / "split", rows[:5], rows[5:])
    source = pickle.loads(pickle.dumps(open_images(folder)))
    assert [source.key(index) for index in range(len(source))] == [f"{i:08d}" for i in range(8)]
    assert [source.read(index) for index in range(8)] == [r["bytes"] for r in rows]
    assert source.location == str(folder)
    with pytest.raises(IndexError):
        source.read(8)


def test_workers_receive_paths_and_not_the_data(tmp_path: Path) -> None:
    source = open_images(save(tmp_path, [row(os.urandom(100_000))] * 20))
    assert len(pickle.dumps(source)) < 500


def test_a_forked_worker_reads_the_same(tmp_path: Path) -> None:
    source = open_images(save(tmp_path, [row(b"one"), row(b"two"), row(b"three")]))
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            failed = int([source.read(i) for i in range(3)] != [b"one", b"two", b"three"])
        finally:
            os._exit(failed)
    assert os.waitpid(child, 0)[1] == 0


def test_images_outside_the_table_are_read_or_reported(tmp_path: Path) -> None:
    (tmp_path / "outside.jpg").write_bytes(b"outside")
    folder = save(tmp_path / "s", [row(None, str(tmp_path / "outside.jpg")), row(None), None, row(None, "gone.jpg")])
    source = open_images(folder)
    assert source.read(0) == b"outside"
    for index, message in [(1, "row 1 has neither"), (2, "row 2 has no image"), (3, "gone.jpg")]:
        with pytest.raises(OSError, match=message):
            source.read(index)


def test_a_file_too_large_for_an_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socodet.images.dataset_split.LARGEST_FILE", 10)
    (tmp_path / "small.jpg").write_bytes(b"ten bytes.")
    (tmp_path / "large.jpg").write_bytes(b"more than ten")
    source = open_images(save(tmp_path / "s", [row(None, "../small.jpg"), row(None, "../large.jpg")]))
    assert source.read(0) == b"ten bytes."
    with pytest.raises(OSError, match="larger than 10 bytes"):
        source.read(1)


def test_the_image_column_is_found_or_must_be_named(tmp_path: Path) -> None:
    sound = {"sound": {"_type": "Audio"}, "photo": {"_type": "Image", "mode": None}}
    assert open_images(save(tmp_path / "a", [row(b"p")], features=sound)).read(0) == b"p"
    with_maps = {"image": {"_type": "Image"}, "map": {"_type": "Image"}}
    assert open_images(save(tmp_path / "b", [row(b"i")], features=with_maps)).read(0) == b"i"
    for features, message in [
        ({"left": {"_type": "Image"}, "right": {"_type": "Image"}}, r"several columns of images \(left, right\)"),
        ({"text": {"dtype": "string", "_type": "Value"}}, "no column of images"),
    ]:
        with pytest.raises(InputError, match=message):
            open_images(save(tmp_path / "c", [row(b"i")], features=features))


def test_mistakes_in_a_saved_dataset_are_one_line(tmp_path: Path) -> None:
    def error_of(folder: Path) -> str:
        with pytest.raises(InputError) as raised:
            open_images(folder)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "without rows" in error_of(save(tmp_path / "empty", []))
    for number, columns in enumerate(({"image": [b"i"]}, {"image": [{"path": "i"}]}, {"other": [1]})):
        stored = save(tmp_path / f"stored{number}", [row(b"i")])
        table = pa.table(columns)
        with (
            pa.OSFile(str(stored / "data-00000-of-00001.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as writer,
        ):
            writer.write_table(table)
        assert "column image" in error_of(stored)
    folder = save(tmp_path / "all/train", [row(b"a" * 1000)], [row(b"b" * 1000)])
    second = folder / "data-00001-of-00002.arrow"
    whole = second.read_bytes()
    second.write_bytes(whole[:700])
    assert "data-00001-of-00002.arrow: is not an Arrow stream, or is damaged" in error_of(folder)
    second.write_bytes(b"")
    assert "data-00001-of-00002.arrow: is not an Arrow stream, or is damaged" in error_of(folder)
    second.unlink()
    assert "data-00001-of-00002.arrow: is missing" in error_of(folder)
    (folder / "state.json").write_text("{}")
    assert "state.json: cannot be read" in error_of(folder)
    (tmp_path / "all/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    message = error_of(tmp_path / "all")
    assert "train, test" in message
    assert str(folder) in message


def test_rows_of_another_dataset_have_other_versions(tmp_path: Path) -> None:
    """Although their names, which are row numbers, are the same."""
    rows = [row(b"one"), row(b"three", "a.jpg"), row(None, "b.jpg"), None]
    folder = save(tmp_path / "s", rows)
    source = pickle.loads(pickle.dumps(open_images(folder)))
    first = [version_of(source, index) for index in range(4)]
    assert [version and version[0] for version in first] == [3, 5, 0, None]
    assert [version_of(open_images(folder), index) for index in range(4)] == first
    state = save(folder, [row(b"one"), row(b"other"), row(None, "b.jpg"), None]) / "state.json"
    os.utime(state, ns=(0, state.stat().st_mtime_ns + 10**9))
    again = open_images(folder)
    assert all(version_of(again, index) != first[index] for index in range(3))
