import io
import struct
import zlib
from functools import partial

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from socodet.errors import UnreadableImageError
from socodet.images.decode import decode_image, image_size
from socodet.images.reading import MAX_PIXELS


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def by_pil(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def smooth(height: int = 45, width: int = 60) -> np.ndarray:
    """A colourful image without sharp edges, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 127 + 120 * np.sin(x / 9) * np.cos(y / 7)]
    return np.stack(channels, axis=2).astype(np.uint8)


SMOOTH = Image.fromarray(smooth())


def assert_close(ours: np.ndarray, theirs: np.ndarray, levels: int) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= levels


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95},
        {"quality": 60, "subsampling": "4:2:0"},
        {"quality": 80, "subsampling": "4:4:4"},
        {"quality": 80, "subsampling": "4:2:2"},
        {"quality": 80, "progressive": True},
        {"quality": 80, "restart_marker_blocks": 2},
        {"quality": 80, "keep_rgb": True},
    ],
    ids=str,
)
def test_jpeg_matches_pil(options: dict[str, object]) -> None:
    data = encode(SMOOTH, "JPEG", **options)
    assert_close(decode_image(data), by_pil(data), 2)
    assert_close(decode_image(data), smooth(), 40)


def test_gray_jpeg_has_three_equal_channels() -> None:
    data = encode(SMOOTH.convert("L"), "JPEG", quality=90)
    pixels = decode_image(data)
    assert_close(pixels, by_pil(data), 2)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_cmyk_jpeg_has_the_original_colours() -> None:
    data = encode(SMOOTH.convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert_close(decode_image(data), by_pil(data), 2)
    assert_close(decode_image(data), smooth(), 40)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_return_the_exact_pixels(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(decode_image(encode(SMOOTH, format, **options)), smooth())


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(compression: str) -> None:
    np.testing.assert_array_equal(decode_image(encode(SMOOTH, "TIFF", compression=compression)), smooth())


def test_palette() -> None:
    image = SMOOTH.quantize(16)
    for format in ("PNG", "GIF"):
        np.testing.assert_array_equal(decode_image(encode(image, format)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white(mode: str) -> None:
    opaque = SMOOTH.convert("L").convert("RGB") if mode == "LA" else SMOOTH
    alpha = np.linspace(0, 255, 60).round().astype(np.uint8)[None].repeat(45, axis=0)
    image = opaque.copy()
    image.putalpha(Image.fromarray(alpha))
    pixels = decode_image(encode(image.convert(mode), "PNG"))
    share = alpha[..., None] / 255
    by_hand = np.asarray(opaque) * share + 255 * (1 - share)
    assert_close(pixels, by_hand.round().astype(np.uint8), 1)
    assert (pixels[:, 0] == 255).all()


@pytest.mark.parametrize(("alpha", "expected"), [(255, (200, 20, 10)), (128, (227, 137, 132)), (0, (200, 20, 10))])
def test_a_fully_transparent_bmp_shows_its_colours(alpha: int, expected: tuple[int, ...]) -> None:
    """Programs that write only the colours leave the fourth byte at 0; browsers show such images too."""
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = (struct.pack("<IiiHHIIiiII", 124, 5, 4, 1, 32, 3, 80, 2835, 2835, 0, 0) + masks).ljust(124, b"\0")
    pixels = bytes((10, 20, 200, alpha)) * 20
    data = b"BM" + struct.pack("<IHHI", 138 + len(pixels), 0, 0, 138) + header + pixels
    np.testing.assert_array_equal(decode_image(data), np.broadcast_to(np.uint8(expected), (4, 5, 3)))


@pytest.mark.parametrize("unit", [1, 257])
def test_a_tiff_with_an_8_bit_palette_is_not_black(unit: int) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 256))
    places = np.arange(240, dtype=np.uint8).reshape(15, 16)
    file = io.BytesIO()
    tifffile.imwrite(file, places, photometric="palette", colormap=(colours * unit).astype(np.uint16))
    np.testing.assert_array_equal(decode_image(file.getvalue()), colours.T[places])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_cmyk_tiff_has_the_original_colours(dtype: type) -> None:
    inks = np.asarray(SMOOTH.convert("CMYK"))
    file = io.BytesIO()
    tifffile.imwrite(file, inks.astype(dtype) * dtype(1 if dtype == np.uint8 else 257), photometric="separated")
    assert_close(decode_image(file.getvalue()), np.asarray(SMOOTH), 1)


ORIENTATION_IN_XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("form", ["jpeg", "extraneous", "cmyk", "webp", "avif", "png", "tiff", "tiff of 16 bits"])
def test_only_exif_determines_the_orientation(form: str) -> None:
    match form:
        case "png":
            info = PngInfo()
            info.add_itxt("XML:com.adobe.xmp", ORIENTATION_IN_XMP.decode())
            data = encode(SMOOTH, "PNG", pnginfo=info)
        case "tiff of 16 bits":
            file, tag = io.BytesIO(), (700, 1, len(ORIENTATION_IN_XMP), ORIENTATION_IN_XMP, True)
            tifffile.imwrite(file, smooth().astype(np.uint16) * 257, photometric="rgb", extratags=[tag])
            data = file.getvalue()
        case "tiff":
            data = encode(SMOOTH, "TIFF", tiffinfo={700: ORIENTATION_IN_XMP})
        case _:
            image = SMOOTH.convert("CMYK") if form == "cmyk" else SMOOTH
            data = encode(image, form.upper() if form in ("webp", "avif") else "JPEG", xmp=ORIENTATION_IN_XMP)
    if form == "extraneous":
        data = data.replace(b"\xff\xda", b"\0\0\xff\xda")
    assert ORIENTATION_IN_XMP in data
    assert_close(decode_image(data), smooth(), 30)
    assert image_size(data) == SMOOTH.size


def test_a_transparent_palette_colour_is_white() -> None:
    image = SMOOTH.quantize(8)
    indices = np.asarray(image)
    pixels = decode_image(encode(image, "PNG", transparency=3))
    assert (indices == 3).any()
    assert (pixels[indices == 3] == 255).all()
    np.testing.assert_array_equal(pixels[indices != 3], np.asarray(image.convert("RGB"))[indices != 3])


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(format: str) -> None:
    values = np.linspace(0, 65535, 45 * 60).round().astype(np.uint16).reshape(45, 60)
    pixels = decode_image(encode(Image.fromarray(values), format))
    assert_close(pixels, np.stack([np.rint(values / 257).astype(np.uint8)] * 3, axis=2), 0)


@pytest.mark.parametrize("greatest", [4095, 65535])
def test_16_bit_pgm_is_scaled_by_its_declared_maximum(greatest: int) -> None:
    """Not by the values present, since all images of a set must be scaled alike."""
    values = np.linspace(100, 2000, 45 * 60).round().astype(np.uint16).reshape(45, 60)
    pixels = decode_image(b"P5\n60 45\n%d\n" % greatest + values.astype(">u2").tobytes())
    assert_close(pixels, np.stack([np.rint(values * (255 / greatest)).astype(np.uint8)] * 3, axis=2), 1)


def test_big_endian_16_bit_tiff() -> None:
    values = np.array([[0, 257, 65535], [1000, 30000, 40000]], ">u2")
    fields = [(256, 3), (257, 2), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, 12)]
    head = b"MM" + struct.pack(">HI", 42, 8 + values.nbytes) + values.tobytes()
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in fields)
    data = head + struct.pack(">H", len(fields)) + entries + bytes(4)
    np.testing.assert_array_equal(decode_image(data)[..., 0], np.rint(values / 257))


def test_16_bit_colour_png(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.arange(4 * 5 * 3, dtype=np.uint16).reshape(4, 5, 3) * 1111
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = png(struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0), zlib.compress(rows))
    assert_close(decode_image(data), np.rint(values / 257).astype(np.uint8), 1)
    assert capsys.readouterr().err == ""
    monkeypatch.delattr("torchvision.io.decode_png")  # a later version may lack it
    assert_close(decode_image(data), (values >> 8).astype(np.uint8), 0)
    assert "upper 8 bits" in capsys.readouterr().err


def png(header: bytes, pixels: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_floating_point_tiff_spans_black_to_white() -> None:
    values = np.linspace(-0.5, 1.5, 200, dtype=np.float32).reshape(10, 20)
    pixels = decode_image(encode(Image.fromarray(values), "TIFF"))
    by_hand = (values.astype(np.float64) + 0.5) / 2 * 255
    assert_close(pixels[..., 0].copy(), np.rint(by_hand).astype(np.uint8), 1)


def test_a_floating_point_image_needs_a_value() -> None:
    flat = Image.fromarray(np.full((3, 4), 7.5, np.float32))
    assert decode_image(encode(flat, "TIFF")).shape == (3, 4, 3)
    broken = Image.fromarray(np.array([[np.nan, np.nan]], np.float32))
    with pytest.raises(UnreadableImageError, match="none of its pixels"):
        decode_image(encode(broken, "TIFF"))


def test_one_bit_images_are_black_and_white() -> None:
    bits = smooth()[..., 2] > 127
    for format in ("PNG", "TIFF", "BMP"):
        pixels = decode_image(encode(Image.fromarray(bits), format))
        np.testing.assert_array_equal(pixels, np.where(bits, 255, 0)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(format: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert_close(decode_image(data), np.full((10, 20, 3), (255, 0, 0), np.uint8), 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_matches_pil(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker of the camera"
    exif[0x0112] = orientation
    data = encode(SMOOTH, format, exif=exif)
    stored = Image.open(io.BytesIO(data))
    stored.load()
    upright = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    assert upright.shape == ((45, 60, 3) if orientation <= 4 else (60, 45, 3))
    assert_close(decode_image(data), upright, 2)


# Where the top left corner of the stored image goes (EXIF 2.3, section 4.6.4), rows first.
CORNER = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_either_byte_order(byte_order: str, orientation: int) -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:16, :16] = 255
    tiff = (b"II" if byte_order == "<" else b"MM") + struct.pack(byte_order + "HI", 42, 8)
    tiff += struct.pack(byte_order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    payload = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(payload)) + payload
    plain = encode(Image.fromarray(pixels), "JPEG", quality=95)
    decoded = decode_image(plain[:2] + segment + plain[2:])
    assert decoded.shape == ((48, 64, 3) if orientation <= 4 else (64, 48, 3))
    corners = {(y, x): decoded[y, x, 0] > 127 for y in (0, -1) for x in (0, -1)}
    assert [corner for corner, white in corners.items() if white] == [CORNER[orientation]]
    padded = plain[:2] + b"\xff\xff" + segment + plain[2:]  # fill bytes may precede a marker
    np.testing.assert_array_equal(decode_image(padded), decoded)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\x00\x09ab"])
def test_a_damaged_exif_block_does_no_harm(exif: bytes) -> None:
    data = encode(SMOOTH, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif
    np.testing.assert_array_equal(decode_image(data[:2] + segment + data[2:]), decode_image(data))


def test_extra_bytes_in_a_jpeg_do_no_harm() -> None:
    data = encode(SMOOTH, "JPEG")
    between_segments = data.index(b"\xff\xdb")
    dirty = data[:between_segments] + b"\0\0\0" + data[between_segments:] + b"after the end"
    np.testing.assert_array_equal(decode_image(dirty), decode_image(data))


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_truncated_anywhere_is_detected(options: dict[str, object]) -> None:
    data = encode(SMOOTH, "JPEG", **options)
    seen: set[str] = set()
    for length in range(1, len(data) - 2, 7):
        cut: list[bool] = []
        try:
            decode_image(data[:length], on_truncated=partial(cut.append, True))
            seen.add("cut short" if cut else "whole")
        except UnreadableImageError as error:
            seen.add("more than a line" if "\n" in str(error) else "refused")
    assert seen == {"refused", "cut short"}


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "BMP"])
def test_truncated_files_of_other_formats_are_detected(format: str) -> None:
    data = encode(SMOOTH, format)
    for length in range(1, len(data) - 40, 41):
        with pytest.raises(UnreadableImageError) as raised:
            decode_image(data[:length])
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_readable_part_of_a_truncated_jpeg_is_used(progressive: bool, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(SMOOTH, "JPEG", quality=90, progressive=progressive, exif=exif)
    cut: list[bool] = []
    whole, part = decode_image(data), decode_image(data[: len(data) * 3 // 4], on_truncated=lambda: cut.append(True))
    assert cut == [True]
    assert part.shape == whole.shape
    if not progressive:  # a truncated progressive JPEG is blurred everywhere
        there = np.array_equal(part[: len(part) // 4], whole[: len(part) // 4])
        turned = np.array_equal(part[:, -part.shape[1] // 4 :], whole[:, -part.shape[1] // 4 :])
        assert (there, turned) == ((True, False) if orientation == 1 else (False, True))
    decode_image(data + bytes(100), on_truncated=lambda: pytest.fail("it has an end"))
    if not progressive:
        with pytest.raises(UnreadableImageError, match="truncated"):
            decode_image(data[: data.index(b"\xff\xda") + 16])


@pytest.mark.parametrize(
    ("format", "mode", "tolerance"),
    [("AVIF", "RGB", 30), ("HEIF", "RGB", 30), ("JPEG2000", "RGB", 3), ("PPM", "RGB", 0), ("PPM", "L", 0)],
)
def test_formats_of_pillow_and_its_plugin_are_read(format: str, mode: str, tolerance: int) -> None:
    pillow_heif.register_heif_opener()
    converted = SMOOTH.convert(mode)
    data = encode(converted, format, **({"quality": 95} if tolerance == 30 else {}))
    assert image_size(data) == converted.size
    assert_close(decode_image(data), np.asarray(converted.convert("RGB")), tolerance)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_readable_part_of_a_truncated_cmyk_jpeg_is_used(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(SMOOTH.convert("CMYK"), "JPEG", exif=exif)
    cut: list[bool] = []
    whole, part = decode_image(data), decode_image(data[: len(data) * 2 // 3], on_truncated=lambda: cut.append(True))
    assert cut == [True]
    assert part.shape == whole.shape
    stored = (part == whole) if orientation == 1 else (part == whole).swapaxes(0, 1)[::-1]
    rows = stored.all((1, 2))
    there = int(rows.argmin())
    assert len(rows) / 4 < there < len(rows) * 0.9
    assert not rows[there + 8 :].any()
    decode_image(data, on_truncated=lambda: pytest.fail("it has an end"))
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode_image(
            data[: data.rindex(b"\xff\xda") + 40], on_truncated=lambda: pytest.fail("hardly anything is there")
        )


def test_a_damaged_png_is_detected() -> None:
    data = bytearray(encode(SMOOTH, "PNG"))
    data[data.index(b"IDAT") + 40] ^= 0xFF
    with pytest.raises(UnreadableImageError):
        decode_image(bytes(data))


def test_a_jpeg_with_overwritten_pixels_is_detected() -> None:
    data = encode(SMOOTH, "JPEG", quality=95)
    middle = len(data) // 2
    with pytest.raises(UnreadableImageError):
        decode_image(data[:middle] + b"\xff\xd0" * 20 + data[middle + 40 :])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"not an image\n", "known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
        (b"\xff\xd8\xff", "truncated or damaged|known format"),
        (bytes(1000), "known format"),
    ],
)
def test_data_that_is_not_an_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableImageError, match=message) as raised:
        decode_image(data)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_an_image_of_one_pixel_is_read(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(Image.new("RGB", (1, 1), (200, 60, 20)), format, **options)
    assert_close(decode_image(data), np.array([[[200, 60, 20]]], np.uint8), 3)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 200_000])
def test_too_many_pixels_are_refused_before_they_are_decoded(side: int) -> None:
    tiny = png(struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), zlib.compress(b""))
    assert side * side > MAX_PIXELS
    with pytest.raises(UnreadableImageError, match="--max-pixels"):
        decode_image(tiny)


def test_a_jpeg_of_too_many_pixels_is_refused() -> None:
    data = bytearray(encode(SMOOTH, "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(UnreadableImageError, match="60000x60000 pixels are more than"):
        decode_image(bytes(data))
