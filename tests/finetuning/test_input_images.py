import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from socodet.errors import InputError
from socodet.finetuning.input_images import as_pixels
from socodet.images.reading import PLAIN, PixelReading
from socodet.images.truncated import TRUNCATED
from socodet.runtime.notices import notice

RAMP = np.linspace(0, 1, 20 * 30).reshape(20, 30)
READING = PixelReading(white=4095, floats=(-50.0, 100.0))


def tiff(file: Path, values: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(file, values, **options)
    return file


@pytest.mark.parametrize("reading", [READING, PLAIN])
@pytest.mark.parametrize(
    ("values", "options"),
    [
        ((20 + RAMP * 20).astype(np.float32), {}),
        ((RAMP * 400 - 200).astype(np.int16), {}),
        ((RAMP * 70).astype(np.int32), {}),
        ((RAMP * 3000).astype(np.uint16), {}),
        ((RAMP * 3000).astype(np.uint16), {"byteorder": ">"}),
        ((65535 - RAMP * 3000).astype(np.uint16), {"photometric": "miniswhite"}),
        ((RAMP * 3000).astype(np.uint16), {"extratags": [(42113, "s", 0, "0", True)]}),
    ],
)
def test_opened_tiff_is_read_like_its_file(
    tmp_path: Path, values: np.ndarray, options: dict[str, object], reading: PixelReading
) -> None:
    file = tiff(tmp_path / "a.tif", values, **options)
    np.testing.assert_array_equal(as_pixels(Image.open(file), reading), as_pixels(file, reading))


def test_images_in_memory_are_scaled_by_the_value_range() -> None:
    floats = as_pixels(Image.fromarray((20 + RAMP * 20).astype(np.float32)), READING)
    np.testing.assert_allclose(floats[..., 0], (70 + RAMP * 20) / 150 * 255, atol=1)
    integers = as_pixels(Image.fromarray(np.rint(RAMP * 40).astype(np.int32)), READING)
    np.testing.assert_allclose(integers[..., 0], (50 + np.rint(RAMP * 40)) / 150 * 255, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("loaded", [False, True])
def test_16_bit_image_is_rotated_upright_once(tmp_path: Path, form: str, orientation: int, loaded: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{form.lower()}"
    Image.fromarray(np.rint(RAMP * 3000).astype(np.uint16)).save(file, exif=exif)
    image = Image.open(io.BytesIO(file.read_bytes()))  # Pillow memory-maps a TIFF file and ignores its orientation
    if loaded:
        image.load()
    np.testing.assert_array_equal(as_pixels(image, READING), as_pixels(file, READING))


def test_16_bit_pgm_is_read_like_its_file(tmp_path: Path) -> None:
    """Pillow scales its values up to 65535, unless that is already the file's maximum."""
    values = np.rint(RAMP * 2000).astype(">u2")
    for maximum, white in ((4095, 4095), (65535, READING.white), (1 << 13, 1 << 13)):
        file = tmp_path / "a.pgm"
        file.write_bytes(b"P5 30 20 %d\n" % maximum + values.tobytes())
        np.testing.assert_array_equal(as_pixels(Image.open(file), READING), as_pixels(file, READING))
        np.testing.assert_allclose(as_pixels(file, READING)[..., 0], values * (255 / white), atol=0.51)


def test_values_without_a_finite_range_are_one_line() -> None:
    without = Image.fromarray(np.array([[np.nan, np.nan]], np.float32))
    with pytest.raises(InputError, match=r"images\[3\]: .*not finite") as raised:
        as_pixels(without, PLAIN, "images[3]")
    assert "\n" not in str(raised.value)
    image = Image.fromarray(np.array([[1.0, np.nan]], np.float32))
    file = io.BytesIO()
    image.save(file, "TIFF")
    assert as_pixels(Image.open(file), READING)[0].tolist() == [[87] * 3, [0] * 3]


def test_dark_16_bit_image_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands infer white from all their images; a detector that gets one image at a time cannot."""
    file = tmp_path / "a.png"

    def warnings_of(values: np.ndarray, reading: PixelReading) -> list[str]:
        notice.cache_clear()
        Image.fromarray(values).save(file)
        lines = []
        for image in (file, file.read_bytes(), Image.open(file)):
            as_pixels(image, reading)
            lines.append(capsys.readouterr().err)
            notice.cache_clear()
        return lines

    twelve_bits = np.rint(RAMP * 4095).astype(np.uint16)
    assert all("65,535 counts as white" in line for line in warnings_of(twelve_bits, PLAIN))
    assert (
        warnings_of(twelve_bits, READING)
        == warnings_of(16 * twelve_bits, PLAIN)
        == warnings_of((255 * RAMP).astype(np.uint8), PLAIN)
    )
    assert not any(warnings_of(twelve_bits, READING))


def test_truncated_jpeg_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:-800])
    TRUNCATED.names.clear()
    as_pixels(file)
    as_pixels(file.read_bytes(), name="images[1]")
    assert TRUNCATED.names == {str(file), "images[1]"}
    TRUNCATED.names.clear()
