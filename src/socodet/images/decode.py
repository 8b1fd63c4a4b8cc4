"""From the bytes of an image file to pixels: always (H, W, 3) uint8 RGB, upright and complete."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import COLORMAP, IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from socodet.errors import UnreadableImageError
from socodet.images.jpeg_exif import jpeg_orientation
from socodet.images.opening import PNG, check_size, open_with_pillow, orientation, upright
from socodet.images.reading import PLAIN, PixelReading, requested_reading
from socodet.images.stored_values import chosen_bands, stored_values
from socodet.images.suffixes import AVIF_SUFFIXES, HEIF_SUFFIXES, INSTALL_HEIF, JPEG_2000_SUFFIXES
from socodet.images.tiff import TIFF, tiff_size
from socodet.images.truncated import END_OF_IMAGE, is_truncated
from socodet.images.value_range import as_8_bit
from socodet.runtime.files import LFS_POINTER


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read; some depend on how Pillow was built, or on pillow-heif."""
    if HEIF_SUFFIXES:
        import pillow_heif

        pillow_heif.register_heif_opener()
    optional = {"AVIF": AVIF_SUFFIXES, "HEIF": HEIF_SUFFIXES, "JPEG2000": JPEG_2000_SUFFIXES}
    return ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", *(name for name, has in optional.items() if has))


# Warnings of libjpeg after which all pixels are intact: bytes skipped between segments, and a scan header that some
# cameras write wrongly. Its other warnings are about lost or damaged pixels.
HARMLESS = ("extraneous bytes before marker", "Invalid SOS parameters")

UNSUPPORTED = ("nsupported", "not supported", "unknown raw mode")
"""What decoders say of forms that they do not read."""

UNCONVERTED = "Unsupported color conversion request"
"""What libjpeg says of lossless JPEGs, whose grey it does not make RGB."""

LEAST_THERE = 0.1
"""Share of the pixels of a JPEG that must be there."""

JPEG = b"\xff\xd8\xff"
"""What a JPEG file begins with."""

SIGNATURES = (JPEG, PNG, *TIFF, b"GIF8", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
"""What files of several formats begin with, JPEG 2000 among them."""


def decode_image(
    data: bytes,
    least_side: int | None = None,
    reading: PixelReading = PLAIN,
    on_truncated: Callable[[], None] = lambda: None,
    on_high_bit_depth: Callable[[NDArray[Any]], None] = lambda values: None,
) -> NDArray[np.uint8]:
    """The pixels of an encoded image, (H, W, 3) RGB, C-contiguous, upright as its EXIF orientation says.

    With `least_side`, at least 1, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, the smallest whose shorter
    side still has that many pixels. libjpeg leaves out the high frequencies of each block, which is faster than the
    full size and does not alias. At 1/s an H×W image becomes ceil(H/s)×ceil(W/s), and x becomes x/s; `image_size` gives
    the full size. Other formats, and images less than twice as large, are decoded in full.

    Reads JPEG, PNG, WebP, TIFF, BMP, GIF and PPM, JPEG 2000 and AVIF if Pillow can, HEIC if pillow-heif is installed;
    the first frame of an animation or page of a document. Transparent pixels are composited on white. Channels of more
    than 8 bits are scaled to 8 as `reading` says; a TIFF of several bands needs its `bands`.

    A JPEG whose end is missing is decoded as far as it goes, grey below, and `on_truncated` is called, unless hardly
    anything of it is there. `on_high_bit_depth` gets the values of an image of more than 8 bits. UnreadableImageError,
    in one line without the file's name, when the bytes are not such an image, are otherwise truncated or damaged, or
    have more pixels than `reading` allows.
    """
    if not data:
        raise UnreadableImageError("the file is empty")
    if data.startswith(JPEG):
        pixels = _decode_jpeg(data, least_side, on_truncated, reading.max_pixels)
        return pixels if reading.bands is None else _to_three_channels(chosen_bands(pixels, reading.bands))
    try:
        values = stored_values(data, reading.bands, reading.max_pixels)
    except UnreadableImageError:
        raise
    except Exception as error:  # damaged files make decoders raise almost anything
        raise _unreadable(error) from None
    if values is not None:
        on_high_bit_depth(values)
        try:
            return _to_three_channels(as_8_bit(values, reading))
        except ValueError as error:
            raise UnreadableImageError(str(error)) from None
    with _opened_by_pil(data, reading.max_pixels) as image:
        if reading.bands is None:
            return _decode_with_pil(image)
        image.load()
        whole = image.convert("RGB") if image.mode in ("P", "PA", "1", "CMYK", "YCbCr") else image
        chosen = chosen_bands(np.asarray(whole), reading.bands)
        return upright(_to_three_channels(as_8_bit(chosen, reading)), orientation(image, data))


def _to_three_channels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) from (H, W) or (H, W, C): grey is repeated, transparency is composited on white."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return pixels if pixels.ndim == 3 and pixels.shape[2] == 3 else np.array(to_rgb(Image.fromarray(pixels)))


def image_size(data: bytes, max_pixels: int | None = None) -> tuple[int, int]:
    """Width and height of an encoded image, upright: those of `decode_image(data)`, without decoding a JPEG.

    A PNG is decoded only if text comes after its pixels, which may hold its orientation. An image with a size may still
    turn out to be damaged. UnreadableImageError as `decode_image`. max_pixels: by default as `read_images_as` says.
    """
    max_pixels = max_pixels or requested_reading().reading.max_pixels
    if not data:
        raise UnreadableImageError("the file is empty")
    if data.startswith(JPEG):
        size = _jpeg_size(data, max_pixels)
        if size is not None:
            return _swapped_if_rotated(size, jpeg_orientation(data))
    if data.startswith(TIFF) and not _pil_can_open(data, max_pixels):
        size = tiff_size(data)
        if size is not None:
            check_size(*size, max_pixels)
            return size
    with _opened_by_pil(data, max_pixels) as image:
        return upright_size(image, data)


