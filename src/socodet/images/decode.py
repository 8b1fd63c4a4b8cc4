"""From the bytes of an image file to pixels: always (H, W, 3) uint8 RGB, upright, whole."""

import io
import struct
from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from socodet.errors import UnreadableImageError

MAX_PIXELS = 89_478_485
"""Larger pictures are refused: a quarter of a GiB of pixels, and PIL's own limit."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF")

# Complaints of libjpeg that leave every pixel as it was meant: bytes skipped between segments, and a scan
# header that some cameras write wrongly. Its other complaints are of lost or damaged pixels.
HARMLESS = ("extraneous bytes before marker", "Invalid SOS parameters")

ORIENTATION_TAG = 0x0112


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """The pixels of an encoded image, (H, W, 3) RGB, C-contiguous, upright as its EXIF orientation says.

    JPEG, PNG, WebP, TIFF, BMP and GIF; of an animation or a file of several pages the first. Transparent
    pixels are laid on white. 16 bits a channel become 8 by scaling the full range, so that 65535 is white;
    32-bit and floating-point pixels, which have no such range, are stretched from their own least to their
    own greatest value.

    UnreadableImageError, in one line without the file's name, when the bytes are no such image, are truncated
    or damaged, or hold more than `MAX_PIXELS`.
    """
    if not data:
        raise UnreadableImageError("the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data)
    return _decode_with_pil(data)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Baseline and progressive JPEG by libjpeg-turbo directly, CMYK and what is odd by PIL."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return _decode_with_pil(data)
    if colorspace in ("CMYK", "YCCK"):
        return _decode_with_pil(data)
    _check_size(width, height)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        if any(complaint in str(error) for complaint in HARMLESS):
            return _decode_with_pil(data)
        raise _unreadable(error) from None
    return _upright(pixels, _jpeg_orientation(data))


def _decode_with_pil(data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size)
            image.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(image)), order="C")
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image of a known format (JPEG, PNG, WebP, TIFF, BMP, GIF)") from None
    except Exception as error:  # damaged files make PIL's decoders raise almost anything
        raise _unreadable(error) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _gray(np.asarray(image).astype(np.float32) * (255 / 65535))
    if image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float64)
        low, high = values.min(), values.max()
        if not np.isfinite(high - low):
            raise UnreadableImageError("has pixels that are not finite numbers")
        return _gray((values - low) * (255 / (high - low or 1)))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def _gray(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{width}x{height} pixels are more than {MAX_PIXELS}; scale it down")


def _unreadable(error: Exception) -> UnreadableImageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnreadableImageError(f"truncated or damaged ({reason})")


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """`pixels` (H, W, 3) as they are meant to be seen, given their EXIF orientation (1..8)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG; 1, as stored, when it says none."""
    for marker, payload in _jpeg_segments(data):
        if marker == 0xE1 and payload.startswith(b"Exif\0\0"):
            return _exif_orientation(payload[6:])
    return 1


def _exif_orientation(tiff: bytes) -> int:
    """The orientation tag in the first directory of an EXIF block, which is laid out as a TIFF file."""
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
            if tag == ORIENTATION_TAG:
                return int(value)
    except struct.error:  # a damaged EXIF block leaves the pixels as they are
        pass
    return 1


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and payload of the segments before the compressed pixels (ITU T.81, annex B)."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:  # start of scan
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
