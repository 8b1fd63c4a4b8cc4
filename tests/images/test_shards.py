import io
import os
import pickle
import subprocess
import tarfile
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from socodet.errors import InputError
from socodet.images import shard_index, shards
from socodet.images.patterns import files_matching
from socodet.images.shards import TarShards
from socodet.images.source import ImageSource, open_images

LONG = "deep/" * 30 + "x" * 120 + ".jpg"
FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def content(name: str) -> bytes:
    return f"bytes of {name} ".encode() * (1 + len(name) % 97)


def write_tar(path: Path, names: Iterable[str], format: str = "pax") -> Path:
    with tarfile.open(path, "w", format=FORMATS[format]) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content(name))
            tar.addfile(member, io.BytesIO(content(name)))
    return path


def keys(source: ImageSource) -> list[str]:
    return [source.key(index) for index in range(len(source))]


def contents(source: ImageSource) -> list[bytes]:
    return [source.read(index) for index in range(len(source))]


def error_of(path: str | Path) -> str:
    with pytest.raises(InputError) as raised:
        open_images(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar"])
def test_a_tar_written_by_tarfile_is_read(tmp_path: Path, format: str) -> None:
    names = ["00001.jpg", "00001.cls", "a/größe 語.PNG", "./b/2.webp", "notes.txt", "._00001.jpg", "b/._2.webp"]
    names += [] if format == "ustar" else [LONG]
    path = write_tar(tmp_path / "s.tar", names, format)
    images = ["00001.jpg", "a/größe 語.PNG", "b/2.webp"] + ([] if format == "ustar" else [LONG])
    source = open_images(path)
    assert keys(source) == images
    assert contents(source) == [content("./b/2.webp" if name == "b/2.webp" else name) for name in images]
    assert source.location == str(path)


def test_a_tar_written_by_the_system_is_read(tmp_path: Path) -> None:
    for name in ("n1/a.jpg", "n1/b.JPEG", "n2/c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content(name))
    (tmp_path / "in/n2/link.jpg").symlink_to("c.png")
    subprocess.run(["tar", "-cf", tmp_path / "s.tar", "-C", tmp_path / "in", "--sort=name", "."], check=True)
    source = open_images(tmp_path / "s.tar")
    assert keys(source) == ["n1/a.jpg", "n1/b.JPEG", "n2/c.png"]
    assert contents(source) == [content(key) for key in keys(source)]


def test_shards_of_a_folder_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", ["3.jpg", "1.jpg"], "gnu")
    write_tar(tmp_path / "a.tar", ["2.jpg"])
    write_tar(tmp_path / "empty.tar", [])
    (tmp_path / "README.txt").write_text("shards")
    (tmp_path / "._a.tar").write_bytes(b"what macOS knows of the file")
    source = open_images(tmp_path)
    assert keys(source) == ["2.jpg", "3.jpg", "1.jpg"]
    assert contents(source) == [content(name) for name in ("2.jpg", "3.jpg", "1.jpg")]
    assert source.location == str(tmp_path)


def test_names_in_two_shards_are_prefixed_with_the_shard(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "s.tar", ["1.jpg", f"{folder}.jpg"])
    source = open_images(f"{tmp_path}/*/s.tar")
    assert keys(source) == ["x/s.tar/1.jpg", "x/s.tar/x.jpg", "y/s.tar/1.jpg", "y/s.tar/y.jpg"]
    assert source.read(3) == content("y.jpg")


def test_the_later_of_two_members_with_one_name_wins(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", ["a.jpg", "b.jpg"])
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("a.jpg")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"newer"))
    source = open_images(path)
    assert keys(source) == ["b.jpg", "a.jpg"]
    assert source.read(1) == b"newer"


@pytest.mark.parametrize("format", FORMATS)
def test_hard_links_are_read_as_images(tmp_path: Path, format: str) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=FORMATS[format]) as tar:
        for name in ("./a.jpg", "notes.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(content(name))
            tar.addfile(member, io.BytesIO(content(name)))
        for name, target in (("b.jpg", "./a.jpg"), ("c.jpg", "b.jpg"), ("../d.jpg", "a.jpg"), ("d.jpg", "gone.jpg")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            tar.addfile(member)
    source = open_images(tmp_path / "s.tar")
    assert keys(source) == ["a.jpg", "b.jpg", "c.jpg"]
    assert contents(source) == [content("./a.jpg")] * 3


def test_patterns_select_shards(tmp_path: Path) -> None:
    for number in (8, 9, 10, 11):
        (tmp_path / f"train-{number:04d}.tar").touch()
    (tmp_path / "val-0.tar").touch()

    def matched(pattern: str) -> list[str]:
        return [path.name for path in files_matching(f"{tmp_path}/{pattern}")]

    assert matched("train-{0008..0010}.tar") == ["train-0008.tar", "train-0009.tar", "train-0010.tar"]
    assert matched("{val-0,train-0011}.tar") == ["val-0.tar", "train-0011.tar"]
    assert matched("{val,train}-*.tar") == ["val-0.tar", *(f"train-{n:04d}.tar" for n in (8, 9, 10, 11))]
    assert matched("train-00{08..09}.tar") == matched("train-000?.tar") == matched("train-000[89].tar")
    assert matched("{*8,train-0008}.tar") == ["train-0008.tar"]
    assert f"no file {tmp_path}/train-0012.tar" in error_of(f"{tmp_path}/train-{{0011..0012}}.tar")
    assert matched("{train-{0009,0011},val-0}.tar") == ["train-0009.tar", "train-0011.tar", "val-0.tar"]
    assert "check the pattern" in error_of(tmp_path / "test-*.tar")
    assert "a brace without its pair" in error_of(tmp_path / "train-{0008..0010.tar")


def test_the_index_is_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "s.tar", ["a.jpg", LONG, "b.png"])
    first = open_images(path)
    assert sorted(os.listdir(tmp_path)) == [".s.tar.index", "s.tar"]
    with monkeypatch.context() as patch:
        patch.setattr(shard_index, "_scan", None)  # calling it would fail
        again = open_images(path)
    assert keys(again) == keys(first) == ["a.jpg", LONG, "b.png"]
    assert contents(again) == contents(first)


def test_a_changed_shard_is_indexed_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", ["a.jpg", "b.jpg"])
    old = open_images(path)
    assert old.read(0) == content("a.jpg")
    write_tar(path, ["b.jpg", "a.jpg"])  # the same size
    os.utime(path, ns=(1, 1))
    new = open_images(path)
    assert keys(new) == ["b.jpg", "a.jpg"]
    assert contents(new) == [content("b.jpg"), content("a.jpg")]
    moved = pickle.loads(pickle.dumps(new))
    os.utime(path, ns=(2, 2))
    shards._opened.cache_clear()
    with pytest.raises(OSError, match="changed since"):
        moved.read(0)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_index_is_rebuilt(tmp_path: Path, damage: bytes | None) -> None:
    path = write_tar(tmp_path / "s.tar", ["a.jpg", "b.jpg"])
    open_images(path)
    index = tmp_path / ".s.tar.index"
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert keys(open_images(path)) == ["a.jpg", "b.jpg"]
    assert index.read_bytes() == whole


def test_an_index_that_cannot_be_written_beside_its_shard_goes_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_tar(tmp_path / "s.tar", ["a.jpg"])
    atomic_file = shard_index.atomic_file
    full = [tmp_path]

    def refuse(path: Path, partial: Path) -> object:
        if path.parent in full:
            raise PermissionError(13, "Permission denied", str(path))
        return atomic_file(path, partial)

    monkeypatch.setattr(shard_index, "atomic_file", refuse)
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "socodet/shards"
    full.append(cache)
    assert keys(open_images(shard)) == ["a.jpg"]  # neither place can be written
    assert os.listdir(cache) == []
    full.remove(cache)
    assert keys(open_images(shard)) == ["a.jpg"]
    assert os.listdir(tmp_path) == ["s.tar"]
    assert len(os.listdir(cache)) == 1
    monkeypatch.setattr(shard_index, "_scan", None)
    assert contents(open_images(shard)) == [content("a.jpg")]


def test_a_source_is_small_when_pickled_for_a_worker(tmp_path: Path) -> None:
    names = [f"{i:06d}.jpg" for i in range(2000)]
    source = open_images(write_tar(tmp_path / "s.tar", names))
    pickled = pickle.dumps(source)
    assert len(pickled) < 2000 * (len(names[0]) + 8 + 4 + 8 + 8) + 2000
    assert contents(pickle.loads(pickled)) == [content(name) for name in names]


def read_all(source: ImageSource) -> list[bytes]:
    return contents(source)


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_processes_and_threads_can_read_concurrently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.setattr(shards, "_opened", shards.lru_cache(2)(shards._opened.__wrapped__))  # fewer than shards
    names = [[f"{shard}-{i}.jpg" for i in range(40)] for shard in range(5)]
    for number, inside in enumerate(names):
        write_tar(tmp_path / f"{number}.tar", inside)
    source = open_images(tmp_path)
    assert isinstance(source, TarShards)
    right = [content(name) for inside in names for name in inside]
    source.read(0)  # open before the fork
    wrong: list[int] = []

    def reader(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(source))
        wrong.extend(index for index in order.tolist() if source.read(index) != right[index])

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with ProcessPoolExecutor(2, mp_context=get_context(start)) as pool:
        assert all(read == right for read in pool.map(read_all, [source] * 4))


def test_the_number_of_open_shards_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_opened", shards.lru_cache(3)(shards._opened.__wrapped__))
    for number in range(30):
        write_tar(tmp_path / f"{number:02d}.tar", [f"{number}.jpg"])
    source = open_images(tmp_path)
    before = len(os.listdir("/dev/fd"))
    assert len(contents(source)) == 30
    assert len(os.listdir("/dev/fd")) == before + 3


def test_mistakes_in_shards_are_one_line(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [f"{i}.jpg" for i in range(20)])
    whole = path.read_bytes()
    third = whole.index(b"2.jpg\0")
    for data, message in [
        (b"", "not an uncompressed tar"),
        (b"text" * 1000, "not an uncompressed tar"),
        (whole[: third + 300], "damaged"),  # within a header
        (whole[: third + 520], "damaged"),  # within an image
        (whole[:third] + b"#" * 200 + whole[third + 200 :], f"no file header at byte {third}"),
    ]:
        path.write_bytes(data)
        message_line = error_of(path)
        assert message in message_line
        assert message_line.startswith(str(path))
    other = write_tar(tmp_path / "other", ["a.jpg"]).read_bytes()
    for data in (whole + other, whole[:third] + bytes(1024) + whole[third + 1024 :], whole + bytes(2**26)):
        path.write_bytes(data)
        assert "goes on after its end at byte" in error_of(path)
    path.write_bytes(whole + bytes(2**20))  # a large blocking factor
    assert len(open_images(path)) == 20
    with tarfile.open(path, "w:gz") as tar:
        tar.add(__file__, "a.jpg")
    assert "not an uncompressed tar" in error_of(path)
    write_tar(path, ["a.txt"])
    assert "no image in its 1 tar shards" in error_of(path)


def test_a_shard_truncated_later_is_detected_when_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", ["a.jpg", "b.jpg"])
    modified = path.stat().st_mtime_ns
    source = open_images(path)
    os.truncate(path, 1540)
    os.utime(path, ns=(modified, modified))
    with pytest.raises(OSError, match=r"ends within b\.jpg"):
        source.read(1)
