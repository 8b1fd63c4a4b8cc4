"""TIFFs that Pillow does not read, or not rightly, by tifffile: their values, colours and sizes."""

import io
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from socodet.errors import UnreadableImageError
from socodet.images.opening import (
    ORIENTATION_TAG,
    PAGES,
    SUB_DIRECTORIES,
    check_size,
    elsewhere,
    is_reduced,
    orientation_number,
    upright,
)
from socodet.images.reading import RANGES
from socodet.runtime.notices import notice

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PHOTOMETRIC, NODATA_TAG = 262, 42113
MIN_IS_WHITE, PALETTE, CMYK, YCBCR, MULTIPLIED = 0, 3, 5, 6, 1
OTHER_COLOURS = {YCBCR: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab", 32844: "LogL", 32845: "LogLuv"}
"""Values of PHOTOMETRIC for colours that are not converted."""
AS_STORED = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions that keep YCbCr as it is; decoders of the others, such as JPEG, convert it to RGB."""
INSTALL_TIFF = "pip install 'socodet[tiff]' reads it"


def read_tiff(data: bytes, bands: tuple[int, ...] | None, max_pixels: int) -> NDArray[Any]:
    """The values of a TIFF, (H, W) or (H, W, C), upright; fewer than 8 bits are scaled to 8, palettes and CMYK to RGB.

    With `bands`, all bands as they are stored, except for a palette's. UnreadableImageError for what is no image of
    grey or RGB, perhaps with opacity as its last channel, and if a package is missing; damaged files raise almost
    anything.
    """
    try:
        import tifffile
    except ImportError:
        raise UnreadableImageError(f"a TIFF of several bands, or of bits that Pillow lacks; {INSTALL_TIFF}") from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _whole_page(file)
        check_size(page.imagewidth, page.imagelength, max_pixels)
        photometric = page.tags.valueof(PHOTOMETRIC)
        if photometric in OTHER_COLOURS and (photometric != YCBCR or page.compression in AS_STORED):
            raise colours_error(photometric)
        try:
            values, axes = page.asarray(), page.axes
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise UnreadableImageError(f"a TIFF compressed in a way that needs a package; {INSTALL_TIFF}") from None
        extra = len(page.extrasamples)
        transparent = bool(extra) and page.extrasamples[0] in (MULTIPLIED, 2)
        multiplied = bool(extra) and page.extrasamples[0] == MULTIPLIED
        turned = orientation_number(page.tags.valueof(ORIENTATION_TAG, 1))
        nothing, palette = page.tags.valueof(NODATA_TAG), page.colormap
        bits = page.bitspersample
    if np.iscomplexobj(values):
        raise UnreadableImageError("holds complex numbers; save their magnitude")
    if axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif axes not in ("YX", "YXS"):
        raise UnreadableImageError(f"a TIFF with the axes {axes}, not those of an image")
    count = values.shape[2] if values.ndim == 3 else 1
    if photometric == PALETTE and count == 1 and palette is not None:
        return upright(_coloured(values, palette), turned)
    if bands is None and photometric == CMYK:
        return upright(_cmyk_to_rgb(values), turned)
    if bands is None and not (count in (1, 3) or (count in (2, 4) and transparent)):
        raise bands_error(count)
    if bands is None and multiplied:
        values = _divided(values, bits)
    return upright(_as_bytes(with_black_as_zero(values, nothing, photometric, bits, extra), bits), turned)


def colours_error(photometric: int) -> UnreadableImageError:
    """The error for an image in one of `OTHER_COLOURS`."""
    return UnreadableImageError(f"a TIFF in {OTHER_COLOURS[photometric]}, which is not converted; save it as RGB")


def _whole_page(file: Any) -> Any:
    """The page that `open_with_pillow` chooses, of a tifffile.TiffFile."""
    first = file.pages.first
    if not is_reduced(first.subfiletype):
        return first
    page = next((page for page in islice(file.pages, PAGES) if not is_reduced(page.subfiletype)), None)
    if page is None and SUB_DIRECTORIES in first.tags:
        raise elsewhere()
    return page or first


def _coloured(values: NDArray[Any], palette: NDArray[Any]) -> NDArray[np.uint8]:
    """The colours (H, W, 3) of a palette (3, N), of 16 bits or, as some programs write them, of 8."""
    colours = palette if palette.max() < 256 else palette >> 8
    return np.moveaxis(colours.astype(np.uint8)[:, values], 0, -1)


def _cmyk_to_rgb(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.ndim != 3 or values.shape[2] != 4 or values.dtype not in (np.uint8, np.uint16):
        raise UnreadableImageError("a CMYK TIFF of an unusual form; save it as RGB")
    inks = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values
    return np.asarray(Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes()).convert("RGB"))


def _divided(values: NDArray[Any], bits: int) -> NDArray[Any]:
    """Colours that are stored multiplied by their opacity, the last channel, as they were before."""
    opacity = values[..., -1:].astype(np.float64)
    most = float(opacity.max())
    if values.dtype.kind == "u" and bits <= 16:
        most = 2**bits - 1 if bits < 16 else next(top for top in RANGES if top >= most)
    colours = values[..., :-1] * (most / np.where(opacity > 0, opacity, most or 1))
    if values.dtype.kind in "ui":
        colours = np.minimum(np.rint(colours), np.iinfo(values.dtype).max)
    return np.dstack([colours.astype(values.dtype), values[..., -1:]])


def _as_bytes(values: NDArray[Any], bits: Any) -> NDArray[Any]:
    """Values of fewer than 8 bits, scaled to 8; any others as they are. bits: per value, or a tuple of them."""
    if values.dtype.kind not in ("b", "u") or not isinstance(bits, int) or bits >= 8:
        return values
    scaled: NDArray[np.uint8] = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
    return scaled


def bands_error(count: int) -> UnreadableImageError:
    """The error for an image of which bands must be chosen."""
    which = "one of them, --bands 1" if count == 2 else "one or three of them, --bands 3 2 1"
    return UnreadableImageError(f"has {count} bands; choose {which}")


def with_black_as_zero(
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
            turned = orientation_number(page.tags.valueof(ORIENTATION_TAG, 1))
            return size[::-1] if turned in (5, 6, 7, 8) else size
    except Exception:  # like Pillow's, its readers raise almost anything
        return None
