"""Where files may be written: whatever way their path is spelled."""

import os
from pathlib import Path

import pytest

from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.images.pack import pack
from socodet.images.photographs import photographs
from socodet.reports.demo import demo
from socodet.runtime.files import check_output_file, made_folder, settled, write_atomically
from socodet.runtime.kernel_cache import cache_folder
from socodet.training.run_folder import RunFolder


def spellings(path: Path) -> list[str]:
    """Ways to another's file or folder: by a folder that does not exist yet, by a link, with a slash behind."""
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
        f"{path.parent}/elsewhere/../../{path.name}",  # `..` of a link is above what it leads to
    ]


def test_an_existing_file_is_refused_however_it_is_spelled(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"theirs")
    for spelled in spellings(file):
        with pytest.raises(InputError, match="exists"):
            check_output_file(spelled, overwrite=False)
        with pytest.raises(InputError, match="exists"):
            export_run(tmp_path, spelled)
    assert not (tmp_path / "new").exists()
    assert file.read_bytes() == b"theirs"


def test_a_folder_of_others_is_refused_however_it_is_spelled(tmp_path: Path) -> None:
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


def test_a_file_that_may_be_written_is_not_prepared_for(tmp_path: Path) -> None:
    file = tmp_path / "new" / "deep" / "a.json"
    assert check_output_file(file, overwrite=False) == file
    assert not (tmp_path / "new").exists()


def test_what_can_hold_no_file_is_refused_beforehand(tmp_path: Path) -> None:
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


def test_what_a_link_leads_to_is_written(tmp_path: Path) -> None:
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_refused_beforehand(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for name in ("a.json", "new/a.json"):
        with pytest.raises(InputError, match="Permission denied"):
            check_output_file(tmp_path / name, overwrite=False)


def test_of_new_folders_those_that_stay_empty_are_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    deep = tmp_path / "there" / "new" / "deep"

    def fail_within() -> None:
        with made_folder(deep):
            assert deep.is_dir()
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert not list((tmp_path / "there").iterdir())
    with made_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_path_without_detours_is_shown_as_it_was_given() -> None:
    assert settled("runs/a") == Path("runs/a")
    assert settled("/runs/missing/../a") == Path("/runs/a")


def test_kernels_have_a_place_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does for a user without one
    cache_folder.cache_clear()
    try:
        assert cache_folder().is_absolute()
    finally:
        cache_folder.cache_clear()
