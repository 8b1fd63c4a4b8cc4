"""How the values of image files become 8-bit RGB: which of them is white, which bands are shown, the largest size."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from socodet.runtime.settings import PositiveFloat, PositiveInt, Settings

FULL_RANGE = 65535
RANGES = (255, 1023, 4095, 16383, FULL_RANGE)
"""Maxima of 8, 10, 12, 14 and 16 bits."""
MAX_PIXELS = 89_478_485
"""PIL's own limit, a quarter of a GiB of RGB pixels."""
LARGEST_FILE = 2**32
"""Maximum size in bytes of an image file that is read: what a TIFF can have."""


@dataclass(frozen=True)
class PixelSettings(Settings):
    """What image files do not say themselves; `socodet pretrain --help-all` explains each field."""

    value_range: PositiveFloat | None = None
    """Value of white in images with more than 8 bits or floating-point pixels; 0 is then black. By default, the maximum
    of the smallest of 8, 10, 12, 14 or 16 bits that holds the images' values; for floating-point, signed or 32-bit
    values, black and white span nearly all of them."""
    bands: tuple[PositiveInt, ...] | None = None
    """Which bands to read as red, green and blue, counted from 1, such as 3 2 1; or a single band to read as grey."""
    max_pixels: PositiveInt = MAX_PIXELS
    """Images with more pixels are skipped as unreadable."""
    outside_images: bool = False
    """Also read images, folders and lists that a dataset's files name outside the folder above their own. Use only for
    datasets that you trust."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.bands is None or len(self.bands) in (1, 3), "bands", "one or three numbers")


@dataclass(frozen=True)
class PixelReading:
    """How the images of one dataset are read: what was asked for, and what their values show."""

    white: float | None = None
    """White of unsigned integers of 9 to 16 bits; 0 is black. None if the dataset has no such image: then 65535."""
    floats: tuple[float, float] | None = None
    """Black and white of floating-point, signed and 32-bit values; by default each image's own minimum and maximum."""
    bands: tuple[int, ...] | None = None
    """As in `PixelSettings`."""
    max_pixels: int = MAX_PIXELS
    """As in `PixelSettings`."""

    def with_settings(self, settings: PixelSettings) -> "PixelReading":
        """A copy with what the user asks for in place of its own."""
        top = settings.value_range
        return PixelReading(
            self.white if top is None else top,
            self.floats if top is None else (0.0, top),
            settings.bands or self.bands,
            self.max_pixels if settings.max_pixels == MAX_PIXELS else settings.max_pixels,
        )

    def filled_from(self, other: "PixelReading") -> "PixelReading":
        """A copy that takes from `other` what this one leaves open."""
        return PixelReading(
            other.white if self.white is None else self.white,
            self.floats or other.floats,
            self.bands or other.bands,
            max(self.max_pixels, other.max_pixels),
        )


PLAIN = PixelReading()


@dataclass(frozen=True)
class ReadingRequest:
    """How images are to be read, before any is."""

    settings: PixelSettings = PixelSettings()
    run: PixelReading = PLAIN
    """How the images of the run that these are for were read."""
    widened: bool = False
    """Whether values above the run's white make white higher."""

    @property
    def reading(self) -> PixelReading:
        """As the settings say, and otherwise as the run's images were read."""
        return self.run.with_settings(self.settings)


_DEFAULT_REQUEST = ReadingRequest()
_asked: ContextVar[ReadingRequest] = ContextVar("asked", default=_DEFAULT_REQUEST)


@contextmanager
def read_images_as(settings: PixelSettings) -> Iterator[None]:
    """Images and annotated datasets opened in this context are read with these settings, then and later."""
    with _within(replace(_asked.get(), settings=settings)):
        yield


@contextmanager
def read_images_like(run: PixelReading, *, widened: bool = False) -> Iterator[None]:
    """Images and annotated datasets opened in this context are read as a run's were, unless settings say otherwise.

    What the run's images did not show is found out from the new ones. widened: for a dataset to train on, whose values
    may be above the run's white; a trained detector must see images as it was trained on them.
    """
    with _within(replace(_asked.get(), run=run, widened=widened)):
        yield


@contextmanager
def _within(asked: ReadingRequest) -> Iterator[None]:
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def requested_reading() -> ReadingRequest:
    """What the innermost `read_images_as` and `read_images_like` ask for."""
    return _asked.get()
