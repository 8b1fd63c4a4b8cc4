"""What the beginning of an image file says, without reading all of it: its size, and whether it is worth reading."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from socodet.errors import TooManyPixelsError, UnreadableImageError
from socodet.images.decode import JPEG, image_size, upright_size
from socodet.images.opening import PNG, check_size, open_with_pillow
from socodet.images.reading import LARGEST_FILE, requested_reading
from socodet.images.tiff import TIFF, tiff_size
from socodet.runtime.files import open_file, read_opened

HEAD = 32768
LARGE = 2**27
"""If a file has at least this many bytes, its header is read first: it may have too many pixels."""


def image_file_size(file: Path, max_pixels: int | None = None) -> tuple[int, int]:
    """`image_size` of a file; of a JPEG or TIFF without reading its pixels, unless the size comes after them."""
    with open_file(file) as stream:
        size = _size_by_header(stream, max_pixels or requested_reading().reading.max_pixels)
        return image_size(read_opened(stream, file, LARGEST_FILE), max_pixels) if size is None else size


def read_image_file(file: Path, max_pixels: int) -> bytes:
    """The bytes of an image file. OSError; TooManyPixelsError before a large file with too many pixels is read.

    Several workers that read gigabytes at once, only to refuse them, would fill the memory.
    """
    with open_file(file) as stream:
        if os.fstat(stream.fileno()).st_size >= LARGE:
            _size_by_header(stream, max_pixels)
        return read_opened(stream, file, LARGEST_FILE)


def _size_by_header(stream: BinaryIO, max_pixels: int) -> tuple[int, int] | None:
    """Upright width and height if the header gives them; the file is then at its beginning. TooManyPixelsError."""
    try:
        return _size_in_header(stream, max_pixels)
    finally:
        stream.seek(0)


def _size_in_header(stream: BinaryIO, max_pixels: int) -> tuple[int, int] | None:
    head = stream.read(HEAD)
    stream.seek(0)
    try:
        if head.startswith(JPEG):
            return image_size(head, max_pixels)
        if head.startswith(PNG):
            width, height = struct.unpack_from(">II", head, 16)
            check_size(width, height, max_pixels)
        elif head.startswith(TIFF):
            return _tiff_size_by_header(stream, max_pixels)
    except TooManyPixelsError:
        raise
    except (UnreadableImageError, struct.error):  # reported when the whole file is read
        pass
    return None


def _tiff_size_by_header(stream: BinaryIO, max_pixels: int) -> tuple[int, int] | None:
    try:
        with open_with_pillow(stream, ("TIFF",), max_pixels) as image:
            return upright_size(image)
    except TooManyPixelsError:
        raise
    except Exception:  # a form that Pillow does not know, or damaged: its readers raise almost anything
        stream.seek(0)
    size = tiff_size(stream)
    if size is not None:
        check_size(*size, max_pixels)
    return size
