"""Which values are black and white in images of more than 8 bits, the same for all images of a set.

Cameras of 10, 12 or 14 bits write files of 16. Scaled by the full range they would be almost black. Floating-point
values have no range at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socodet.images.reading import FULL_RANGE, PixelReading, PixelSettings, reading_asked
from socodet.images.stored_values import stored_values
from socodet.runtime.notices import notice

RANGES = (255, 1023, 4095, 16383, FULL_RANGE)
SAMPLED, LOOKED_AT = 256, 32
"""Images of a set whose names are checked, and at most how many of them are read."""
NEARLY_ALL = (0.1, 99.9)
"""Percentiles of floating-point values that are black and white."""
PIXELS = 10_000
"""Of each image that is looked at."""
_8_BIT = (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".webp", ".bmp", ".dib", ".gif", ".avif", ".heic", ".heif", ".hif")


def reading_of_set(
    names: Sequence[str], read: Callable[[int], bytes], location: str, settings: PixelSettings | None = None
) -> PixelReading:
    """How a set is read: as `settings` say, by default those of `read_images_as`, and as its values show.

    White of integers is the least of `RANGES` that holds the values of some of its images; black and white of floating
    point are percentiles. names: of images spread over the set; of these, `read` is asked for a few that can have more
    than 8 bits, by their endings. What is found out is said on stderr.
    """
    settings = settings or reading_asked()
    given = PixelReading(bands=settings.bands, max_pixels=settings.max_pixels)
    if settings.value_range is not None:
        return replace(given, white=settings.value_range, floats=(0.0, settings.value_range))
    candidates = [place for place, name in enumerate(names) if not name.lower().endswith(_8_BIT)]
    greatest: list[int] = []
    sampled: list[NDArray[Any]] = []
    for place in candidates[:: -(-len(candidates) // LOOKED_AT) or 1]:
        try:
            values = stored_values(read(place), settings.bands)
        except Exception:  # what is wrong with an image is said where it is decoded
            continue
        if values is None or values.dtype == np.uint8:
            continue
        if values.dtype == np.uint16:
            greatest.append(int(values.max()))
        else:
            finite = values[np.isfinite(values)]
            sampled.append(finite[:: max(1, finite.size // PIXELS)].astype(np.float64))
    if any(greatest):
        given = replace(given, white=next(top for top in RANGES if top >= max(greatest)))
        if given.white != FULL_RANGE:
            notice(
                f"{location}: its 16-bit images hold values up to {max(greatest):,} ({len(greatest)} sampled); "
                f"{given.white:,} counts as white; --value-range sets another range"
            )
    if any(one.size for one in sampled):
        low, high = (float(value) for value in np.percentile(np.concatenate(sampled), NEARLY_ALL))
        if low < high:
            given = replace(given, floats=(low, high))
            notice(
                f"{location}: nearly all values of its floating-point or 32-bit images lie between {low:.4g} and "
                f"{high:.4g} ({len(sampled)} sampled), which count as black and white; --value-range sets white"
            )
    return given


def spread_over(count: int) -> list[int]:
    """Some of `count` indices, from the first to the last."""
    return sorted(set(np.linspace(0, count - 1, min(count, SAMPLED)).astype(int).tolist()))


def narrowed(values: NDArray[Any], white: float, black: float = 0.0) -> NDArray[np.uint8]:
    """Values scaled so that `white` and all above it are 255, `black` and all below it 0."""
    scaled = (values.astype(np.float32) - np.float32(black)) * np.float32(255 / (white - black))
    narrow: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return narrow


def as_8_bit(values: NDArray[Any], reading: PixelReading) -> NDArray[np.uint8]:
    """Stored values as 8 bits. ValueError when floating-point ones have no range."""
    if values.dtype == np.uint8:
        return values
    if values.dtype in (np.uint16, np.int16, np.int8):
        return narrowed(values, reading.white)
    if reading.floats is not None:
        black, white = reading.floats
        return narrowed(np.nan_to_num(values.astype(np.float32), nan=black), white, black)
    wide = values.astype(np.float64)
    low, high = wide.min(), wide.max()
    if not np.isfinite(high - low):
        raise ValueError("has pixels that are not finite numbers")
    stretched: NDArray[np.uint8] = np.rint((wide - low) * (255 / (high - low or 1))).astype(np.uint8)
    return stretched
