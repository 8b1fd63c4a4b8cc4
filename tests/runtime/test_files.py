"""Where files may be written: whatever way their path is spelled."""

from pathlib import Path

import pytest

from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.images.pack import pack
from socodet.images.photographs import photographs
from socodet.reports.demo import demo
from socodet.runtime.files import check_output_file, settled
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
