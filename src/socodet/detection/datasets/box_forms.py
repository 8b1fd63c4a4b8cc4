"""Whether the boxes of a set are in the form that its format has, or in another form of four numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.problems import TOLERANCE
from socodet.errors import InputError

Numbers = NDArray[np.float64]
_FORMS: dict[str, Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]] = {
    "x, y, width, height": lambda a, b: (a, a + b),
    "corners x1, y1, x2, y2": lambda a, b: (a, b),
    "centre x, y and width, height": lambda a, b: (a - b / 2, a + b / 2),
}
"""From the first and the last two numbers, (N, 2) each, to the upper left and the lower right corner."""
XYWH, CORNERS, _ = _FORMS
NEARLY_ALL = 0.9
MANY = 0.05
"""So many boxes outside their images mean another form, if at most a fifth as many are outside in that one."""
FEWEST = 3
"""With fewer boxes outside nothing is concluded."""


class WrittenBoxes(NamedTuple):
    """The boxes of one image as they are written."""

    numbers: Numbers
    """(N, 4)"""
    width: int
    height: int
    where: str
    """The image, for messages."""


def check_box_form(file: Path, form: str, images: Sequence[WrittenBoxes]) -> None:
    """InputError when nearly all boxes are fractions of their images, or fit to them only in another form."""
    counts = [len(image.numbers) for image in images]
    numbers = np.concatenate([np.empty((0, 4)), *(image.numbers for image in images)])
    sizes = np.repeat(np.array([(image.width, image.height) for image in images]).reshape(-1, 2), counts, axis=0)
    finite = np.isfinite(numbers).all(1)
    total = int(finite.sum())

    def first(found: NDArray[np.bool_]) -> str:
        box = int(found.argmax())
        image = images[int(np.searchsorted(np.cumsum(counts), box, side="right"))]
        return f"{image.where}, ({', '.join(f'{side:g}' for side in numbers[box])}) in {image.width}x{image.height}"

    tiny = np.asarray(finite & (np.abs(numbers) <= 1).all(1))
    if tiny.sum() > NEARLY_ALL * total:
        raise InputError(
            f"{file}: {tiny.sum():,} of {total:,} boxes lie within the first pixel of their image (first: "
            f"{first(tiny)}); if they are fractions of the image, 0 to 1, multiply them by its size"
        )
    outside = {name: finite & _outside(name, numbers, sizes) for name in _FORMS}
    count = int(outside[form].sum())
    if count < FEWEST or count <= MANY * total:
        return
    for name, found in outside.items():
        if found.sum() < count / 5:
            raise InputError(
                f"{file}: {count:,} of {total:,} boxes are empty or reach outside their image as {form}, and "
                f"{found.sum():,} as {name} (first: {first(outside[form])}); if they are {name}, convert them to {form}"
            )


def _outside(form: str, numbers: Numbers, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    low, high = _FORMS[form](numbers[:, :2], numbers[:, 2:])
    return np.asarray(((low < -TOLERANCE) | (high > sizes + TOLERANCE) | (low >= high)).any(1))
