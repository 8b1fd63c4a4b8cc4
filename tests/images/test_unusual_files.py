"""Forms of image files that are rare, or that Pillow reads wrongly or not at all."""

import io
import logging
import struct
from collections.abc import Mapping

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from socodet.errors import UnreadableImageError
from socodet.images.decode import decode_image, image_size
from socodet.images.reading import PixelReading

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (6, 8, 3)).astype(np.uint8)
GREY = COLOURS[..., 0].copy()
OPACITY = RANDOM.integers(1, 200, (6, 8)).astype(np.uint8)
FORMATS = {1: "B", 3: "H", 4: "I"}
"""Types of a TIFF's tags, as struct calls them."""


def directory(tags: Mapping[int, tuple[int, list[int]]], order: str, start: int = 0) -> bytes:
    """A TIFF header and one directory of tags, each a type and its values; `start` is where all of that begins."""
    entries, beyond = b"", b""
    end = 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{FORMATS[kind]}", *values)
        if len(content) > 4:
            beyond, content = beyond + content, struct.pack(order + "I", end + len(beyond))
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4) + beyond


def tiff(stored: bytes, bits: list[int], photometric: int, order: str = "<", **more: tuple[int, list[int]]) -> bytes:
    """A TIFF of 8x6 pixels in one strip; `more` are tags, named t and their number."""
    tags = {256: (4, [8]), 257: (4, [6]), 258: (3, bits), 259: (3, [1]), 262: (3, [photometric]), 277: (3, [len(bits)])}
    tags |= {273: (4, [0]), 278: (4, [6]), 279: (4, [len(stored)])}
    tags |= {int(name[1:]): value for name, value in more.items()}
    header = directory(tags, order)
    return directory(tags | {273: (4, [len(header)])}, order) + stored


@pytest.mark.parametrize(
    ("bits", "channels", "photometric"), [(1, 3, 2), (2, 3, 2), (4, 3, 2), (5, 1, 1), (6, 1, 1), (6, 1, 0)]
)
def test_values_of_fewer_than_8_bits_span_black_to_white(bits: int, channels: int, photometric: int) -> None:
    top = 2**bits - 1
    values = COLOURS[..., :channels] >> (8 - bits)
    rows = np.unpackbits(values.reshape(6, -1, 1), axis=2)[..., -bits:].reshape(6, -1)
    data = tiff(np.packbits(rows, axis=1).tobytes(), [bits] * channels, photometric)
    shown = values if photometric else top - values
    expected = np.broadcast_to(np.rint(shown / top * 255), (6, 8, 3))
    np.testing.assert_array_equal(decode_image(data), expected)
    chosen = decode_image(data, reading=PixelReading(bands=(channels,), white=1000.0, floats=(0.0, 7.0)))
    np.testing.assert_array_equal(chosen, np.repeat(expected[..., -1:], 3, axis=2))


@pytest.mark.parametrize("unit", [1, 257])
def test_a_palette_of_16_bits_has_its_colours(unit: int) -> None:
    palette = RANDOM.integers(0, 256, (3, 2**16))
    places = RANDOM.integers(0, 2**16, (6, 8))
    data = tiff(places.astype("<u2").tobytes(), [16], 3, t320=(3, (palette * unit).ravel().tolist()))
    np.testing.assert_array_equal(decode_image(data), np.moveaxis(palette[:, places], 0, -1))


def test_cmyk_of_16_bits_in_planes_has_its_colours() -> None:
    """Pillow reads it without an error, but wrongly."""
    inks = np.dstack([COLOURS, OPACITY])
    planes = np.moveaxis(inks.astype(np.uint16) * 257, -1, 0)
    file = io.BytesIO()
    tifffile.imwrite(file, planes, photometric="separated", planarconfig="separate", extrasamples=[])
    by_hand = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    np.testing.assert_allclose(decode_image(file.getvalue()), by_hand, atol=1)


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_grey_with_opacity_is_composited_on_white(dtype: type, kind: str, planar: str) -> None:
    share = OPACITY / 255
    values = np.rint(GREY * share) if kind == "assocalpha" else GREY
    stored = np.dstack([values, OPACITY]).astype(dtype) * dtype(1 if dtype == np.uint8 else 257)
    file = io.BytesIO()
    options = {"photometric": "minisblack", "planarconfig": planar, "extrasamples": [kind]}
    tifffile.imwrite(file, stored if planar == "contig" else np.moveaxis(stored, -1, 0), **options)
    expected = GREY * share + 255 * (1 - share)
    np.testing.assert_allclose(decode_image(file.getvalue())[..., 1], expected, atol=1.6)


def test_colours_multiplied_by_an_opacity_that_is_nowhere_full() -> None:
    share = OPACITY[..., None] / 255
    stored = np.dstack([np.rint(COLOURS * (257 * share)), OPACITY * 257.0]).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, stored, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_allclose(decode_image(file.getvalue()), COLOURS * share + 255 * (1 - share), atol=1.1)


