import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from socodet.errors import InputError
from socodet.images.source import open_images


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_jpegs_with_any_usual_suffix_are_read(tmp_path: Path) -> None:
    names = ["a.jpg", "b.JPEG", "c.jfif", "d.JPE", "e.dib", "f.MPO", "g.Avif", "h.jP2", "i.PGM", "j.HEIC"]
    touch(tmp_path, *names)
    source = open_images(tmp_path)
    assert [source.key(index) for index in range(len(source))] == names


def test_files_skipped_for_their_suffix_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jxl", "c.JXL", "d.psd", "e", "LICENSE", "a.txt", "a.xml", ".hidden.jxl")
    assert len(open_images(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "skipped 4 files" in said
    assert "2 .jxl, 1 .psd, 1 without one (first: c.JXL)" in said
    open_images(tmp_path)
    assert capsys.readouterr().err == ""  # reported once


def test_a_folder_of_images_only_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "a.jpg", "README", "notes.md", "labels/a.json")
    open_images(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_folder_of_mostly_unsupported_files_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", *(f"{number}.jxl" for number in range(20)))
    with pytest.raises(InputError, match=r"1 images, and skipped 20 files .*20 \.jxl .*convert or rename"):
        open_images(tmp_path)
    touch(tmp_path, "b.jpg")
    assert len(open_images(tmp_path)) == 2


def test_unsupported_images_in_a_shard_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.jpg", "a.cls", "a.caption", "b.jxl", "b.cls"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    assert len(open_images(tmp_path / "s.tar")) == 1
    assert "skipped 1 files" in capsys.readouterr().err
    (tmp_path / "link.tar").symlink_to(tmp_path / "s.tar")
    open_images(tmp_path / "link.tar")  # from the cached index
    assert "1 .jxl (first: b.jxl)" in capsys.readouterr().err


HEIC_MISSING = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pillow_heif" else found(name, *rest)
from socodet.errors import InputError
from socodet.images.decode import decode_image
from socodet.images.source import open_images
for folder in sys.argv[1:]:
    try:
        print(len(open_images(folder)))
        decode_image(b"....ftypheic")
    except InputError as error:
        print(error)
"""


def test_without_pillow_heif_heic_files_are_counted_and_the_extra_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "some/a.jpg", "some/b.heic", "some/C.HEIC", "all/b.heif")
    ran = subprocess.run(
        [sys.executable, "-c", HEIC_MISSING, str(tmp_path / "some"), str(tmp_path / "all")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "skipped 2 files" in ran.stderr
    assert "socodet[heif]" in ran.stderr
    one, undecoded, refused = ran.stdout.splitlines()
    assert one == "1"
    assert "socodet[heif]" in undecoded
    assert "0 images, and skipped 1 files" in refused
    assert "socodet[heif]" in refused
