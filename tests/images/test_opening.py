import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from socodet.errors import UnreadableImageError
from socodet.images.decode import decode_image, image_size
from socodet.images.opening import without_pillow_limit
from socodet.images.reading import PixelReading

USUAL = 100
"""Pillow's limit in these tests: it warns above this many pixels, and refuses images of more than twice as many."""
SMALL, LARGE = (10, 15), (30, 40)


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", USUAL)


def encoded(form: str, shape: tuple[int, int]) -> bytes:
    values = np.arange(shape[0] * shape[1]).reshape(shape) % 200
    file = io.BytesIO()
    if form == "tiled TIFF":
        tifffile.imwrite(file, values.astype(np.uint8), tile=(16, 16), compression="zlib")
    elif form == "colour TIFF of 16 bits":
        tifffile.imwrite(file, np.repeat(values[..., None], 3, 2).astype(np.uint16), photometric="rgb")
    else:
        depth, name = form.split()
        options = {"lossless": True} if name == "WEBP" else {}
        Image.fromarray(values.astype(depth)).save(file, name, **options)
    return file.getvalue()


FORMS = ["uint8 TIFF", "uint16 TIFF", "float32 TIFF", "tiled TIFF", "colour TIFF of 16 bits"]
FORMS += ["uint8 PNG", "uint16 PNG", "uint8 WEBP", "uint8 GIF", "uint8 BMP"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_only_our_own_pixel_limit_applies(form: str, shape: tuple[int, int]) -> None:
    height, width = shape
    data = encoded(form, shape)
    reading = PixelReading(max_pixels=height * width)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(data, reading=reading).shape == (height, width, 3)
        assert image_size(data, height * width) == (width, height)
        for too_little in (height * width - 1, 1):
            with pytest.raises(UnreadableImageError, match=f"{width}x{height}.*--max-pixels"):
                decode_image(data, reading=PixelReading(max_pixels=too_little))
            with pytest.raises(UnreadableImageError, match=f"{width}x{height}.*--max-pixels"):
                image_size(data, too_little)
    assert Image.MAX_IMAGE_PIXELS == USUAL


def test_a_webp_image_too_large_is_refused_before_pillow_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGBA", (8, 8), (1, 2, 3, 100))
    file = io.BytesIO()
    image.save(file, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
    data = bytearray(file.getvalue())
    assert data[12:16] == b"VP8X"
    data[24:30] = (59_999).to_bytes(3, "little") + (49_999).to_bytes(3, "little")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(UnreadableImageError, match="60000x50000"):
        decode_image(bytes(data))


def test_the_limit_is_lifted_while_any_thread_needs_it() -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with without_pillow_limit():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10)
    with without_pillow_limit():
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS is None
    child = os.fork()  # the child has no other thread
    if not child:
        failed = 1
        try:
            usual = Image.MAX_IMAGE_PIXELS == USUAL
            with without_pillow_limit():
                lifted = Image.MAX_IMAGE_PIXELS is None
            failed = 0 if usual and lifted and Image.MAX_IMAGE_PIXELS == USUAL else 1
        finally:
            os._exit(failed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    leave.set()
    thread.join()
    assert Image.MAX_IMAGE_PIXELS == USUAL


def test_the_limit_is_restored_after_an_error() -> None:
    with pytest.raises(UnreadableImageError):
        decode_image(b"II*\0 no image")
    assert Image.MAX_IMAGE_PIXELS == USUAL


def turned_png(after_pixels: bool) -> bytes:
    """A PNG of 10x5 pixels, whose eXIf chunk asks for a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    png = encoded("uint8 PNG", (5, 10))
    place = png.index(b"IEND" if after_pixels else b"IDAT") - 4
    return png[:place] + chunk + png[place:]


@pytest.mark.parametrize("after_pixels", [False, True])
def test_a_pngs_orientation_may_precede_or_follow_the_pixels(after_pixels: bool) -> None:
    data = turned_png(after_pixels)
    assert image_size(data) == decode_image(data).shape[1::-1] == (5, 10)


def test_the_size_of_a_png_is_read_without_decoding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(_image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decoded)
    assert image_size(encoded("uint8 PNG", (5, 10))) == (10, 5)
    assert image_size(turned_png(after_pixels=False)) == (5, 10)
