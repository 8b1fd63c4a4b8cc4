"""The orientation of a JPEG, from its EXIF block."""

import struct
from collections.abc import Iterator

from socodet.images.opening import ORIENTATION_TAG

INTEGERS = {1: "B", 3: "H", 4: "I"}
"""EXIF's numbers of the types of integers, as `struct` calls them; orientations are of 16 bits, with few exceptions."""


def jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG; 1, as stored, if it has none."""
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
            tag, kind = struct.unpack_from(order + "HH", tiff, start + 2 + 12 * entry)
            if tag == ORIENTATION_TAG:
                (value,) = struct.unpack_from(order + INTEGERS.get(kind, "H"), tiff, start + 10 + 12 * entry)
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
