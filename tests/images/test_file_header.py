"""Reading an image's size from the beginning of its file, and refusing huge images before reading them."""

import tracemalloc
from contextlib import nullcontext, suppress
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hand_made_sets import made_image
from PIL import Image

from socodet.errors import TooManyPixelsError, UnreadableImageError
from socodet.images import file_header
from socodet.images.decode import image_size
from socodet.images.file_header import image_file_size, read_image_file
from socodet.images.pack import pack
from socodet.images.reading import PixelSettings, read_images_as
from socodet.images.source import open_images, read_pixels, size_of
from socodet.runtime import files as runtime_files

PIXELS = np.arange(60 * 40 * 3).reshape(60, 40, 3).astype(np.uint8)
SIDE = 50_000


@pytest.fixture
def huge(tmp_path):
    """2.5 GB of grey pixels in a sparse file, beside a small image."""
    (tmp_path / "images").mkdir()
    file = tmp_path / "images" / "huge.tif"
    tifffile.memmap(file, shape=(SIDE, SIDE), dtype=np.uint8).flush()
    Image.fromarray(PIXELS).save(tmp_path / "images" / "small.png")
    return file


@pytest.fixture(autouse=True)
def _little_memory():
    """Limits memory, so that reading a huge file would fail."""
    tracemalloc.start()
    yield
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**26


def test_a_huge_tiff_is_refused_before_it_is_read(huge, tmp_path):
    source = open_images(huge.parent)  # samples the values of TIFFs
    for read in (read_pixels, size_of):
        with pytest.raises(TooManyPixelsError, match=r"50000x50000.*--max-pixels"):
            read(source, 0)
    assert read_pixels(source, 1).shape == PIXELS.shape
    assert image_file_size(huge, max_pixels=SIDE**2) == (SIDE, SIDE)
    packed = pack(huge.parent, tmp_path / "shards", show_progress=False)
    assert packed.images == 1
    assert [key for key, _ in packed.unreadable] == ["huge.tif"]


def files(folder):
    Image.fromarray(PIXELS).save(folder / "a.jpg", exif=turned())
    Image.fromarray(PIXELS).save(folder / "late.jpg", exif=turned(), icc_profile=bytes(2 * file_header.HEAD))
    Image.fromarray(PIXELS).save(folder / "a.tif", exif=turned())
    Image.fromarray(PIXELS).save(folder / "a.png", exif=turned())
    Image.fromarray(PIXELS).save(folder / "a.webp", exif=turned())
    bands = np.zeros((60, 40, 7), np.uint16)
    tifffile.imwrite(folder / "bands.tif", bands, photometric="minisblack", planarconfig="contig")
    for name, most in (("cut.jpg", 12), ("cut.png", 18), ("cut.tif", 6)):
        (folder / name).write_bytes((folder / f"a{name[3:]}").read_bytes()[:most])
    return sorted(folder.iterdir())


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("large", [0, file_header.LARGE])
def test_size_and_bytes_match_the_whole_file(tmp_path, monkeypatch, large):
    monkeypatch.setattr(file_header, "LARGE", large)
    found = files(tmp_path)
    assert len(found) == 9
    for file in found:
        data = file.read_bytes()
        assert read_image_file(file, 60 * 40) == data
        broken = file.stem == "cut"
        with pytest.raises(UnreadableImageError) if broken else nullcontext():
            assert image_file_size(file) == image_size(data) == ((40, 60) if file.stem == "bands" else (60, 40))
        if not broken and file.name not in ("a.webp", "late.jpg"):
            with pytest.raises(TooManyPixelsError) if not large else nullcontext():
                read_image_file(file, 60 * 40 - 1)


def test_a_file_is_opened_only_once(tmp_path, monkeypatch):
    """Opening files is slow on a network drive."""
    found, opened = files(tmp_path), []
    plain = runtime_files.open_file
    for module in (file_header, runtime_files):
        monkeypatch.setattr(module, "open_file", lambda path: opened.append(path) or plain(path))
    for file in found:
        read_image_file(file, 60 * 40)
        with suppress(UnreadableImageError):
            image_file_size(file)
    assert opened == [file for file in found for _ in range(2)]


def test_max_pixels_applies_to_annotated_images(tmp_path, monkeypatch):
    monkeypatch.setattr(file_header, "LARGE", 0)
    Image.fromarray(PIXELS).save(tmp_path / "a.tif")
    image = replace(made_image(1, [], size=(40, 60)), file=tmp_path / "a.tif")
    with read_images_as(PixelSettings(max_pixels=60 * 40 - 1)), pytest.raises(TooManyPixelsError):
        image.read()
    with read_images_as(PixelSettings(max_pixels=60 * 40)):
        assert image.read() == (tmp_path / "a.tif").read_bytes()
