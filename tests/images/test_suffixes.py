import io
import tarfile
from pathlib import Path

import pytest

from socodet.errors import InputError
from socodet.images.source import open_images


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_jpeg_under_any_of_its_endings_is_read(tmp_path: Path) -> None:
    names = ["a.jpg", "b.JPEG", "c.jfif", "d.JPE", "e.dib"]
    touch(tmp_path, *names)
    source = open_images(tmp_path)
    assert [source.key(index) for index in range(len(source))] == names


def test_files_skipped_by_their_endings_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "a.jpg", "sub/b.heic", "c.HEIC", "d.avif", "e", "LICENSE", "a.txt", "a.xml", ".hidden.heic")
    assert len(open_images(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "skipped 4 files" in said
    assert "2 .heic, 1 .avif, 1 without one (first: c.HEIC)" in said
    open_images(tmp_path)
    assert capsys.readouterr().err == ""  # said once


def test_a_folder_of_images_alone_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "a.jpg", "README", "notes.md", "labels/a.json")
    open_images(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_folder_of_which_hardly_a_file_is_read_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", *(f"{number}.heic" for number in range(20)))
    with pytest.raises(InputError, match=r"1 images, and skipped 20 files .*20 \.heic .*convert or rename"):
        open_images(tmp_path)
    touch(tmp_path, "b.jpg")
    assert len(open_images(tmp_path)) == 2


def test_images_in_a_shard_that_cannot_be_read_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.jpg", "a.cls", "a.caption", "b.heic", "b.cls"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    assert len(open_images(tmp_path / "s.tar")) == 1
    assert "skipped 1 files" in capsys.readouterr().err
    (tmp_path / "link.tar").symlink_to(tmp_path / "s.tar")
    open_images(tmp_path / "link.tar")  # by the kept index
    assert "1 .heic (first: b.heic)" in capsys.readouterr().err
