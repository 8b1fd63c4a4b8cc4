"""Which page of a TIFF is read: the first full-size one, not a thumbnail before it."""

import io
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from socodet.errors import UnreadableImageError
from socodet.images.decode import decode_image, image_size
from socodet.images.file_header import image_file_size
from socodet.images.reading import PixelReading
from socodet.images.tiff import tiff_size

WHOLE = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
TURNED = (274, 3, 1, 6, True)
"""The orientation tag for a quarter turn clockwise."""


def tiff(*pages: tuple[np.ndarray, int], **options: object) -> bytes:
    """A TIFF of pages with their NewSubfileType; the options apply to full-size pages."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for pixels, kind in pages:
            writer.write(pixels, photometric="rgb", subfiletype=kind, **({} if kind & 1 else options))
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("thumbnails", [1, 2])
def test_a_thumbnail_before_the_image_is_not_read(dtype: type, thumbnails: int, tmp_path: Path) -> None:
    whole = WHOLE.astype(dtype) * dtype(1 if dtype == np.uint8 else 257)
    for small in (WHOLE[::4, ::4], whole[::4, ::4]):
        data = tiff(*[(small, 1)] * thumbnails, (whole, 0), (whole[::-1], 0), extratags=[TURNED])
        np.testing.assert_array_equal(decode_image(data), np.rot90(WHOLE, -1))
        (tmp_path / "a.tif").write_bytes(data)
        assert image_size(data) == image_file_size(tmp_path / "a.tif") == (40, 60)
        one = decode_image(data, reading=PixelReading(bands=(3, 2, 1)))
        np.testing.assert_array_equal(one, np.rot90(WHOLE, -1)[..., ::-1])


def test_the_pixel_limit_applies_to_the_full_size_image() -> None:
    data = tiff((WHOLE[::4, ::4], 1), (WHOLE, 0))
    for call in (lambda: decode_image(data, reading=PixelReading(max_pixels=2399)), lambda: image_size(data, 2399)):
        with pytest.raises(UnreadableImageError, match="60x40"):
            call()


def test_reduced_pages_are_read_only_if_there_is_no_other() -> None:
    np.testing.assert_array_equal(decode_image(tiff((WHOLE, 0), (WHOLE[::4, ::4], 1))), WHOLE)
    np.testing.assert_array_equal(decode_image(tiff((WHOLE, 1))), WHOLE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_thumbnails_that_follow_each_other_in_a_circle_are_no_endless_loop(dtype: type, tmp_path: Path) -> None:
    def ring(*_: object) -> None:
        raise TimeoutError

    small = WHOLE[::4, ::4].astype(dtype) * dtype(1 if dtype == np.uint8 else 257)
    data = bytearray(tiff((small, 1)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first = file.pages.first
    place = first.offset + 2 + 12 * len(first.tags)
    assert data[place : place + 4] == bytes(4)
    data[place : place + 4] = struct.pack("<I", first.offset)
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    try:
        for bands in (None, (1, 2, 3)):
            pixels = decode_image(bytes(data), reading=PixelReading(bands=bands))
            np.testing.assert_array_equal(pixels, WHOLE[::4, ::4])
        assert tiff_size(bytes(data)) == image_size(bytes(data)) == (15, 10)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_nested_in_its_thumbnails_page_is_refused(dtype: type, tmp_path: Path) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(WHOLE[::4, ::4].astype(dtype), photometric="rgb", subfiletype=1, subifds=1)
        writer.write(WHOLE.astype(dtype), photometric="rgb")
    (tmp_path / "a.tif").write_bytes(file.getvalue())
    for call in (decode_image, image_size, lambda _: image_file_size(tmp_path / "a.tif")):
        with pytest.raises(UnreadableImageError, match="thumbnail") as refused:
            call(file.getvalue())
        assert "\n" not in str(refused.value)
