"""Metadata does not prevent an image from being read: damaged EXIF, long texts, colour profiles."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from socodet.finetuning.input_images import as_pixels
from socodet.images.decode import decode_image, image_size
from socodet.images.reading import PixelReading

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def encoded(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(PIXELS)
    if form == "CMYK":
        image, form = image.convert("CMYK"), "JPEG"
    elif form == "PNG of 16 bits":
        image, form = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG"
    image.save(file, form, **({"lossless": True} if form == "WEBP" else {}), **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_part(png: bytes, part: bytes, *, after_pixels: bool = False) -> bytes:
    place = png.index(b"IEND" if after_pixels else b"IDAT") - 4
    return png[:place] + part + png[place:]


@pytest.mark.parametrize("form", ["WEBP", "PNG", "PNG of 16 bits", "PNG, late", "JPEG", "CMYK"])
@pytest.mark.parametrize(
    "block", [b"garbage!", b"II", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0"]
)
def test_a_damaged_exif_block_does_not_change_the_pixels(form: str, block: bytes) -> None:
    if form.startswith("PNG"):
        late = form.endswith("late")
        plain = encoded(form.removesuffix(", late"))
        data = with_part(plain, chunk(b"eXIf", block), after_pixels=late)
    else:
        plain, data = encoded(form), encoded(form, exif=b"Exif\0\0" + block)
    np.testing.assert_array_equal(decode_image(data), decode_image(plain))
    reading = PixelReading(bands=(1,))
    np.testing.assert_array_equal(decode_image(data, reading=reading), decode_image(plain, reading=reading))
    assert image_size(data) == (60, 40)
    if form != "JPEG":  # Pillow decodes JPEG to slightly different pixels
        np.testing.assert_array_equal(as_pixels(Image.open(io.BytesIO(data))), decode_image(plain))


@pytest.mark.parametrize("after_pixels", [False, True])
@pytest.mark.parametrize(
    "start", [b"zTXtWorkflow\0\0", b"iTXtXML:com.adobe.xmp\0\1\0\0\0", b"iCCPprofile\0\0", b"tEXtComment\0"]
)
def test_long_texts_and_profiles_in_a_png_are_skipped(start: bytes, after_pixels: bool) -> None:
    """Pillow refuses those above 1 MiB; a damaged one does not make the image unreadable either."""
    kind, begun = start[:4], start[4:]
    text = b"word " * 400_000
    part = chunk(kind, begun + (text if kind == b"tEXt" else zlib.compress(text)))
    for one in (part, part[:-1] + bytes([part[-1] ^ 1])):
        data = with_part(encoded("PNG"), one, after_pixels=after_pixels)
        np.testing.assert_array_equal(decode_image(data), PIXELS)
        assert image_size(data) == (60, 40)


def test_exif_in_a_text_chunk_of_a_png_is_read() -> None:
    """As written by ImageMagick before PNG had an eXIf chunk."""
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    profile = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    part = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))
    for after_pixels in (False, True):
        data = with_part(encoded("PNG"), part + chunk(b"tEXt", b"Comment\0none"), after_pixels=after_pixels)
        np.testing.assert_array_equal(decode_image(data), np.rot90(PIXELS, -1))
        assert image_size(data) == (40, 60)


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_stored_in_32_bits_is_read(order: str) -> None:
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IHHHIII", 8, 1, 0x0112, 4, 1, 6, 0)
    data = encoded("JPEG", exif=b"Exif\0\0" + block, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert image_size(data) == upright.size == (40, 60)
    np.testing.assert_allclose(decode_image(data).astype(int), np.asarray(upright).astype(int), atol=4)
