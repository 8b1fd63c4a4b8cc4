"""Which values are black and white in images of more than 8 bits, the same for all images of a dataset.

Cameras of 10, 12 or 14 bits write files of 16. Scaled by the full range they would be almost black. Floating-point
values have no range at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socodet.images.reading import FULL_RANGE, RANGES, PixelReading, requested_reading
from socodet.images.stored_values import stored_values
from socodet.runtime.notices import notice

SAMPLED, LOOKED_AT = 256, 32
"""How many names of a dataset's images are checked, and how many of these images are read at most."""
NEARLY_ALL = (0.1, 99.9)
"""Percentiles of floating-point, signed and 32-bit values that are black and white."""
PIXELS = 10_000
"""How many pixels of each image are looked at."""
_8_BIT = (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".webp", ".bmp", ".dib", ".gif", ".avif", ".heic", ".heif", ".hif")


def reading_of_dataset(names: Sequence[str], read: Callable[[int], bytes], location: str) -> PixelReading:
    """How a dataset is read: as `read_images_as` and `read_images_like` say, and otherwise as its values show.

    White of integers is the smallest of `RANGES` that holds the values of some of its images; black and white of
    floating-point, signed and 32-bit values are percentiles. names: of images spread over the dataset; unless white is
    given, `read` is called for a few of them whose suffixes allow more than 8 bits. A note on stderr says what was
    found, and whether a run says otherwise.
    """
    asked = requested_reading()
    known = asked.reading
    if asked.settings.value_range is not None:
        return known
    greatest, sampled = _values(names, read, known)
    found = PixelReading(
        white=next(top for top in RANGES if top >= max(greatest)) if any(greatest) else None,
        floats=_percentiles(sampled),
        bands=known.bands,
        max_pixels=known.max_pixels,
    )
    if asked.widened and known.white and found.white and found.white > known.white:
        known = replace(known, white=found.white)
    used = known.filled_from(found)
    if found.white is not None and (found.white != FULL_RANGE or used.white != found.white):
        notice(
            f"{location}: its 16-bit images hold values up to {max(greatest):,} ({len(greatest)} sampled); "
            f"{used.white:,.10g} counts as white{_why(used.white == found.white)}; --value-range sets another range"
        )
    if found.floats and used.floats:
        low, high = found.floats
        black, white = used.floats
        notice(
            f"{location}: nearly all values of its floating-point, signed or 32-bit images lie between {low:.4g} and "
            f"{high:.4g} ({len(sampled)} sampled); {black:.4g} counts as black and {white:.4g} as white"
            f"{_why(used.floats == found.floats)}; --value-range sets white"
        )
    return used


def _why(own: bool) -> str:
    return "" if own else ", as in the run"


def _values(
    names: Sequence[str], read: Callable[[int], bytes], known: PixelReading
) -> tuple[list[int], list[NDArray[Any]]]:
    """The greatest value of each 16-bit image that is looked at, and some values of each of the others."""
    candidates = [place for place, name in enumerate(names) if not name.lower().endswith(_8_BIT)]
    greatest: list[int] = []
    sampled: list[NDArray[Any]] = []
    for place in candidates[:: -(-len(candidates) // LOOKED_AT) or 1]:
        try:
            values = stored_values(read(place), known.bands, known.max_pixels)
        except Exception:  # what is wrong with an image is reported when it is decoded
            continue
        if values is None or values.dtype == np.uint8:
            continue
        values = visible(values)
        if values.dtype == np.uint16 and values.size:
            greatest.append(int(values.max()))
        elif values.dtype != np.uint16:
            finite = values[np.isfinite(values)]
            sampled.append(finite[:: max(1, finite.size // PIXELS)].astype(np.float64))
    return greatest, sampled


def visible(values: NDArray[Any]) -> NDArray[Any]:
    """`stored_values` without opacity, and without pixels that are fully transparent."""
    return values[values[..., -1] != 0][:, :-1] if _has_opacity(values) else values


def _has_opacity(values: NDArray[Any]) -> bool:
    return values.ndim == 3 and values.shape[2] in (2, 4)


def _percentiles(sampled: Sequence[NDArray[Any]]) -> tuple[float, float] | None:
    if not any(one.size for one in sampled):
        return None
    low, high = (float(value) for value in np.percentile(np.concatenate(sampled), NEARLY_ALL))
    return (low, high) if low < high else None


def evenly_spaced(count: int) -> list[int]:
    """Some of `count` indices, from the first to the last."""
    return sorted(set(np.linspace(0, count - 1, min(count, SAMPLED)).astype(int).tolist()))


def scale_to_8_bit(values: NDArray[Any], white: float, black: float = 0.0) -> NDArray[np.uint8]:
    """Values scaled so that `white` and all above it are 255, `black` and all below it 0."""
    scaled = (values.astype(np.float32) - np.float32(black)) * np.float32(255 / (white - black))
    narrow: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return narrow


def as_8_bit(values: NDArray[Any], reading: PixelReading) -> NDArray[np.uint8]:
    """Stored values as 8 bits, signed and 32-bit integers like floating point.

    Not-a-number becomes black. ValueError when these values have no range.
    """
    if values.dtype == np.uint8:
        return values
    if _has_opacity(values):
        return np.dstack([as_8_bit(values[..., :-1], reading), _opacity(values[..., -1], reading)])
    if values.dtype == np.uint16:
        return scale_to_8_bit(values, FULL_RANGE if reading.white is None else reading.white)
    if reading.floats is not None:
        black, white = reading.floats
        return scale_to_8_bit(np.nan_to_num(values.astype(np.float32), nan=black), white, black)
    wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    if not finite.size:
        raise ValueError("none of its pixels has a value: they are all no-data or not finite")
    low, high = finite.min(), finite.max()
    if not np.isfinite(high - low):
        raise ValueError("its values span more than the range of floating point")
    wide = np.clip(np.nan_to_num(wide, nan=low), low, high)
    stretched: NDArray[np.uint8] = np.rint((wide - low) * (255 / (high - low or 1))).astype(np.uint8)
    return stretched


def _opacity(values: NDArray[Any], reading: PixelReading) -> NDArray[np.uint8]:
    """Opacity as 8 bits. Of 16 bits, all of it is as much as white, or the full range if some is above white.

    Otherwise the image's greatest is.
    """
    most = float(np.nan_to_num(values).max())
    if values.dtype == np.uint16:
        white = FULL_RANGE if reading.white is None else reading.white
        most = white if most <= white else FULL_RANGE
    return scale_to_8_bit(np.nan_to_num(values), most if most > 0 else 1.0)
