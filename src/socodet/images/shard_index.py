"""The index of one tar shard: its images and where their bytes are. Built once and cached."""

import hashlib
import json
import os
import posixpath
import tarfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.suffixes import SUFFIXES, UNREAD
from socodet.runtime.files import atomic_file

FORMAT = 5
"""Version of cached indices; other versions are built again."""
METADATA_KEY = b"socodet.shard"
SKIPPED_KEY = b"socodet.skipped"
ASTRAY_KEY = b"socodet.astray"
LONGEST_END = 2**26
"""Maximum number of zero bytes at the end of a tar; programs write at most a few MiB."""
COLUMNS = {"name": pa.binary(), "start": pa.int64(), "size": pa.int64()}


@dataclass(frozen=True)
class ShardIndex:
    """The images of one shard, in the order they have in it."""

    modified: int
    """When the shard was last changed, nanoseconds."""
    names: list[str]
    """Names as in the tar, without a leading `./`."""
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    skipped: list[str]
    """Members that are images of a format that cannot be read."""
    astray: list[str]
    """Members whose names lead out of the shard; they are left out."""


def index_shard(path: Path) -> ShardIndex:
    """The index of an uncompressed tar file (ustar, GNU or PAX), from an earlier call if the file has not changed.

    Images are the plain files with an image's suffix (`SUFFIXES`), except those that macOS adds as `._NAME`, and hard
    links to them. Of two with the same name the later counts, as when the tar is unpacked; names that lead out of the
    tar are left out. The index is kept as `.NAME.index` beside the shard, or in the user's cache if that cannot be
    written; if neither can, the shard is scanned each time.

    InputError when the file cannot be read, is no such tar, or is damaged.
    """
    try:
        facts = os.stat(path)
        state = {"format": FORMAT, "size": facts.st_size, "modified": facts.st_mtime_ns, "suffixes": " ".join(SUFFIXES)}
        places = _places(path)
        for place in places:
            table = _cached_index(place, state)
            if table is not None:
                break
        else:
            table = _scan(path)
            _cache_index(
                table.replace_schema_metadata({**table.schema.metadata, METADATA_KEY: json.dumps(state)}), places
            )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); make it readable") from None
    names = [name.decode("utf-8", "surrogateescape") for name in table.column("name").to_pylist()]
    starts, sizes = (table.column(column).to_numpy() for column in ("start", "size"))
    left_out = (json.loads(table.schema.metadata[key]) for key in (SKIPPED_KEY, ASTRAY_KEY))
    return ShardIndex(facts.st_mtime_ns, names, starts, sizes, *left_out)


def _scan(path: Path) -> pa.Table:
    found: dict[bytes, tuple[int, int]] = {}
    skipped: list[str] = []
    astray: list[str] = []
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or it keeps every header
                name = member.name.removeprefix("./")
                place = (member.offset_data, member.size) if member.isreg() and not member.issparse() else None
                if member.islnk():  # another name of a file before it
                    place = found.get(_key(member.linkname.removeprefix("./")))
                if place and _is_image(name) and _points_outside(name):
                    astray.append(name)
                elif place and _is_image(name):
                    found.pop(_key(name), None)
                    found[_key(name)] = place
                elif member.isreg() and posixpath.splitext(name)[1].lower() in UNREAD:
                    skipped.append(name)
            end = tar.offset
        _check_end(path, end)
        places = np.array(list(found.values()), np.int64).reshape(-1, 2)
    except (tarfile.TarError, ArithmeticError, ValueError) as error:  # the latter two from damaged numbers
        raise InputError(
            f"{path}: is not an uncompressed tar file, or is damaged ({' '.join(str(error).split())}); make it again"
        ) from None
    columns = [pa.array(found, pa.binary()), pa.array(places[:, 0].copy()), pa.array(places[:, 1].copy())]
    return pa.table(columns, list(COLUMNS), metadata={SKIPPED_KEY: json.dumps(skipped), ASTRAY_KEY: json.dumps(astray)})


def _check_end(path: Path, end: int) -> None:
    """ReadError unless only zeros, or nothing, follow: tarfile takes any block that is not a header for the end."""
    with path.open("rb") as file:
        length = file.seek(0, 2) - end
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no file header at byte {end}")
        if length > LONGEST_END or any(more.strip(b"\0") for more in iter(lambda: file.read(2**20), b"")):
            raise tarfile.ReadError(f"goes on after its end at byte {end}: joined with another, or a part is missing")


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith("._")


def _points_outside(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/") or "\0" in name


def _cached_index(place: Path, state: dict[str, object]) -> pa.Table | None:
    with suppress(OSError, pa.ArrowException, KeyError, ValueError):
        with pa.OSFile(str(place)) as file:
            table = pa.ipc.open_file(file).read_all()
        if json.loads(table.schema.metadata[METADATA_KEY]) == state and _is_index(table, int(str(state["size"]))):
            return table
    return None


def _is_index(table: pa.Table, size: int) -> bool:
    """Whether it has the columns of an index, and places within a shard of `size` bytes; it may come with the shard."""
    table.validate(full=True)
    if table.schema.names != list(COLUMNS) or table.schema.types != list(COLUMNS.values()):
        return False
    if any(table.column(name).null_count for name in COLUMNS):
        return False
    starts, sizes = table.column("start").to_numpy(), table.column("size").to_numpy()
    names = table.column("name").to_pylist()
    left_out = [json.loads(table.schema.metadata[key]) for key in (SKIPPED_KEY, ASTRAY_KEY)]
    return (
        all(isinstance(listed, list) and all(isinstance(name, str) for name in listed) for listed in left_out)
        and not any(_points_outside(name.decode("utf-8", "surrogateescape")) for name in names)
        and bool(((starts >= 0) & (sizes >= 0) & (starts <= size - sizes)).all())
    )


def _cache_index(table: pa.Table, places: list[Path]) -> None:
    """Writes the index to the first writable place, completely or not at all, even if other processes write it too."""
    for place in places:
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
            with atomic_file(place, unfinished) as file:
                os.fchmod(file.fileno(), 0o644)  # for all who read the shards, whatever the umask
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
            return


def _places(path: Path) -> list[Path]:
    """Where the index of a shard may be kept, best first."""
    beside = path.with_name(f".{path.name}.index")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not cache.is_absolute():  # a user without a home
        return [beside]
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return [beside, cache / "socodet" / "shards" / f"{digest}.index"]
