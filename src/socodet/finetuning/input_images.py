"""Images passed in memory or as files, in any form that a detector accepts from Python."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from socodet.errors import ArgumentError, InputError, UnreadableImageError
from socodet.images.decode import decode_image, to_rgb
from socodet.images.opening import orientation, upright
from socodet.images.reading import FULL_RANGE, PLAIN, RANGES, PixelReading
from socodet.images.stored_values import is_rescaled_by_pillow, values_of_opened, with_opacity
from socodet.images.truncated import TRUNCATED
from socodet.images.value_range import as_8_bit, visible
from socodet.runtime.files import read_file
from socodet.runtime.notices import notice

AnyImage = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8] | Tensor
"""What `predict` takes. A tensor is treated as an array."""
ARRAYS = "uint8 arrays of (H, W, 3), (H, W, 4) or (H, W)"
TAKEN = f"paths, the bytes of image files, PIL images and {ARRAYS}, values 0..255"


def as_pixels(image: AnyImage, reading: PixelReading = PLAIN, name: str = "image") -> NDArray[np.uint8]:
    """The (H, W, 3) RGB pixels of an image in any form that `predict` takes, with transparent parts on white.

    reading: as in `decode_image`. Truncated JPEGs are counted in `TRUNCATED`; a note is printed for 16-bit images that
    will look dark. InputError names the file, or `name` for an image in memory.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        try:
            return _decoded(bytes(image), reading, name)
        except UnreadableImageError as error:
            raise InputError(f"{name}: {error}") from None
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        try:
            return _decoded(read_file(path), reading, str(path))
        except UnreadableImageError as error:
            raise InputError(f"{path}: {error}") from None
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    if isinstance(image, Image.Image):
        spread = is_rescaled_by_pillow(image)  # before its values are loaded
        values = values_of_opened(image)
        if values is not None:
            values = with_opacity(values, image.info.get("transparency"))
            reading = PLAIN if spread else reading
            if not spread:
                _note_dark_image(values, reading)
            image = _narrowed(image, values, reading, name)
        return upright(np.array(to_rgb(image)), orientation(image))
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy() if _is_image(image.shape, str(image.dtype)) else image
    if isinstance(image, Tensor):
        raise ArgumentError(f"{name}: a tensor, {_described(image)}; {_tensor_hint(image)}")
    if not hasattr(image, "__array__") and not isinstance(image, list | tuple):
        raise ArgumentError(f"{name}: of type {type(image).__name__}; predict takes {TAKEN}")
    array = np.asarray(image)
    if not _is_image(array.shape, str(array.dtype)):
        raise ArgumentError(f"{name}: {_described(array)}; predict takes {TAKEN}")
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array if array.shape[2] == 3 else np.array(to_rgb(Image.fromarray(array))))


def refuse_missing(images: Iterable[Any]) -> None:
    """InputError for a path that does not exist, before any image is processed."""
    for image in images:
        if isinstance(image, str | os.PathLike) and not os.path.lexists(image):
            raise _missing(os.fspath(image))


def _missing(path: str) -> InputError:
    return InputError(f"{path}: no such image file; check the path")


def _decoded(data: bytes, reading: PixelReading, name: str) -> NDArray[np.uint8]:
    return decode_image(
        data,
        reading=reading,
        on_truncated=lambda: TRUNCATED.add(name),
        on_high_bit_depth=lambda values: _note_dark_image(values, reading),
    )


def _note_dark_image(values: NDArray[Any], reading: PixelReading) -> None:
    """Warns once if 16-bit values use a small part of their range and no training image says which one is white."""
    if reading.white is None and values.dtype == np.uint16 and visible(values).max(initial=0) <= RANGES[-2]:
        notice(
            f"a 16-bit image with no value above {RANGES[-2]:,} looks dark: {FULL_RANGE:,} counts as white, because "
            "the detector was trained on no 16-bit images; scale its values to 0..255, or set the value of white: "
            "detector.pixel_reading = dataclasses.replace(detector.pixel_reading, white=4095)"
        )


def _narrowed(image: Image.Image, values: NDArray[Any], reading: PixelReading, name: str) -> Image.Image:
    try:
        narrow = as_8_bit(values, reading)
    except ValueError as error:
        raise ArgumentError(f"{name}: {error}") from None
    return Image.fromarray(upright(narrow, orientation(image)))  # Pillow has already turned a TIFF


def check_tensors(images: Any) -> None:
    """ArgumentError unless these are (3, H, W) floating-point tensors, as torchvision's detectors take them."""
    if isinstance(images, Tensor):
        raise ArgumentError(f"a detector takes a list of (3, H, W) tensors, not one, {_described(images)}; use list()")
    for place, image in enumerate(images):
        if not isinstance(image, Tensor):
            given = f"of type {type(image).__name__}"
            raise ArgumentError(
                f"images[{place}] is {given}; a detector takes tensors of (3, H, W) in [0, 1]; detector.predict takes "
                f"{TAKEN}"
            )
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel() or not image.is_floating_point():
            raise ArgumentError(
                f"images[{place}] is {_described(image)}; a detector takes floating-point tensors of (3, H, W) in "
                "[0, 1]; divide values of 0..255 by 255"
            )


def _is_image(shape: tuple[int, ...], dtype: str) -> bool:
    """Whether an array of this shape and type is an image with at least one pixel."""
    return dtype.endswith("uint8") and 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)))


def _described(values: Any) -> str:
    return f"{values.dtype} of {tuple(values.shape)}"


def _tensor_hint(tensor: Tensor) -> str:
    if not tensor.is_floating_point():
        return f"predict takes {ARRAYS}: tensor.permute(1, 2, 0), values 0..255"
    return (
        "call detector([tensor]), without .predict, for tensors of (3, H, W) in [0, 1], or give predict 0..255: "
        "tensor.mul(255).byte().permute(1, 2, 0)"
    )
