"""Where files may be written, however their path is spelled."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.images.pack import pack
from socodet.images.photographs import photographs
from socodet.reports.demo import demo
from socodet.reports.runs import read_records
from socodet.runtime.files import (
    atomic_file,
    check_output_file,
    create_folder,
    read_note,
    remove_folder,
    resolve_path,
    write_atomically,
)
from socodet.runtime.kernel_cache import cache_folder
from socodet.training.run_folder import RunFolder


def spellings(path: Path) -> list[str]:
    """Spellings of an existing path: through a missing folder, through a link, with a trailing slash."""
    link = path.parent / "link"
    link.symlink_to(path.parent, target_is_directory=True)
    (path.parent / "deep" / "down").mkdir(parents=True)
    (path.parent / "elsewhere").symlink_to(path.parent / "deep" / "down")
    return [
        f"{path.parent}/new/../{path.name}",
        f"{path.parent}/new/deeper/../../{path.name}",
        f"{link}/{path.name}",
        f"{link}/new/../{path.name}",
        f"{path.parent}/./{path.name}/",
        f"{path.parent}/elsewhere/../../{path.name}",  # `..` of a link is the parent of its target
    ]


def test_an_existing_file_is_refused_in_every_spelling(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"theirs")
    for spelled in spellings(file):
        with pytest.raises(InputError, match="exists"):
            check_output_file(spelled, overwrite=False)
        with pytest.raises(InputError, match="exists"):
            export_run(tmp_path, spelled)
    assert not (tmp_path / "new").exists()
    assert file.read_bytes() == b"theirs"


def test_a_folder_with_other_files_is_refused_in_every_spelling(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    for spelled in spellings(folder):
        with pytest.raises(InputError, match=r"thesis|theirs"):
            RunFolder(Path(spelled)).refuse_foreign()
        for write in (lambda to: demo(photographs(), to), lambda to: pack(photographs(), to, show_progress=False)):
            with pytest.raises(InputError, match="theirs"):
                write(spelled)
    assert [file.name for file in folder.iterdir()] == ["thesis.tex"]
    assert not (tmp_path / "new").exists()


def test_checking_an_output_file_creates_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "new" / "deep" / "a.json"
    assert check_output_file(file, overwrite=False) == file
    assert not (tmp_path / "new").exists()


def test_impossible_folders_are_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for above in ("file", "file/new", "nowhere", "nowhere/new"):
        with pytest.raises(InputError, match="cannot be written"):
            check_output_file(tmp_path / above / "a.json", overwrite=False)


def test_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match="a device or a pipe"):
            check_output_file(tmp_path / name, overwrite=True)
        with pytest.raises(OSError, match="a device or a pipe"):
            write_atomically(tmp_path / name, b"ours")
    assert {path.name: path.is_fifo() for path in tmp_path.iterdir()} == {"pipe": True, "link": True}


def test_an_output_that_is_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_bytes(b"theirs")
    for link, target in (("a", "there/old"), ("b", "there/new"), ("c", "there/deep/new"), ("d", "a")):
        (tmp_path / link).symlink_to(target)
        write_atomically(check_output_file(tmp_path / link, overwrite=True), link.encode())
        assert os.readlink(tmp_path / link) == target
        assert (tmp_path / target).read_bytes() == link.encode()
    assert (tmp_path / "there" / "old").read_bytes() == b"d"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "a",
        "b",
        "c",
        "d",
        "deep",
        "new",
        "new",
        "old",
        "there",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_read_only_folder_is_refused_beforehand(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for name in ("a.json", "new/a.json"):
        with pytest.raises(InputError, match="Permission denied"):
            check_output_file(tmp_path / name, overwrite=False)


def test_new_folders_that_stay_empty_are_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    deep = tmp_path / "there" / "new" / "deep"

    def fail_within() -> None:
        with create_folder(deep):
            assert deep.is_dir()
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert not list((tmp_path / "there").iterdir())
    with create_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_simple_path_is_shown_as_given() -> None:
    assert resolve_path("runs/a") == Path("runs/a")
    assert resolve_path("/runs/missing/../a") == Path("/runs/a")


def test_kernels_are_cached_even_without_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does if the user has none
    cache_folder.cache_clear()
    try:
        assert cache_folder().is_absolute()
    finally:
        cache_folder.cache_clear()


def test_concurrent_writers_of_one_file_each_write_it_whole(tmp_path: Path) -> None:
    """Two handles in one process exclude each other like those of two processes."""
    path = tmp_path / "page.html"
    with atomic_file(path) as slow:
        slow.write(b"the beginning, ")
        with atomic_file(path) as quick:
            quick.write(b"another")
        assert path.read_bytes() == b"another"
        slow.write(b"and the end")
    assert path.read_bytes() == b"the beginning, and the end"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_leftovers_of_a_killed_process_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".page.html.partial").write_bytes(b"half of a page that was longer")
    write_atomically(tmp_path / "page.html", b"whole")
    assert (tmp_path / "page.html").read_bytes() == b"whole"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_file_name_of_maximal_length_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".jpg", "ü" * 125 + ".jpg"):
        write_atomically(tmp_path / name, b"image")
        assert (tmp_path / name).read_bytes() == b"image"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_is_renamed_before_its_files_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rmtree = tmp_path / "checkpoints", shutil.rmtree

    def killed(path: Path, **keywords: Any) -> None:
        rmtree(path, **keywords)
        if not folder.exists():
            raise KeyboardInterrupt

    for _ in range(2):  # the second time with leftovers of the first
        folder.mkdir()
        (folder / "one").touch()
        (tmp_path / ".checkpoints.partial" / "older").mkdir(parents=True, exist_ok=True)
        with monkeypatch.context() as within:
            within.setattr(shutil, "rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                remove_folder(folder)
        assert not folder.exists()
    remove_folder(folder)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_moved_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "one").touch()
    monkeypatch.setattr(Path, "replace", refuse)
    remove_folder(tmp_path / "volume")
    assert not list(tmp_path.rglob("one"))


def test_a_json_file_without_an_object_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "note.json").write_text("[]")
    with pytest.raises(InputError, match=r"note\.json"):
        read_note(tmp_path / "note.json")


def test_a_path_through_a_loop_of_links_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "one")
    for path in (tmp_path / "one", tmp_path / "one" / ".." / "run"):
        with pytest.raises((InputError, OSError)):
            RunFolder(path).describe()
        with pytest.raises(InputError, match=r"one|run"):
            read_records([path, path])
