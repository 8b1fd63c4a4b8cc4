"""The values of images of more than 8 bits, of floating point or of several bands, as their files have them."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from socodet.errors import UnreadableImageError
from socodet.images.opening import PNG, check_size, open_with_pillow, orientation, upright
from socodet.images.reading import FULL_RANGE, MAX_PIXELS
from socodet.images.tiff import (
    NODATA_TAG,
    PHOTOMETRIC,
    TIFF,
    YCBCR,
    bands_error,
    colours_error,
    read_tiff,
    with_black_as_zero,
)
from socodet.runtime.notices import notice

PGM = b"P5"
BITS_PER_SAMPLE, COMPRESSION, SAMPLES_PER_PIXEL, PLANAR, SAMPLE_FORMAT, SUBSAMPLING = 258, 259, 277, 284, 339, 530
SIGNED, SEPARATE, UNCOMPRESSED, WEBP = 2, 2, 1, 50001


def stored_values(
    data: bytes, bands: tuple[int, ...] | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[Any] | None:
    """The values of a PNG, TIFF or PGM, (H, W) or (H, W, C), upright; None for other files, and for 8-bit values.

    Without `bands`, the last of two or four channels is opacity. bands: which to take, counted from 1; with them, every
    TIFF's values are read. UnreadableImageError if there are fewer, or if there are bands besides colour and
    transparency and none are chosen; for more than `max_pixels`, and for a TIFF that needs a missing package. Damaged
    files raise almost anything.
    """
    values = _png(data, bands, max_pixels) if data.startswith(PNG) else None
    if data.startswith(TIFF):
        values = _tiff(data, bands, max_pixels)
    if data.startswith(PGM):
        values = _pgm(data, max_pixels)
    return values if values is None or bands is None else chosen_bands(values, bands)


def chosen_bands(values: NDArray[Any], bands: tuple[int, ...]) -> NDArray[Any]:
    """The chosen bands, (H, W, C), of (H, W) or more bands. UnreadableImageError when there are fewer."""
    planes = values[..., None] if values.ndim == 2 else values
    if max(bands) > planes.shape[2]:
        raise UnreadableImageError(f"has {planes.shape[2]} bands, and --bands asks for {max(bands)}")
    return np.ascontiguousarray(planes[..., [band - 1 for band in bands]])


def values_of_opened(image: Image.Image) -> NDArray[Any] | None:
    """The values of an image that Pillow opened, if they are grey and of more than 8 bits or of floating point.

    Upright for a TIFF, else as they are stored.
    """
    if not image.mode.startswith("I;16") and image.mode not in ("I", "F"):
        return None
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "I" and tags.get(BITS_PER_SAMPLE) == (32,) and SIGNED not in tags.get(SAMPLE_FORMAT, ()):
        values = values.view(np.uint32)  # Pillow has no such mode
    if image.mode.startswith("I;16") or image.format == "PPM":
        values = values.astype(np.uint16)
    return with_black_as_zero(values, tags.get(NODATA_TAG), tags.get(PHOTOMETRIC), tags.get(BITS_PER_SAMPLE, (16,))[0])


def _png(data: bytes, bands: tuple[int, ...] | None, max_pixels: int) -> NDArray[Any] | None:
    if data[24:25] != b"\x10":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    check_size(width, height, max_pixels)
    with open_with_pillow(data, ("PNG",), max_pixels) as image:
        grey = data[25:26] == b"\0"
        values = np.asarray(image).astype(np.uint16) if grey and image.mode.startswith("I;16") else None
        if not grey:
            values = _colour_png(data)
        if values is None:
            return None
        if bands is None:
            values = with_opacity(values, image.info.get("transparency"))
        return upright(values, orientation(image, data))


def with_opacity(values: NDArray[Any], clear: int | tuple[int, ...] | None) -> NDArray[Any]:
    """16-bit values (H, W) or (H, W, 3) with opacity as one more channel: 0 where they are `clear`, a PNG's tRNS."""
    if clear is None:
        return values
    planes = values[..., None] if values.ndim == 2 else values
    opaque = (planes != np.asarray(clear)).any(axis=2)
    return np.dstack([planes, np.where(opaque, FULL_RANGE, 0).astype(np.uint16)])


def _pgm(data: bytes, max_pixels: int) -> NDArray[np.uint16] | None:
    with open_with_pillow(data, ("PPM",), max_pixels) as image:
        return None if image.mode != "I" or is_rescaled_by_pillow(image) else np.asarray(image).astype(np.uint16)


def is_rescaled_by_pillow(image: Image.Image) -> bool:
    """Whether Pillow spreads the values of an opened image over 16 bits, because the file says how many it uses.

    A PGM that says 16, as all of OpenCV's do, need not use them all. Once it is loaded, this cannot be told any more.
    """
    stored = image.format == "PPM" and bool(image.tile) and image.tile[0][0] == "raw"  # type: ignore[attr-defined]
    return image.format in ("PPM", "JPEG2000") and not stored


def _colour_png(data: bytes) -> NDArray[np.uint16] | None:
    """(H, W, C) by torchvision, as Pillow keeps only the upper 8 bits; None if that can no longer decode images."""
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_png
    except ImportError:
        notice(
            "16-bit colour PNGs: only the upper 8 bits of their values are read, as this torchvision no longer decodes "
            "PNGs; if they use fewer than 16 bits, save them as TIFFs or install torchvision 0.29"
        )
        return None
    decoded = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)
    return np.asarray(decoded.permute(1, 2, 0).numpy())


def _tiff(data: bytes, bands: tuple[int, ...] | None, max_pixels: int) -> NDArray[Any] | None:
    """Reads it by Pillow, which turns it upright, if Pillow knows its form."""
    if bands is None:
        try:
            with open_with_pillow(data, ("TIFF",), max_pixels) as image:
                tags = image.tag_v2  # type: ignore[attr-defined]
                planes = tags.get(PLANAR) == SEPARATE
                if image.mode == "YCbCr" and (planes or _is_subsampled(tags)):
                    raise colours_error(YCBCR)
                if (planes and image.mode in ("LA", "La")) or tags.get(
                    COMPRESSION
                ) == WEBP:  # which Pillow's wheels do not decode
                    return read_tiff(data, bands, max_pixels)
                if image.mode == "L" and tags.get(SAMPLES_PER_PIXEL, 1) > 1:  # of which Pillow would take the first
                    raise bands_error(tags[SAMPLES_PER_PIXEL])
                if image.mode == "RGB" and tags.get(SAMPLES_PER_PIXEL, 3) > 3:
                    notice(
                        f"TIFFs of {tags[SAMPLES_PER_PIXEL]} bands: red, green and blue are read; --bands sets others"
                    )
                values = values_of_opened(image)
                if values is not None:
                    return upright(values, orientation(image))  # if Pillow has not turned it
                plain = max(tags.get(BITS_PER_SAMPLE, (8,))) <= 8 and SIGNED not in tags.get(SAMPLE_FORMAT, ())
                if plain or (image.mode == "CMYK" and not planes):
                    return None
        except UnidentifiedImageError:
            pass
    return read_tiff(data, bands, max_pixels)


def _is_subsampled(tags: Any) -> bool:
    """Whether a TIFF in YCbCr stores fewer values for colour than for light, without a codec that spreads them."""
    return tags.get(COMPRESSION) == UNCOMPRESSED and tuple(tags.get(SUBSAMPLING, (2, 2))) != (1, 1)