def upright_size(image: Image.Image, data: bytes = b"") -> tuple[int, int]:
    """Width and height, upright, of an image that Pillow opened; data: its bytes, if it may be a PNG."""
    stored = image.size
    if isinstance(image, TiffImageFile):  # whose `size` PIL may have turned already
        stored = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return _swapped_if_rotated(stored, orientation(image, data))


def _pil_can_open(data: bytes, max_pixels: int) -> bool:
    try:
        with open_with_pillow(data, ("TIFF",), max_pixels):
            return True
    except Exception:  # reported when it is decoded
        return False


def _swapped_if_rotated(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    width, height = size
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _decode_jpeg(
    data: bytes, least_side: int | None, on_truncated: Callable[[], None], max_pixels: int
) -> NDArray[np.uint8]:
    """Baseline and progressive JPEG by libjpeg-turbo directly, CMYK and unusual files by PIL."""
    size = _jpeg_size(data, max_pixels)
    if size is not None:
        width, height = size
        part = _decode_scale(width, height, least_side)
        try:
            # The size at 1/`part`, rounded up as libjpeg does: the only one of its scales with that many pixels.
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                data, "RGB", min_height=-(-height // part), min_width=-(-width // part)
            )
            return upright(pixels, jpeg_orientation(data))
        except ValueError as error:
            if is_truncated(data):
                pixels = _decode_cut_jpeg(data, height, width, part)
                on_truncated()
                return pixels
            if not any(complaint in str(error) for complaint in (*HARMLESS, UNCONVERTED)):
                raise _unreadable(error) from None
    return _decode_jpeg_with_pil(data, least_side, on_truncated, max_pixels)


def _decode_jpeg_with_pil(
    data: bytes, least_side: int | None, on_truncated: Callable[[], None], max_pixels: int
) -> NDArray[np.uint8]:
    cut = is_truncated(data)
    with _opened_by_pil(data + END_OF_IMAGE if cut else data, max_pixels) as image:
        part = _decode_scale(*image.size, least_side)
        image.draft(None, (image.width // part, image.height // part))
        pixels = _decode_with_pil(image)
        if cut:
            _check_enough(np.asarray(to_rgb(image)))
    if cut:
        on_truncated()
    return pixels


def _decode_cut_jpeg(data: bytes, height: int, width: int, part: int) -> NDArray[np.uint8]:
    """Decodes a JPEG whose end is missing; UnreadableImageError when hardly anything of it is there."""
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height // part), min_width=-(-width // part), strict=False
        )
    except ValueError as error:
        raise _unreadable(error) from None
    _check_enough(pixels)
    return upright(pixels, jpeg_orientation(data))


def _check_enough(pixels: NDArray[np.uint8]) -> None:
    if (pixels != pixels[-1]).any(2).mean() < LEAST_THERE:  # below its end all rows are the same
        raise UnreadableImageError("truncated near its beginning")


def _jpeg_size(data: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Stored width and height of a JPEG; None if PIL must read it."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colorspace in ("CMYK", "YCCK"):
        return None
    check_size(width, height, max_pixels)
    return width, height


def _decode_scale(width: int, height: int, least_side: int | None) -> int:
    """The greatest s of 1, 2, 4, 8 such that 1/s of the image has `least_side` pixels on its shorter side."""
    if least_side is None:
        return 1
    return max(part for part in (1, 2, 4, 8) if part == 1 or min(width, height) >= part * least_side)


@contextmanager
def _opened_by_pil(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """An image whose header has been read; any error while it is used becomes an UnreadableImageError."""
    try:
        with open_with_pillow(data, formats(), max_pixels) as image:
            yield image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        if data.startswith(LFS_POINTER):
            raise UnreadableImageError("a pointer of Git LFS; git lfs pull gets the image") from None
        if data[4:8] == b"ftyp" and not HEIF_SUFFIXES:
            raise UnreadableImageError(f"HEIC or AVIF, which cannot be read here; {INSTALL_HEIF}") from None
        if data.startswith(SIGNATURES) or data[4:8] == b"ftyp":
            raise UnreadableImageError(
                "truncated or damaged, or in a form that is not read; save it as a PNG"
            ) from None
        raise UnreadableImageError(f"not an image of a known format ({', '.join(formats())})") from None
    except Exception as error:  # damaged files make PIL's decoders raise almost anything
        raise _unreadable(error) from None


def _decode_with_pil(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    if image.mode == "I":  # a PGM, whose values Pillow spreads over 16 bits
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.format in ("BMP", "DIB") and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        image = image.convert("RGB")  # some programs leave alpha at 0
    colours = image.tag_v2.get(COLORMAP, ()) if isinstance(image, TiffImageFile) and image.mode == "P" else ()
    if 0 < max(colours, default=0) < 256:  # of 8 bits, not 16, as some programs write them
        image.putpalette(np.reshape(colours, (3, -1)).T.astype(np.uint8).tobytes())
    return upright(np.array(to_rgb(image)), orientation(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any of Pillow's modes as RGB, with transparency composited on white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(as_8_bit(np.asarray(image), PLAIN)).convert("RGB")
    if image.mode == "La":  # of which Pillow converts only this way
        image = image.convert("LA")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def _unreadable(error: Exception) -> UnreadableImageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if any(complaint in reason for complaint in UNSUPPORTED):
        return UnreadableImageError(f"in a form that is not read, or damaged ({reason}); save it as a PNG")
    return UnreadableImageError(f"truncated or damaged ({reason})")
