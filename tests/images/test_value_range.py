import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from socodet.cli import main
from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import decode_image, image_size
from socodet.images.pack import PackSettings, pack
from socodet.images.reading import PixelReading, PixelSettings, read_images_as
from socodet.images.source import ImageSelection, open_images, read_pixels, reading_of
from socodet.images.value_range import scale_to_8_bit
from socodet.proposals.table import ProposalTable

RAMP = np.linspace(0, 1, 64 * 48).reshape(48, 64)


def png(values: np.ndarray) -> bytes:
    """Encodes (H, W, C) with 16 bits, which Pillow cannot write in colour."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write(folder: Path, bits: int, kind: str, count: int = 3) -> Path:
    """Images with values from 0 to half of the maximum of `bits`; in the last one, to the maximum."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        top = (2**bits - 1) / (1 if number == count - 1 else 2)
        values = np.rint(RAMP * top).astype(np.uint16)
        if kind == "tif":
            Image.fromarray(values).save(folder / f"{number}.tif")
        elif kind == "pgm":
            (folder / f"{number}.pgm").write_bytes(b"P5\n64 48\n65535\n" + values.astype(">u2").tobytes())
        else:
            data = png(np.repeat(values[..., None], {"gray": 1, "colour": 3}[kind], axis=2))
            (folder / f"{number}.png").write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["gray", "colour", "tif", "pgm"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_images_of_a_set_are_scaled_by_the_bits_the_set_uses(
    tmp_path: Path, bits: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = open_images(write(tmp_path / "set", bits, kind))
    assert reading_of(source) == reading_of(ImageSelection(source, [1])) == PixelReading(white=2**bits - 1)
    said = capsys.readouterr().err
    assert f"hold values up to {2**bits - 1:,} (3 sampled)" in said
    expected = np.rint(np.repeat(RAMP[..., None], 3, axis=2) * 255)
    np.testing.assert_allclose(read_pixels(source, 2), expected, atol=1)
    np.testing.assert_allclose(read_pixels(source, 0), expected / 2, atol=1)


@pytest.mark.parametrize("kind", ["gray", "colour", "tif"])
def test_images_of_the_full_range_are_unaffected(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = open_images(write(tmp_path / "set", 16, kind))
    assert capsys.readouterr().err == ""
    for index in range(3):
        np.testing.assert_array_equal(read_pixels(source, index), decode_image(source.read(index)))


def test_8_bit_images_in_such_a_set_are_unaffected(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", 12, "gray")
    Image.fromarray(np.full((9, 9, 3), 100, np.uint8)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")
    source = open_images(folder)
    assert reading_of(source).white == 4095
    pixels = {source.key(index): index for index in range(len(source))}
    assert (read_pixels(source, pixels["a.png"]) == 100).all()


def test_values_above_white_and_transparency() -> None:
    values = np.full((4, 4, 4), 2000, np.uint16)
    values[..., 3] = 4095
    values[0, 0] = (60_000, 0, 2000, 4095)
    values[1, 1] = (0, 0, 0, 0)
    pixels = decode_image(png(values), reading=PixelReading(white=4095))
    assert pixels[0, 0].tolist() == [255, 0, 125]
    assert pixels[1, 1].tolist() == [255, 255, 255]  # transparent pixels become white
    assert pixels[2, 2].tolist() == [125, 125, 125]


def test_pack_applies_the_value_range(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", 12, "gray")
    usual = open_images(pack(folder, tmp_path / "usual", show_progress=False).output)
    assert read_pixels(usual, 2).max() > 250
    wide = pack(folder, tmp_path / "wide", settings=PackSettings(value_range=65535), show_progress=False)
    assert read_pixels(open_images(wide.output), 2).max() < 20


def test_10_bit_images_yield_as_many_boxes_as_16_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(0.1, 0.2, (96, 96))
    image[20:60, 30:70] += 0.6
    image[10:40, 60:90] += 0.2
    boxes = {}
    for bits in (16, 10):
        folder = tmp_path / str(bits)
        folder.mkdir()
        Image.fromarray(np.rint(image * (2**bits - 1)).astype(np.uint16)).save(folder / "a.png")
        main(["propose", str(folder), "--output", str(tmp_path / f"{bits}.parquet"), "--workers", "1"])
        boxes[bits] = capsys.readouterr().out.split(" boxes of")[0].split()[-1]
    assert boxes[16] == boxes[10] != "0"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_scaled_image_is_rotated_upright_exactly_once(form, orientation):
    """Like the same image with 8 bits, in whichever form it is stored."""
    values = (np.arange(20 * 40, dtype=np.uint16) * 5).reshape(20, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep, plain = io.BytesIO(), io.BytesIO()
    Image.fromarray(values).save(deep, form, exif=exif)
    Image.fromarray(scale_to_8_bit(values, 4095)).save(plain, form, exif=exif)
    pixels = decode_image(deep.getvalue(), reading=PixelReading(white=4095))
    np.testing.assert_array_equal(pixels, decode_image(plain.getvalue()))
    assert image_size(deep.getvalue()) == pixels.shape[1::-1]


def float_tiffs(folder: Path) -> Path:
    """Reflectances of 0.2 to 0.6 in three images; the second spans only half of that."""
    folder.mkdir()
    for number, top in enumerate((0.6, 0.4, 0.6)):
        Image.fromarray((0.2 + RAMP * (top - 0.2)).astype(np.float32)).save(folder / f"{number}.tif")
    return folder


def test_floating_point_images_of_a_set_share_one_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = open_images(float_tiffs(tmp_path / "set"))
    assert "between 0.2" in capsys.readouterr().err
    expected = np.rint(np.repeat(RAMP[..., None], 3, axis=2) * 255)
    np.testing.assert_allclose(read_pixels(source, 0), expected, atol=2)
    np.testing.assert_allclose(read_pixels(source, 1), expected / 2, atol=2)


def test_an_explicit_value_range_is_used(tmp_path: Path) -> None:
    with read_images_as(PixelSettings(value_range=1.2)):
        floats = open_images(float_tiffs(tmp_path / "floats"))
    np.testing.assert_allclose(read_pixels(floats, 0)[..., 0], (0.2 + RAMP * 0.4) / 1.2 * 255, atol=1)
    with read_images_as(PixelSettings(value_range=2000)):
        source = open_images(write(tmp_path / "deep", 10, "gray"))
    np.testing.assert_allclose(read_pixels(source, 2)[..., 0], RAMP * 1023 / 2000 * 255, atol=1)


def bands(dtype: type, count: int = 5) -> np.ndarray:
    return np.stack([np.full((8, 6), 20 * (band + 1)) for band in range(count)], axis=2).astype(dtype)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_of_a_tiff_are_chosen(tmp_path: Path, planar: str, dtype: type) -> None:
    values = bands(dtype)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    options = {"photometric": "minisblack", "planarconfig": planar}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    with pytest.raises(UnreadableImageError, match=r"5 bands.*--bands"):
        decode_image((tmp_path / "a.tif").read_bytes())
    with read_images_as(PixelSettings(value_range=255, bands=(5, 3, 1))):
        source = open_images(tmp_path)
        assert image_size(source.read(0)) == (6, 8)
        assert read_pixels(source, 0)[0, 0].tolist() == [100, 60, 20]
    with read_images_as(PixelSettings(value_range=255, bands=(4,))):
        assert read_pixels(open_images(tmp_path), 0)[0, 0].tolist() == [80, 80, 80]
    with read_images_as(PixelSettings(bands=(7,))), pytest.raises(UnreadableImageError, match="asks for 7"):
        read_pixels(open_images(tmp_path), 0)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "jpeg2000"])
def test_a_compressed_multiband_tiff_needs_a_codec(monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, bands(np.uint16), photometric="minisblack", planarconfig="contig", compression=compression)
    reading = PixelReading(white=255, bands=(5, 3, 1))
    assert decode_image(file.getvalue(), reading=reading)[0, 0].tolist() == [100, 60, 20]

    def no_codec(*_: object, **__: object) -> None:
        raise ValueError(f"<COMPRESSION.{compression.upper()}> requires the 'imagecodecs' package")

    with monkeypatch.context() as patch:
        patch.setattr(tifffile.TiffPage, "asarray", no_codec)
        with pytest.raises(UnreadableImageError, match=r"socodet\[tiff\]"):
            decode_image(file.getvalue(), reading=reading)
    monkeypatch.setitem(sys.modules, "tifffile", None)  # as if it were not installed
    with pytest.raises(UnreadableImageError, match=r"socodet\[tiff\]"):
        decode_image(file.getvalue(), reading=reading)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_bands_of_other_formats_are_chosen(format: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 120, 40)).save(file, format, quality=100)
    pixels = decode_image(file.getvalue(), reading=PixelReading(bands=(3, 2, 1)))
    np.testing.assert_allclose(pixels[4, 4], [40, 120, 200], atol=3)


def test_a_colour_tiff_of_12_bits_is_not_dark(tmp_path: Path) -> None:
    values = np.repeat(np.rint(RAMP * 4095).astype(np.uint16)[..., None], 3, axis=2)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    np.testing.assert_allclose(read_pixels(open_images(tmp_path), 0), values / 4095 * 255, atol=1)


def test_max_pixels_refuses_large_images_which_pack_can_shrink(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.new("RGB", (400, 300), "red").save(tmp_path / "set" / "a.png")
    with read_images_as(PixelSettings(max_pixels=100_000)):
        source = open_images(tmp_path / "set")
        with pytest.raises(UnreadableImageError, match=r"400x300 pixels are more than 100,000.*--max-pixels"):
            read_pixels(source, 0)
    summary = pack(tmp_path / "set", tmp_path / "packed", settings=PackSettings(64), show_progress=False)
    assert summary.images == 1
    limited = PackSettings(64, max_pixels=100_000)
    with pytest.raises(InputError, match="none of its 1 images"):
        pack(tmp_path / "set", tmp_path / "none", settings=limited, show_progress=False)


def test_commands_accept_flags_for_reading_images(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(2):
        options = {"photometric": "minisblack", "planarconfig": "contig"}
        tifffile.imwrite(tmp_path / "set" / f"{number}.tif", bands(np.uint16), **options)
    flags = ["--bands", "3", "2", "1", "--value-range", "255", "--method", "grid"]
    main(["propose", str(tmp_path / "set"), "--output", str(tmp_path / "p.parquet"), *flags])
    assert ProposalTable.read(tmp_path / "p.parquet").unreadable == {}
    with pytest.raises(SystemExit):
        main(["propose", str(tmp_path / "set"), "--output", str(tmp_path / "q.parquet"), "--bands", "1", "2"])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("dtype", "low", "high"), [(np.int16, 0, 3000), (np.int16, -400, 600), (np.int8, -100, 90)])
@pytest.mark.parametrize("form", ["grey", "rgb", "bands"])
def test_signed_values_are_scaled_by_their_range(
    tmp_path: Path, form: str, dtype: type, low: int, high: int, order: str
) -> None:
    values = np.rint(low + RAMP * (high - low)).astype(dtype)
    stored = {"grey": values, "rgb": np.stack([values] * 3, 2), "bands": np.stack([values] * 5)}[form]
    options = {"photometric": "rgb" if form == "rgb" else "minisblack", "byteorder": order}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options, planarconfig="separate" if form == "bands" else None)
    chosen = (3, 2, 1) if form == "bands" else None
    expected = np.repeat(RAMP[..., None], 3, axis=2) * 255
    with read_images_as(PixelSettings(bands=chosen)):
        np.testing.assert_allclose(read_pixels(open_images(tmp_path), 0), expected, atol=2)
    alone = decode_image((tmp_path / "a.tif").read_bytes(), reading=PixelReading(bands=chosen))
    np.testing.assert_allclose(alone, expected, atol=2)
    with read_images_as(PixelSettings(bands=chosen, value_range=4 * high)):
        pixels = read_pixels(open_images(tmp_path), 0)
    np.testing.assert_allclose(pixels[..., 0], np.clip(values / (4 * high), 0, 1) * 255, atol=1)


@pytest.mark.parametrize("order", "<>")
def test_values_of_32_bits_are_unsigned_unless_the_file_says_otherwise(tmp_path: Path, order: str) -> None:
    for number, dtype in enumerate((np.uint32, np.int32)):
        values = (RAMP * np.iinfo(dtype).max).astype(dtype)
        tifffile.imwrite(tmp_path / f"{number}.tif", values, byteorder=order)
        pixels = decode_image((tmp_path / f"{number}.tif").read_bytes())
        np.testing.assert_allclose(pixels, np.repeat(RAMP[..., None], 3, axis=2) * 255, atol=1)


def test_images_above_the_pixel_limit_do_not_set_the_range(tmp_path: Path) -> None:
    large = np.rint(RAMP * 1000).astype(np.uint16)
    Image.fromarray(large).save(tmp_path / "a.tif")
    Image.fromarray(large[:8] // 8).save(tmp_path / "b.tif")
    whites = {}
    for limit in (large.size - 1, large.size):
        with read_images_as(PixelSettings(max_pixels=limit)):
            whites[limit] = reading_of(open_images(tmp_path)).white
    assert whites == {large.size - 1: 255, large.size: 1023}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("chosen", [None, (1,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_a_tiff_whose_lowest_value_is_white_is_inverted(
    tmp_path: Path, dtype: type, chosen: tuple[int, ...] | None, order: str
) -> None:
    """It reads like the same image with its values inverted by hand."""
    top = np.iinfo(dtype).max
    values = np.rint(RAMP * top).astype(dtype)
    pixels = []
    for photometric, stored in (("miniswhite", values), ("minisblack", top - values)):
        folder = tmp_path / photometric
        folder.mkdir()
        tifffile.imwrite(folder / "a.tif", stored, photometric=photometric, byteorder=order)
        with read_images_as(PixelSettings(bands=chosen)):
            pixels.append(read_pixels(open_images(folder), 0)[..., 0])
    by_hand = (1 - RAMP) * 255
    np.testing.assert_allclose(pixels[0], by_hand, atol=2)
    if dtype != np.uint32:  # Pillow reads only half of these values
        np.testing.assert_allclose(pixels[1], by_hand, atol=2)


def test_the_range_is_found_among_inverted_values(tmp_path: Path) -> None:
    values = (65535 - np.rint(RAMP * 1000)).astype(np.uint16)
    values[:4] = 7
    options = {"photometric": "miniswhite", "extratags": [(42113, "s", 0, "7", True)]}
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    source = open_images(tmp_path)
    assert reading_of(source).white == 1023
    expected = RAMP * 1000 / 1023 * 255
    expected[:4] = 0  # no data: black even where the highest value is black
    np.testing.assert_allclose(read_pixels(source, 0)[..., 0], expected, atol=1)


def test_only_the_grey_band_is_inverted(tmp_path: Path) -> None:
    options = {"photometric": "miniswhite", "planarconfig": "contig", "extrasamples": ["unspecified"] * 2}
    tifffile.imwrite(tmp_path / "a.tif", bands(np.uint8, 3), **options)
    with read_images_as(PixelSettings(bands=(1, 2, 3))):
        assert read_pixels(open_images(tmp_path), 0)[0, 0].tolist() == [235, 40, 60]


def test_floating_point_values_are_not_inverted_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.float32), photometric="miniswhite")
    pixels = read_pixels(open_images(tmp_path), 0)
    assert pixels[0, 0, 0] < 5 < 250 < pixels[-1, -1, 0]
    assert "least is white" in capsys.readouterr().err


def geotiff(file: Path, values: np.ndarray, nodata: str) -> None:
    """A TIFF with GDAL's no-data tag, in a form that one or both of the two readers support."""
    tifffile.imwrite(file, values, extratags=[(42113, "s", 0, nodata, True)], photometric="minisblack")


@pytest.mark.parametrize(
    ("dtype", "nodata", "top"),
    [(np.float32, "-9999", 1.0), (np.float64, "-3.4e+38", 1.0), (np.float32, "nan", 1.0), (np.uint16, "65535", 4000.0)],
)
def test_no_data_pixels_are_black_and_do_not_affect_the_range(
    tmp_path: Path, dtype: type, nodata: str, top: float
) -> None:
    values = (RAMP * top).astype(dtype)
    values[:8] = float(nodata)
    geotiff(tmp_path / "a.tif", values, nodata)
    pixels = read_pixels(open_images(tmp_path), 0)
    assert (pixels[:8] == 0).all()
    there = RAMP[8:]
    expected = there * 4000 / 4095 if top == 4000 else (there - there.min()) / (1 - there.min())
    np.testing.assert_allclose(pixels[8:, :, 0], expected * 255, atol=2)


def test_no_data_pixels_of_signed_bands_are_black(tmp_path: Path) -> None:
    values = np.rint(2000 + RAMP * 1000).astype(np.int16)
    values[:8] = -9999
    options = {"photometric": "rgb", "extratags": [(42113, "s", 0, "-9999", True)]}
    tifffile.imwrite(tmp_path / "a.tif", np.stack([values] * 3, 2), **options)
    pixels = read_pixels(open_images(tmp_path), 0)
    assert (pixels[:8] == 0).all()
    there = RAMP[8:]
    np.testing.assert_allclose(pixels[8:, :, 0], (there - there.min()) / (1 - there.min()) * 255, atol=2)


def test_images_that_would_be_read_only_in_part_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.ones((8, 8), np.complex64))
    with pytest.raises(UnreadableImageError, match="complex"):
        decode_image(file.getvalue())
    file = io.BytesIO()
    tifffile.imwrite(file, bands(np.uint8, 2), photometric="minisblack", planarconfig="contig")
    with pytest.raises(UnreadableImageError, match=r"2 bands.*--bands"):
        decode_image(file.getvalue())
    assert decode_image(file.getvalue(), reading=PixelReading(bands=(2,)))[0, 0].tolist() == [40, 40, 40]


def test_bands_beyond_the_colours_are_dropped_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"photometric": "rgb", "planarconfig": "contig", "extrasamples": ["unspecified"] * 3}
    tifffile.imwrite(tmp_path / "a.tif", bands(np.uint8, 6), **options)
    source = open_images(tmp_path)
    assert "TIFFs of 6 bands: red, green and blue are read; --bands" in capsys.readouterr().err
    assert read_pixels(source, 0)[0, 0].tolist() == [20, 40, 60]
