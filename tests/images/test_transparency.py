"""Transparency in forms that Pillow does not read, or reads differently, is composited as with 8 bits."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from socodet.finetuning.input_images import as_pixels
from socodet.images.decode import decode_image
from socodet.images.reading import PixelReading
from socodet.images.source import open_images, read_pixels, reading_of

SHADES = np.arange(0, 240, 2, dtype=np.uint8).reshape(8, 15)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, bits: int, clear: tuple[int, ...] = ()) -> bytes:
    """Encodes (H, W) or (H, W, 3 or 4) values of 16 bits, or (H, W) of fewer; `clear` is the transparent colour."""
    height, width = values.shape[:2]
    kind = {2: 0, 3: {3: 2, 4: 6}.get(values.shape[-1])}[values.ndim]
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes() for row in values]
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    if clear:
        parts += chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    return (
        b"\x89PNG\r\n\x1a\n"
        + parts
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


def on_white(grey_or_rgb: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """(H, W, 3) pixels, white where `clear` is true."""
    pixels = np.broadcast_to(grey_or_rgb.reshape(*clear.shape, -1), (*clear.shape, 3)).copy()
    pixels[clear] = 255
    return pixels


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_white_at_any_depth(bits: int) -> None:
    unit = 257 if bits == 16 else 1
    stored = SHADES.astype(np.uint16) * unit if bits >= 8 else SHADES // 2 % 2**bits
    shown = np.rint(stored * (255 / (2**bits - 1))).astype(np.uint8)
    for clear in sorted({0, int(stored[2, 3]), int(stored.max())}):
        data = png(stored.astype(np.uint16 if bits == 16 else np.uint8), bits, (clear,))
        np.testing.assert_array_equal(decode_image(data), on_white(shown, stored == clear))


def test_the_transparent_colour_of_a_16_bit_png_is_white() -> None:
    """Only this exact colour, not one that differs in the lower 8 bits."""
    values = np.stack([SHADES, SHADES.T.reshape(8, 15), SHADES[::-1]], axis=2).astype(np.uint16) * 257
    values[4, 5] = values[2, 3] + 1
    data = png(values, 16, tuple(values[2, 3].tolist()))
    clear = np.zeros((8, 15), bool)
    clear[2, 3] = True
    np.testing.assert_array_equal(decode_image(data), on_white(np.rint(values / 257).astype(np.uint8), clear))
    assert decode_image(data, reading=PixelReading(bands=(1,)))[2, 3].tolist() == [values[2, 3, 0] // 257] * 3


def test_an_image_in_memory_is_composited_like_its_file(tmp_path: Path) -> None:
    clear = int(SHADES[1, 1])
    data = png(SHADES.astype(np.uint16) * 257, 16, (clear * 257,))
    expected = on_white(SHADES, np.equal(SHADES, clear))
    for given in (data, Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(as_pixels(given), expected)


@pytest.mark.parametrize("form", ["rgba", "clear colour", "tiff"])
def test_the_range_ignores_opacity_and_hidden_pixels(tmp_path: Path, form: str) -> None:
    """12-bit camera values with a 16-bit opacity, as programs add it; such images used to be almost black."""
    values = np.repeat((SHADES.astype(np.uint16) * 17)[..., None], 3, axis=2)
    values[0, 0], values[7, 14] = 65535, 4095
    opacity = np.full((8, 15, 1), 65535, np.uint16)
    opacity[0, 0] = 0
    opacity[3, 3] = 32768
    (tmp_path / "set").mkdir()
    if form == "tiff":
        stored = np.dstack([values, opacity])
        tifffile.imwrite(tmp_path / "set" / "a.tif", stored, photometric="rgb", extrasamples=["unassalpha"])
    elif form == "rgba":
        (tmp_path / "set" / "a.png").write_bytes(png(np.dstack([values, opacity]), 16))
    else:
        opacity[3, 3] = 65535
        (tmp_path / "set" / "a.png").write_bytes(png(values, 16, (65535,) * 3))
    source = open_images(tmp_path / "set")
    assert reading_of(source).white == 4095
    share = opacity / 65535
    expected = values.astype(float) * (255 / 4095) * share + 255 * (1 - share)
    np.testing.assert_allclose(read_pixels(source, 0), expected, atol=1.01)


def test_floating_point_colours_with_an_opacity_of_one_are_scaled_without_it(tmp_path: Path) -> None:
    colours = np.repeat(SHADES[..., None], 3, axis=2).astype(np.float32) * 100
    opacity = np.ones((8, 15, 1), np.float32)
    opacity[0, :4] = 0
    (tmp_path / "set").mkdir()
    stored = np.dstack([colours, opacity])
    tifffile.imwrite(tmp_path / "set" / "a.tif", stored, photometric="rgb", extrasamples=["unassalpha"])
    pixels = read_pixels(open_images(tmp_path / "set"), 0)
    black, white = colours[opacity[..., 0] > 0].min(), colours.max()
    expected = on_white((colours - black) * (255 / (white - black)), opacity[..., 0] == 0)
    np.testing.assert_allclose(pixels, expected, atol=2)


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_opacity_in_a_16_bit_tiff_is_applied_as_in_an_8_bit_one(kind: str) -> None:
    """Some programs, such as Photoshop, store colours multiplied by their opacity."""
    opacity = np.linspace(0, 255, 120).astype(np.uint8).reshape(8, 15)
    colours = np.minimum(np.stack([SHADES, SHADES[::-1], SHADES[:, ::-1]], axis=2), opacity[..., None])
    pixels = []
    for unit in (np.uint8(1), np.uint16(257)):
        file = io.BytesIO()
        tifffile.imwrite(file, np.dstack([colours, opacity]) * unit, photometric="rgb", extrasamples=[kind])
        pixels.append(decode_image(file.getvalue()).astype(int))
    np.testing.assert_allclose(pixels[1], pixels[0], atol=2)
