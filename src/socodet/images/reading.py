"""How the values of image files become 8-bit RGB: which of them is white, which bands are shown, the largest size."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from socodet.runtime.settings import PositiveFloat, PositiveInt, Settings

FULL_RANGE = 65535
MAX_PIXELS = 89_478_485
"""PIL's own limit, a quarter of a GiB of RGB pixels."""


@dataclass(frozen=True)
class PixelSettings(Settings):
    """What cannot be seen in the files."""

    value_range: PositiveFloat | None = None
    """Value that is white in images of more than 8 bits or of floating point, whose 0 is then black. By default that of
    8, 10, 12, 14 or 16 bits, as many as the images use, or the range that nearly all floating-point values lie in."""
    bands: tuple[PositiveInt, ...] | None = None
    """Which bands are red, green and blue, counted from 1, such as 3 2 1; or the one that is grey."""
    max_pixels: PositiveInt = MAX_PIXELS
    """Larger images are left out as unreadable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.bands is None or len(self.bands) in (1, 3), "bands", "one or three numbers")


@dataclass(frozen=True)
class PixelReading:
    """How the images of one set are read: what was asked for, and what their values show."""

    white: float = FULL_RANGE
    """White of integers of more than 8 bits; 0 is black."""
    floats: tuple[float, float] | None = None
    """Black and white of floating-point and 32-bit values; by default each image's own least and greatest."""
    bands: tuple[int, ...] | None = None
    """As in `PixelSettings`."""
    max_pixels: int = MAX_PIXELS
    """As in `PixelSettings`."""


PLAIN = PixelReading()
_USUAL = PixelSettings()
_asked: ContextVar[PixelSettings] = ContextVar("asked", default=_USUAL)


@contextmanager
def read_images_as(settings: PixelSettings) -> Iterator[None]:
    """Images and annotated sets that are opened within are read so, then and later."""
    token = _asked.set(settings)
    try:
        yield
    finally:
        _asked.reset(token)


def reading_asked() -> PixelSettings:
    """The settings of the innermost `read_images_as`."""
    return _asked.get()
