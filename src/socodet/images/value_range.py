"""Images of 16 bits per channel of which fewer are used: which value is white, the same for all images of a set.

Cameras of 10, 12 or 14 bits write such files. Scaled by the full range they would be almost black.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from socodet.runtime.notices import notice

FULL_RANGE = 65535
RANGES = (255, 1023, 4095, 16383, FULL_RANGE)
SAMPLED, LOOKED_AT = 256, 32
"""Images of a set whose names are checked, and at most how many of them are read."""
_8_BIT = (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".webp", ".bmp", ".dib", ".gif", ".avif", ".heic")
PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*")


def white_of_set(names: Sequence[str], read: Callable[[int], bytes], location: str) -> int:
    """The value that is white in a set's 16-bit images: the least of `RANGES` that holds the values of some of them.

    names: of images spread over the set; of these, `read` is asked for a few that can have 16 bits, by their endings.
    A note on stderr says if the range is not the full one.
    """
    candidates = [place for place, name in enumerate(names) if not name.lower().endswith(_8_BIT)]
    greatest = []
    for place in candidates[:: -(-len(candidates) // LOOKED_AT) or 1]:
        try:
            values = values_16_bit(read(place))
        except Exception:  # reported where the image is decoded
            continue
        if values is not None:
            greatest.append(int(values.max()))
    if not any(greatest):
        return FULL_RANGE
    white = next(top for top in RANGES if top >= max(greatest))
    if white != FULL_RANGE:
        notice(
            f"{location}: its 16-bit images hold values up to {max(greatest):,} ({len(greatest)} sampled); "
            f"{white:,} counts as white; `socodet pack --value-range` sets another range"
        )
    return white


def spread_over(count: int) -> list[int]:
    """Some of `count` indices, from the first to the last."""
    return sorted(set(np.linspace(0, count - 1, min(count, SAMPLED)).astype(int).tolist()))


def narrowed(values: NDArray[np.uint16], white: int) -> NDArray[np.uint8]:
    """16-bit values scaled so that `white` and above become 255."""
    scaled: NDArray[np.float32] = np.minimum(values * np.float32(255 / white), 255)
    return np.rint(scaled).astype(np.uint8)


def values_16_bit(data: bytes) -> NDArray[np.uint16] | None:
    """The values of a PNG or TIFF with 16 bits per channel, (H, W) or (H, W, C), as stored; None for other images."""
    if data.startswith(PNG):
        if data[24:25] != b"\x10":
            return None
        if data[25:26] != b"\0":
            return _colour_png(data)
    elif not data.startswith(_TIFF):
        return None
    with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as image:
        return np.asarray(image).astype(np.uint16) if image.mode.startswith("I;16") else None


def _colour_png(data: bytes) -> NDArray[np.uint16] | None:
    """(H, W, C) by torchvision, as Pillow keeps only the upper 8 bits; None where it cannot decode images any more."""
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_png
    except ImportError:
        return None
    decoded = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)
    return np.asarray(decoded.permute(1, 2, 0).numpy())
