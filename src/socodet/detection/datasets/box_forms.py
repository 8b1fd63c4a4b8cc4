"""The forms in which four numbers are a box, and whether those of a set are in the form that they are read in."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.problems import FEWEST, NEARLY_ALL, TOLERANCE
from socodet.detection.datasets.values import number
from socodet.errors import InputError

Numbers = NDArray[np.float64]
BoxForm = Literal["xywh", "xyxy", "cxcywh", "xywh-shares", "xyxy-shares", "cxcywh-shares"]
"""Upper left corner and size, two corners, or centre and size; in pixels, or as shares of the image's sides."""
FORMS: dict[BoxForm, str] = {
    "xywh": "x, y, width, height",
    "xyxy": "corners x1, y1, x2, y2",
    "cxcywh": "centre x, y and width, height",
    "xywh-shares": "x, y, width, height as fractions of the image",
    "xyxy-shares": "corners x1, y1, x2, y2 as fractions of the image",
    "cxcywh-shares": "centre x, y and width, height as fractions of the image",
}
MANY = 0.05
"""So many boxes outside their images mean another form, if at most a fifth as many are outside in that one."""


class WrittenBoxes(NamedTuple):
    """The boxes of one image as they are written."""

    numbers: Numbers
    """(N, 4)"""
    width: int
    height: int
    where: str
    """The image, for messages."""


def corners(form: BoxForm, numbers: Numbers, sizes: NDArray[np.int64]) -> Numbers:
    """(N, 4) boxes of any form as xyxy in pixels; sizes: (N, 2) or (2,) widths and heights."""
    a, b = numbers[:, :2], numbers[:, 2:]
    if form.endswith("-shares"):
        a, b = a * sizes, b * sizes
    if form.startswith("xyxy"):
        return np.concatenate([a, b], 1)
    low = a - b / 2 if form.startswith("cxcywh") else a
    return np.concatenate([low, low + b], 1)


def turn(written: Any) -> float:
    """The rotation of a box in degrees, in [0, 180); 0 if it is not a number."""
    angle = number(written)
    return angle % 180 if math.isfinite(angle) else 0.0


def around_rotated(xyxy: Numbers, angles: Numbers) -> Numbers:
    """The upright boxes around (N, 4) boxes that are rotated about their centres by (N,) degrees."""
    turned = np.radians(angles[:, None])
    sine, cosine = np.abs(np.sin(turned)), np.abs(np.cos(turned))
    centre, sides = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    half = (cosine * sides + sine * sides[:, ::-1]) / 2
    return np.where(turned == 0, xyxy, np.concatenate([centre - half, centre + half], 1))


def check_box_form(
    file: Path, form: BoxForm, images: Sequence[WrittenBoxes], fix: str = "", *, asked: bool = False
) -> None:
    """InputError when nearly all boxes are fractions of their images and should not be, or fit only in another form.

    fix: what to do about it, `convert them to` this form if not given. asked: whether the user says that this is their
    form, which then is doubted only where it fits hardly any, or COCO's own fits instead, as of the second of two sets
    that the user speaks of.
    """
    boxes = _Boxes.of(images)
    fix = fix or f"convert them to {FORMS[form]}"
    total, tiny = len(boxes.numbers), boxes.tiny()
    if not form.endswith("-shares") and tiny.sum() > NEARLY_ALL * total:
        raise InputError(
            f"{file}: {tiny.sum():,} of {total:,} boxes lie within the first pixel of their image (first: "
            f"{boxes.first(tiny)}); if they are fractions of the image, 0 to 1, {fix}"
        )
    shares = bool(tiny.sum() > NEARLY_ALL * total)  # tiny boxes fit as any form in pixels
    outside = {name: boxes.outside(name) for name in FORMS if name == form or name.endswith("-shares") == shares}
    count = int(outside[form].sum())
    if count < FEWEST or count <= MANY * total:
        return
    sure = asked and count <= NEARLY_ALL * total
    for name, found in outside.items():
        if found.sum() < count / 5 and not (sure and name != "xywh"):
            raise InputError(
                f"{file}: {count:,} of {total:,} boxes are empty or reach outside their image as {FORMS[form]}, and "
                f"{found.sum():,} as {FORMS[name]} (first: {boxes.first(outside[form])}); if they are {FORMS[name]}, "
                f"{fix}"
            )
    if form.endswith("-shares"):
        large = np.asarray((np.abs(boxes.numbers) > 1).any(1))
        if large.sum() > NEARLY_ALL * total:
            raise InputError(
                f"{file}: {large.sum():,} of {total:,} boxes have a number above 1 (first: {boxes.first(large)}); "
                "they must be fractions of the image, 0 to 1: divide them by its width and height"
            )


def find_box_form(file: Path, images: Sequence[WrittenBoxes]) -> BoxForm:
    """The one form that the boxes of a set fit. InputError when they fit none, or several: it must be told then.

    A form is ruled out by at least `FEWEST` boxes that it does not fit: one or two may be mistakes.
    """
    boxes = _Boxes.of(images)
    total = len(boxes.numbers)
    shares = bool(boxes.tiny().sum() > NEARLY_ALL * total)
    counts = {form: int(boxes.outside(form).sum()) for form in FORMS if form.endswith("-shares") == shares}
    least = min(counts.values())
    fitting = [form for form, count in counts.items() if count <= max(5 * least, FEWEST - 1)]
    if not total:
        return "xywh"
    if least <= MANY * total and len(fitting) == 1:
        return fitting[0]
    found = "none" if least > MANY * total else " and ".join(fitting)
    raise InputError(
        f"{file}: does not say which box format it uses, and its {total:,} boxes fit {found}"
        f" (first: {boxes.first(boxes.outside(fitting[0]))}); choose one with --box-form: {', '.join(FORMS)}"
    )


class _Boxes(NamedTuple):
    """The boxes of all images that are four finite numbers."""

    numbers: Numbers
    """(N, 4)"""
    sizes: NDArray[np.int64]
    """(N, 2)"""
    owners: NDArray[np.int64]
    """(N,) indices of their images."""
    images: Sequence[WrittenBoxes]

    @classmethod
    def of(cls, images: Sequence[WrittenBoxes]) -> "_Boxes":
        owners = np.repeat(np.arange(len(images)), [len(image.numbers) for image in images])
        numbers = np.concatenate([np.empty((0, 4)), *(image.numbers for image in images)])
        sizes = np.array([(image.width, image.height) for image in images], np.int64).reshape(-1, 2)[owners]
        finite = np.isfinite(numbers).all(1)
        return cls(numbers[finite], sizes[finite], owners[finite], images)

    def tiny(self) -> NDArray[np.bool_]:
        return np.asarray((np.abs(self.numbers) <= 1).all(1))

    def outside(self, form: BoxForm) -> NDArray[np.bool_]:
        """Which boxes reach outside their image or have no area."""
        xyxy = corners(form, self.numbers, self.sizes)
        low, high = xyxy[:, :2], xyxy[:, 2:]
        return np.asarray(((low < -TOLERANCE) | (high > self.sizes + TOLERANCE) | (low >= high)).any(1))

    def first(self, found: NDArray[np.bool_]) -> str:
        """The first of the found boxes; the first of all if none is."""
        box = int(found.argmax())
        image = self.images[int(self.owners[box])]
        numbers = ", ".join(f"{side:g}" for side in self.numbers[box])
        return f"{image.where}, ({numbers}) in {image.width}x{image.height}"
