"""The values of images of more than 8 bits, of floating point or of several bands, as their files have them."""

import io
import struct
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from socodet.errors import UnreadableImageError
from socodet.images.opening import (
    ORIENTATION_TAG,
    PAGES,
    PNG,
    SUB_DIRECTORIES,
    check_size,
    elsewhere,
    is_reduced,
    open_with_pillow,
    orientation,
)
from socodet.images.reading import FULL_RANGE, MAX_PIXELS
from socodet.runtime.notices import notice

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PGM = b"P5"
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, SAMPLE_FORMAT, NODATA_TAG = 258, 262, 277, 339, 42113
MIN_IS_WHITE, SIGNED, MULTIPLIED = 0, 2, 1
INSTALL_TIFF = "pip install 'socodet[tiff]' reads it"


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
    return _with_black_as_zero(values, tags.get(NODATA_TAG), tags.get(PHOTOMETRIC), tags.get(BITS_PER_SAMPLE, (16,))[0])


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """`pixels` (H, W) or (H, W, C) turned upright, given their EXIF orientation (1..8)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


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
                if image.mode == "L" and tags.get(SAMPLES_PER_PIXEL, 1) > 1:  # of which Pillow would take the first
                    raise _bands_error(tags[SAMPLES_PER_PIXEL])
                if image.mode == "RGB" and tags.get(SAMPLES_PER_PIXEL, 3) > 3:
                    notice(
                        f"TIFFs of {tags[SAMPLES_PER_PIXEL]} bands: red, green and blue are read; --bands sets others"
                    )
                values = values_of_opened(image)
                if values is not None:
                    return values
                plain = max(tags.get(BITS_PER_SAMPLE, (8,))) <= 8 and SIGNED not in tags.get(SAMPLE_FORMAT, ())
                if plain or image.mode == "CMYK":
                    return None
        except UnidentifiedImageError:
            pass
    return _by_tifffile(data, bands, max_pixels)


def _by_tifffile(data: bytes, bands: tuple[int, ...] | None, max_pixels: int) -> NDArray[Any]:
    try:
        import tifffile
    except ImportError:
        raise UnreadableImageError(f"a TIFF of several bands, or of bits that Pillow lacks; {INSTALL_TIFF}") from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _whole_page(file)
        check_size(page.imagewidth, page.imagelength, max_pixels)
        try:
            values, axes = page.asarray(), page.axes
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise UnreadableImageError(f"a TIFF compressed in a way that needs a package; {INSTALL_TIFF}") from None
        extra = len(page.extrasamples)
        transparent = bool(extra) and page.extrasamples[0] in (MULTIPLIED, 2)
        multiplied = bool(extra) and page.extrasamples[0] == MULTIPLIED
        turned = int(page.tags.valueof(ORIENTATION_TAG, 1))
        nothing, photometric = page.tags.valueof(NODATA_TAG), page.tags.valueof(PHOTOMETRIC)
        bits = page.bitspersample
    if np.iscomplexobj(values):
        raise UnreadableImageError("holds complex numbers; save their magnitude")
    if axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif axes not in ("YX", "YXS"):
        raise UnreadableImageError(f"a TIFF with the axes {axes}, not those of an image")
    count = values.shape[2] if values.ndim == 3 else 1
    if bands is None and not (count in (1, 3) or (count == 4 and transparent)):
        raise _bands_error(count)
    if bands is None and count == 4 and multiplied:
        values = _divided(values)
    return upright(_with_black_as_zero(values, nothing, photometric, bits, extra), turned)


def _whole_page(file: Any) -> Any:
    """The page that `open_with_pillow` chooses, of a tifffile.TiffFile."""
    first = file.pages.first
    if not is_reduced(first.subfiletype):
        return first
    page = next((page for page in islice(file.pages, PAGES) if not is_reduced(page.subfiletype)), None)
    if page is None and SUB_DIRECTORIES in first.tags:
        raise elsewhere()
    return page or first


def _divided(values: NDArray[Any]) -> NDArray[Any]:
    """Colours that are stored multiplied by their opacity, the last channel, as they were before."""
    opacity = values[..., 3:].astype(np.float64)
    most = opacity.max()
    colours = values[..., :3] * (most / np.where(opacity > 0, opacity, most or 1))
    if values.dtype.kind in "ui":
        colours = np.minimum(np.rint(colours), np.iinfo(values.dtype).max)
    return np.dstack([colours.astype(values.dtype), values[..., 3:]])


def _bands_error(count: int) -> UnreadableImageError:
    return UnreadableImageError(f"has {count} bands; choose one or three of them, --bands 3 2 1")


def _with_black_as_zero(
    values: NDArray[Any], nodata: Any, photometric: int | None, bits: int, extra: int = 0
) -> NDArray[Any]:
    """The values with 0 as black, and black where the file says there is no value, which may be extreme, as -9999.

    nodata: GDAL's tag for that value, as text, or None. Signed, floating-point and 32-bit values become
    not-a-number there. bits: how many the file stores per value. extra: bands besides those of `photometric`.
    """
    nothing = _number(nodata)
    missing = None if nothing is None else values == nothing
    if photometric == MIN_IS_WHITE:
        values = _inverted(values, bits, extra)
    if missing is None or not missing.any():
        return values
    if values.dtype.itemsize <= 2 and values.dtype.kind in ("b", "u"):
        return np.where(missing, values.dtype.type(0), values)
    return np.where(missing, np.nan, values.astype(np.result_type(values.dtype, np.float32)))


def _number(written: Any) -> float | None:
    try:
        return float(str(written).strip("\0 "))
    except ValueError:
        return None


def _inverted(values: NDArray[Any], bits: int, extra: int) -> NDArray[Any]:
    if values.dtype.kind not in ("b", "u"):
        notice("TIFFs of signed or floating-point values in which the least is white: they are read with it as black")
        return values
    values = values.copy()
    shown = values[..., : values.shape[2] - extra] if values.ndim == 3 else values
    shown ^= values.dtype.type(2**bits - 1)
    return values


def tiff_size(data: bytes | BinaryIO) -> tuple[int, int] | None:
    """Width and height, upright, of a TIFF, its bytes or an open file, by tifffile; None without it."""
    try:
        import tifffile
    except ImportError:
        return None
    try:
        stream = io.BytesIO(data) if isinstance(data, bytes) else data
        with tifffile.TiffFile(stream, name="TIFF") as file:  # of an open file, the name may be a number
            page = _whole_page(file)
            size = int(page.imagewidth), int(page.imagelength)
            return size[::-1] if page.tags.valueof(ORIENTATION_TAG, 1) in (5, 6, 7, 8) else size
    except Exception:  # like Pillow's, its readers raise almost anything
        return None
