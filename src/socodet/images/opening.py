"""Opening images by Pillow, whose own limit of pixels gives way to ours."""

import io
import logging
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from socodet.errors import TooManyPixelsError, UnreadableImageError
from socodet.images.reading import MAX_PIXELS

PNG = b"\x89PNG\r\n\x1a\n"
WEBP_WITH_CANVAS = b"WEBPVP8X"
ORIENTATION_TAG = 0x0112
XMP = ("xmp", "XML:com.adobe.xmp")
"""Where Pillow, unlike libjpeg and browsers, looks for an orientation if EXIF has none."""
TEXT_OF_PNG = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
"""Types of the parts of a PNG that may hold its orientation."""
ASIDE_IN_PNG = (b"iTXt", b"tEXt", b"zTXt", b"iCCP")
EXIF_AS_TEXT = b"Raw profile type "
"""Types of parts that are not read, unless they begin like this; Pillow refuses a PNG in which one is large."""
SUBFILE_TYPE, SUB_DIRECTORIES, REDUCED = 254, 330, 1
PAGES = 16
"""How many pages of a TIFF are searched for the image; damaged files have endless ones."""

# What these packages log of a file does not name it. Their messages go to the handlers of a program that has any, not
# to stderr, line by line for every image.
for _package in ("PIL", "tifffile"):
    logging.getLogger(_package).addHandler(logging.NullHandler())


class _PillowLimit:
    """Pillow's limit, one for all threads: lifted while any of them needs that, and then restored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._usual: int | None = None

    def lift(self) -> None:
        with self._lock:
            if not self._within:
                self._usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._within += 1

    def restore(self) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                Image.MAX_IMAGE_PIXELS = self._usual

    def reset_after_fork(self) -> None:
        """To be called in a forked process, without the other threads that may have lifted it or held the lock."""
        if self._within:
            Image.MAX_IMAGE_PIXELS = self._usual
        self._lock, self._within = threading.Lock(), 0


_LIMIT = _PillowLimit()
os.register_at_fork(after_in_child=_LIMIT.reset_after_fork)


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """In this context, Pillow decodes images of any size without a warning; only for images whose size is checked."""
    _LIMIT.lift()
    try:
        yield
    finally:
        _LIMIT.restore()


@contextmanager
def open_with_pillow(data: bytes | BinaryIO, formats: Sequence[str], max_pixels: int) -> Iterator[Image.Image]:
    """An image, or an open file of one, whose header has been read; of a TIFF the first page that is not reduced.

    TooManyPixelsError; UnreadableImageError as `elsewhere`; else as Pillow.
    """
    # for a WebP with a canvas, Pillow has memory allocated as soon as it opens it
    if isinstance(data, bytes) and data[8:16] == WEBP_WITH_CANVAS:
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        check_size(width, height, max_pixels)
    file = io.BytesIO(_without_asides(data)) if isinstance(data, bytes) else data
    with without_pillow_limit(), Image.open(file, formats=tuple(formats)) as image:
        if isinstance(image, TiffImageFile) and is_reduced(image.tag_v2.get(SUBFILE_TYPE)):
            _seek_whole_page(image)
        check_size(*image.size, max_pixels)
        for key in XMP:
            image.info.pop(key, None)
        if isinstance(data, bytes) and data.startswith(PNG) and image.mode == "L":
            _scale_transparent_grey(image, bits=data[24])
        yield image


def _without_asides(data: bytes) -> bytes:
    """A PNG without its texts and colour profile; any other data as it is."""
    if not data.startswith(PNG):
        return data
    kept: list[bytes] = []
    position, start = len(PNG), 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in ASIDE_IN_PNG and not data.startswith(EXIF_AS_TEXT, position + 8):
            kept.append(data[start:position])
            start = end
        position = end
    return b"".join([*kept, data[start:]]) if kept else data


def is_reduced(kind: Any) -> bool:
    """Whether a page of a TIFF is a reduced version of another, such as a thumbnail; kind: its NewSubfileType."""
    return isinstance(kind, int) and bool(kind & REDUCED)


def elsewhere() -> UnreadableImageError:
    """The error for a TIFF of whose pages only a thumbnail can be read."""
    return UnreadableImageError(
        "its first page is a thumbnail, and the image itself is within that page, where it is not read; save it as a "
        "TIFF with the image as its first page"
    )


def _seek_whole_page(image: TiffImageFile) -> None:
    """Goes to the first page that is not reduced. A file of reduced pages only is an image of its own."""
    for number in range(1, PAGES):
        try:
            image.seek(number)
        except EOFError:
            break
        except SyntaxError as error:
            raise UnidentifiedImageError(str(error)) from None
        if not is_reduced(image.tag_v2.get(SUBFILE_TYPE)):
            return
    image.seek(0)
    if SUB_DIRECTORIES in image.tag_v2:
        raise elsewhere()


def _scale_transparent_grey(image: Image.Image, bits: int) -> None:
    """Pillow scales the values of a grey PNG of 2 or 4 bits to 8, but not the one that is transparent."""
    clear = image.info.get("transparency")
    if bits in (2, 4) and isinstance(clear, int) and clear < 2**bits:
        image.info["transparency"] = clear * 255 // (2**bits - 1)


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """TooManyPixelsError for an image that is too large, UnreadableImageError for one without pixels."""
    if width < 1 or height < 1:
        raise UnreadableImageError(f"its size is {width}x{height}; the file is damaged")
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{width}x{height} pixels are more than {max_pixels:,}; scale it down, as socodet pack does, or raise "
            "--max-pixels"
        )


def orientation(image: Image.Image, data: bytes = b"") -> int:
    """The EXIF orientation of an image that Pillow opened from `data`; 1, as stored, if it has none, or damaged EXIF.

    That of a PNG may come after its pixels, so Pillow decodes the image; here only if any text comes after them.
    """
    known = image.format == "PNG" and not _has_text_after_pixels(data)
    try:
        exif = Image.Image.getexif(image) if known else image.getexif()
        return orientation_number(exif.get(ORIENTATION_TAG, 1))
    except Exception:  # Pillow raises almost anything; the pixels may be intact
        return 1


def orientation_number(value: Any) -> int:
    """An EXIF orientation as a number, also if it is stored as a byte; 1 if it is no number."""
    try:
        return value[0] if isinstance(value, bytes) else int(value)
    except (TypeError, ValueError, IndexError):
        return 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """`pixels` (H, W) or (H, W, C) turned upright, given their EXIF orientation (1..8)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _has_text_after_pixels(png: bytes) -> bool:
    position, pixels = 8, False
    while position + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if pixels and kind in TEXT_OF_PNG:
            return True
        pixels = pixels or kind == b"IDAT"
        position += 12 + length
    return False
