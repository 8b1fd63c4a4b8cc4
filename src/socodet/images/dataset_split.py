"""A split of images that Hugging Face's `Dataset.save_to_disk` wrote, read without that library."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from socodet.errors import InputError
from socodet.images.reach import points_outside
from socodet.images.reading import LARGEST_FILE, requested_reading
from socodet.runtime.files import read_file

FIX = "write it again with Dataset.save_to_disk"
STATE = "state.json"


class DatasetSplit:
    """The rows of a saved split; the Arrow files stay on disk and are mapped into memory.

    The key is the row's number in eight digits, because the paths stored in such datasets may be missing or repeated.
    """

    def __init__(self, folder: Path, anywhere: bool | None = None) -> None:
        self.folder = folder
        self._anywhere = requested_reading().settings.outside_images if anywhere is None else anywhere
        self._images = _map_images(folder)
        self._saved = os.stat(folder / STATE).st_mtime_ns

    def __reduce__(self) -> Any:
        return DatasetSplit, (self.folder, self._anywhere)

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        """The row number."""
        return f"{range(len(self))[index]:08d}"

    def read(self, index: int) -> bytes:
        """The image's bytes; from the file that the row names when they are not in the row."""
        row = self._images[range(len(self))[index]]
        if not row.is_valid:
            raise OSError(f"row {index} has no image")
        data: bytes | None = row["bytes"].as_py()
        if data is not None:
            return data
        path: str | None = row["path"].as_py()
        if path is None:
            raise OSError(f"row {index} has neither bytes nor a path")
        if points_outside(path, self.folder / STATE, self.folder, anywhere=self._anywhere):
            raise OSError(f"row {index}: {path} leads out of the dataset, far away or to no image")
        try:
            return read_file(self.folder / path, LARGEST_FILE)
        except ValueError as error:  # a name that no file can have
            raise OSError(f"row {index}: {error}") from None

    def version(self, index: int) -> list[int] | None:
        """Bytes of image `index`, 0 if its row has only a path, and when the split was saved; None without an image.

        The row's number alone would not tell it from an image of another dataset.
        """
        row = self._images[range(len(self))[index]]
        if not row.is_valid:
            return None
        return [row["bytes"].as_buffer().size if row["bytes"].is_valid else 0, self._saved]

    @property
    def location(self) -> str:
        """The folder, as it was given."""
        return str(self.folder)


def is_dataset(folder: Path) -> bool:
    """Whether the folder is what `save_to_disk` writes: a split, or several of them."""
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in (STATE, "dataset_info.json")
    )


def open_dataset(folder: Path) -> DatasetSplit:
    """The images of a saved split, from its column of images: the one named `image`, or the only one.

    InputError when the folder holds several splits, no or several columns of images, or a damaged file.
    """
    splits = splits_of(folder)
    if splits:
        first = next(iter(splits.values()))
        raise InputError(f"{folder}: holds the splits {', '.join(splits)}; give one of them, as {first}")
    return DatasetSplit(folder)


def _map_images(folder: Path) -> pa.ChunkedArray:
    """The column of images, struct<bytes, path>."""
    tables = saved_tables(folder)
    column = _image_column(folder)
    for table in tables:
        stored = table.schema.field(column).type if column in table.column_names else pa.null()
        if not pa.types.is_struct(stored) or {"bytes", "path"} - {field.name for field in stored}:
            how = "is missing" if stored == pa.null() else f"is stored as {stored}"
            raise InputError(f"{folder}: its column {column}, of images, {how} in one of its files; {FIX}")
    return pa.chunked_array([chunk for table in tables for chunk in table.column(column).chunks])


def saved_tables(folder: Path) -> list[pa.Table]:
    """The rows of a saved split, mapped into memory. InputError when there is none, or a file is damaged."""
    listed = dataset_facts(folder, STATE, "_data_files")
    files = (
        [one.get("filename") if isinstance(one, dict) else None for one in listed] if isinstance(listed, list) else None
    )
    tables = [_map_file(folder / name) for name in _plain(files, folder / STATE)]
    if not sum(table.num_rows for table in tables):
        raise InputError(f"{folder}: a saved dataset without rows")
    return tables


def splits_of(folder: Path) -> dict[str, Path]:
    """Name → folder of the splits that `dataset_dict.json` lists; none in a folder that is itself a split."""
    if not (folder / "dataset_dict.json").is_file():
        return {}
    names = dataset_facts(folder, "dataset_dict.json", "splits")
    return {name: folder / name for name in _plain(names, folder / "dataset_dict.json")}


def _plain(names: Any, file: Path) -> list[str]:
    """The names. InputError unless they are plain names, for files or folders beside the file that lists them."""
    if isinstance(names, list) and all(isinstance(one, str) and Path(one).name == one != ".." for one in names):
        return names
    raise InputError(f"{file}: lists names that cannot be of files in its folder; {FIX}")


def dataset_facts(folder: Path, file: str, field: str) -> Any:
    """A field of one of a saved dataset's JSON files. InputError when it cannot be read."""
    try:
        return json.loads((folder / file).read_bytes())[field]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{folder / file}: cannot be read as part of a saved dataset; {FIX}") from None


def _map_file(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except FileNotFoundError:
        raise InputError(f"{path}: is missing from the saved dataset; {FIX}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is not an Arrow stream, or is damaged ({reason}); {FIX}") from None


def _image_column(folder: Path) -> str:
    features = dataset_facts(folder, "dataset_info.json", "features")
    if not isinstance(features, dict):
        raise InputError(f"{folder / 'dataset_info.json'}: does not say which columns there are; {FIX}")
    columns = [name for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "Image"]
    if "image" in columns:
        return "image"
    if len(columns) == 1:
        return str(columns[0])
    what = f"several columns of images ({', '.join(columns)})" if columns else "no column of images"
    raise InputError(f"{folder}: has {what}; rename or cast the one that is meant to an Image column `image`")
