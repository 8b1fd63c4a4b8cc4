import io
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageOps

from socodet.errors import UnreadableImageError
from socodet.images.decode import decode_image, image_size
from socodet.images.photographs import photographs

PHOTOGRAPHS = sorted(photographs().glob("*.jpg"))[:5]


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photograph(number: int = 0, size: tuple[int, int] = (397, 301)) -> Image.Image:
    with Image.open(PHOTOGRAPHS[number]) as image:
        return image.convert("RGB").resize(size)


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"subsampling": "4:4:4"}, "RGB"),
        ({"subsampling": "4:2:0"}, "RGB"),
        ({"progressive": True}, "RGB"),
        ({}, "L"),
        ({}, "CMYK"),  # from PIL
    ],
)
def test_scaled_decoding_matches_the_downscaled_whole(options: dict[str, object], mode: str) -> None:
    for number in range(len(PHOTOGRAPHS)):
        data = encode(photograph(number).convert(mode), "JPEG", quality=95, **options)
        whole = Image.fromarray(decode_image(data))
        assert whole.size == (397, 301)
        for part, least_side in ((2, 150), (2, 76), (4, 75), (4, 38), (8, 37), (8, 1)):
            pixels = decode_image(data, least_side)
            means = np.asarray(whole.reduce(part))  # by blocks, clipped at the border
            assert pixels.shape == means.shape == (-(-301 // part), -(-397 // part), 3)
            assert pixels.dtype == np.uint8
            assert pixels.flags.c_contiguous
            difference = np.abs(pixels.astype(int) - means.astype(int))
            assert difference.mean() < 1  # a shift by one pixel gives 7 to 23
            assert np.percentile(difference, 99) <= 6


def test_the_shorter_side_is_at_least_the_requested_size() -> None:
    for width, height in ((160, 90), (90, 160), (161, 95), (64, 64), (33, 400)):
        data = encode(photograph(size=(width, height)), "JPEG")
        for least_side in range(1, 200, 3):
            pixels = decode_image(data, least_side)
            shorter = min(pixels.shape[:2])
            assert shorter >= min(least_side, width, height)
            if pixels.shape[:2] != (height, width):
                assert min(width, height) >= 2 * least_side
            else:
                assert min(width, height) < 2 * least_side


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_formats_are_decoded_in_full(format: str) -> None:
    data = encode(photograph(), format)
    np.testing.assert_array_equal(decode_image(data, 10), decode_image(data))


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scaled_image_is_upright(orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encode(photograph(size=(400, 304)).convert(mode), "JPEG", quality=95, exif=exif)
    whole = Image.fromarray(decode_image(turned))
    pixels = decode_image(turned, 76)
    assert pixels.shape == ((76, 100, 3) if orientation <= 4 else (100, 76, 3))
    assert np.abs(pixels.astype(int) - np.asarray(whole.reduce(4)).astype(int)).mean() < 1


def test_a_truncated_jpeg_is_detected_at_every_scale() -> None:
    for data in (encode(photograph().convert(mode), "JPEG") for mode in ("RGB", "CMYK")):
        for least_side in (150, 75, 37):
            for share in (0.3, 0.6, 0.95):
                cut: list[bool] = []
                part = decode_image(data[: int(len(data) * share)], least_side, on_truncated=partial(cut.append, True))
                assert cut == [True]
                assert part.shape == decode_image(data, least_side).shape


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "mode"),
    [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("WEBP", "RGB"), ("TIFF", "RGB"), ("BMP", "RGB")],
)
def test_image_size_is_that_of_the_upright_image(format: str, mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if format == "BMP" else {"exif": exif}
    data = encode(photograph(size=(40, 30)).convert(mode), format, **options)
    with Image.open(io.BytesIO(data)) as stored:
        expected = ImageOps.exif_transpose(stored).size
    assert image_size(data) == expected
    assert decode_image(data).shape[:2] == expected[::-1]


def test_the_size_of_a_jpeg_needs_only_its_header() -> None:
    data = encode(photograph(), "JPEG")
    assert image_size(data[:1000]) == (397, 301)
    with pytest.raises(UnreadableImageError):
        decode_image(data[:1000])


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(99)])
def test_data_that_is_not_an_image_has_no_size(data: bytes) -> None:
    with pytest.raises(UnreadableImageError) as raised:
        image_size(data)
    assert "\n" not in str(raised.value)