def test_a_tiff_compressed_as_webp_is_read(capfd: pytest.CaptureFixture[str]) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, COLOURS, photometric="rgb", compression="webp", compressionargs={"lossless": True})
    np.testing.assert_array_equal(decode_image(file.getvalue()), COLOURS)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("photometric", "count", "name"), [(6, 3, "YCbCr"), (8, 3, "Lab"), (5, 5, "CMYK")])
def test_colours_that_are_not_converted_are_refused(photometric: int, count: int, name: str) -> None:
    data = tiff(bytes(6 * 8 * 2 * count), [16] * count, photometric, t338=(3, [0] * max(1, count - 4)))
    with pytest.raises(UnreadableImageError, match=f"{name}.*save it as RGB"):
        decode_image(data)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_an_orientation_of_any_integer_type_is_applied(kind: int, order: str) -> None:
    """Writers of TIFFs use bytes now and then."""
    upright = np.rot90(COLOURS)  # as 8 says
    deep = (COLOURS[..., 0].astype(order + "u2") * 257).astype(order + "u2")
    turned = (kind, [8])
    for data, expected in (
        (tiff(COLOURS.tobytes(), [8] * 3, 2, order, t274=turned), upright),
        (tiff(deep.tobytes(), [16], 1, order, t274=turned), np.repeat(upright[..., :1], 3, axis=2)),
    ):
        np.testing.assert_array_equal(decode_image(data), expected)
        assert image_size(data) == (6, 8)
        bands = decode_image(data, reading=PixelReading(bands=(1,)))
        np.testing.assert_array_equal(bands, np.repeat(upright[..., :1], 3, axis=2))
    exif = b"Exif\0\0" + directory({274: turned}, order)
    for format in ("JPEG", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (8, 6)).save(file, format, exif=exif)
        assert image_size(file.getvalue()) == (6, 8)
        assert decode_image(file.getvalue()).shape == (8, 6, 3)


def test_a_lossless_jpeg_of_grey_is_read() -> None:
    np.testing.assert_array_equal(
        decode_image(imagecodecs.jpeg8_encode(GREY, lossless=True)), np.repeat(GREY[..., None], 3, axis=2)
    )


def test_pixels_without_a_value_are_black() -> None:
    values = np.linspace(3, 9, 48, dtype=np.float32).reshape(6, 8)
    expected = (values - 3) / 6 * 255
    values[2], expected[2] = np.nan, 0
    values[4, 4], expected[4, 4] = np.inf, 255
    file = io.BytesIO()
    tifffile.imwrite(file, values)
    np.testing.assert_allclose(decode_image(file.getvalue())[..., 0], expected, atol=1)


def test_the_advice_for_two_bands_can_be_followed() -> None:
    data = tiff(np.dstack([GREY, OPACITY]).tobytes(), [8, 8], 1, t338=(3, [0]))
    with pytest.raises(UnreadableImageError) as raised:
        decode_image(data)
    chosen = tuple(int(word) for word in str(raised.value).split("--bands")[1].split())
    np.testing.assert_array_equal(decode_image(data, reading=PixelReading(bands=chosen))[..., 0], GREY)


@pytest.mark.parametrize("planar", [1, 2])
def test_ycbcr_that_pillow_does_not_convert_is_refused(planar: int) -> None:
    with pytest.raises(UnreadableImageError, match=r"YCbCr.*save it as RGB"):
        decode_image(tiff(bytes(8 * 6 * 3), [8] * 3, 6, t284=(3, [planar])))


def test_a_form_that_is_not_read_is_not_called_truncated() -> None:
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "BMP")
    bmp = bytearray(file.getvalue())
    bmp[30] = 6  # a compression that Pillow lacks
    deep = imagecodecs.jpeg_encode(GREY.astype(np.uint16) * 16, bitspersample=12)
    no_values = io.BytesIO()
    tifffile.imwrite(no_values, np.full((6, 8), np.nan, np.float32))
    for data in (bytes(bmp), deep, no_values.getvalue()):
        with pytest.raises(UnreadableImageError) as raised:
            decode_image(data)
        assert "truncated" not in str(raised.value)


@pytest.mark.parametrize("format", ["PNG", "GIF", "JPEG2000", "AVIF"])
def test_a_damaged_header_is_not_called_an_unknown_format(format: str) -> None:
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, format)
    with pytest.raises(UnreadableImageError, match="damaged"):
        decode_image(file.getvalue()[:12] + bytes(200))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_without_pixels_is_refused(bits: int) -> None:
    data = tiff(b"", [bits] * 3, 2, t256=(4, [0]))
    for read in (decode_image, image_size):
        with pytest.raises(UnreadableImageError, match="damaged"):
            read(data)


@pytest.mark.parametrize("package", ["tifffile", "PIL"])
def test_messages_of_other_packages_without_a_file_name_are_not_printed(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # without pytest's own
    if package == "tifffile":
        data = tiff(COLOURS[..., 0].astype("<u4").tobytes(), [32], 1, t278=(4, [6]), t279=(4, [192, 192]))
        decode_image(data, reading=PixelReading(bands=(1,)))
    else:
        with pytest.raises(UnreadableImageError):
            decode_image(tiff(bytes(48), [8], 1, t277=(3, [65535])))
    assert capsys.readouterr().err == ""
