"""The forms in which four numbers describe a box, and checks that a dataset's boxes are in the expected form."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.problems import FEWEST, NEARLY_ALL, TOLERANCE, AnnotationProblems, Problem, usable_boxes
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
"""Share of boxes outside their images that suggests another form, if that one puts at most a fifth as many outside."""


class WrittenBoxes(NamedTuple):
    """The boxes of one image as written in the file."""

    numbers: Numbers
    """(N, 4)"""
    width: int
    height: int
    where: str
    """The image, for messages."""


def corners(form: BoxForm, numbers: Numbers, sizes: NDArray[np.int64]) -> Numbers:
    """Converts (N, 4) boxes of any form to xyxy in pixels; sizes: (N, 2) or (2,) widths and heights."""
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


def enclosing_boxes(xyxy: Numbers, angles: Numbers) -> Numbers:
    """The upright boxes that enclose (N, 4) boxes rotated about their centres by (N,) degrees."""
    turned = np.radians(angles[:, None])
    sine, cosine = np.abs(np.sin(turned)), np.abs(np.cos(turned))
    centre, sides = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    half = (cosine * sides + sine * sides[:, ::-1]) / 2
    return np.where(turned == 0, xyxy, np.concatenate([centre - half, centre + half], 1))


def boxes_by_image(
    images: Sequence[WrittenBoxes], form: BoxForm, angles: Numbers, problems: AnnotationProblems
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The usable boxes of each image as (M, 4) xyxy in pixels, and their indices there; counts the others as problems.

    angles: the rotations of all boxes in degrees, image by image.
    """
    numbers, sizes, owners = _joined(images)

    def where(box: int) -> str:
        return images[int(owners[box])].where

    xyxy, turned = corners(form, numbers, sizes), np.flatnonzero(angles)
    if len(turned):
        problems.add(Problem.ROTATED, where(int(turned[0])), len(turned))
        xyxy = enclosing_boxes(xyxy, angles)
    boxes, kept = usable_boxes(xyxy, sizes, where, problems)
    starts = np.searchsorted(owners, np.arange(len(images)))
    splits = np.searchsorted(kept, starts)
    indices = kept - starts[owners[kept]]
    return list(zip(np.split(boxes, splits)[1:], np.split(indices, splits)[1:], strict=True))


def check_box_form(
    file: Path, form: BoxForm, images: Sequence[WrittenBoxes], fix: str = "", *, asked: bool = False
) -> None:
    """InputError if nearly all boxes are fractions of their images and should not be, or fit only another form.

    fix: advice for the message; by default, to convert them to this form. asked: whether the user chose this form. It
    is then questioned only if it fits hardly any box, or if COCO's own form fits instead: the user's choice may be
    meant for only one of two datasets.
    """
    boxes = _Boxes.of(images)
    fix = fix or f"convert them to {FORMS[form]}"
    total, tiny = len(boxes.numbers), boxes.tiny()
    if not form.endswith("-shares") and tiny.sum() > NEARLY_ALL * total:
        raise InputError(
            f"{file}: {tiny.sum():,} of {total:,} boxes lie within the first pixel of their image (first: "
            f"{boxes.first(tiny)}); if they are fractions of the image, 0 to 1, {fix}"
        )
    shares = bool(tiny.sum() > NEARLY_ALL * total)  # tiny boxes would fit any form in pixels
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
    """The only form that the boxes of a dataset fit. InputError if they fit none or several; the user must then say.

    A form is ruled out only by `FEWEST` or more boxes that do not fit it, because one or two may be mistakes.
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


def _joined(images: Sequence[WrittenBoxes]) -> tuple[Numbers, NDArray[np.int64], NDArray[np.int64]]:
    """The boxes of all images, (N, 4); the widths and heights of their images, (N, 2); and their images' indices."""
    owners = np.repeat(np.arange(len(images)), [len(image.numbers) for image in images])
    numbers = np.concatenate([np.empty((0, 4)), *(image.numbers for image in images)])
    sizes = np.array([(image.width, image.height) for image in images], np.int64).reshape(-1, 2)[owners]
    return numbers, sizes, owners


class _Boxes(NamedTuple):
    """All boxes that consist of four finite numbers, over all images."""

    numbers: Numbers
    """(N, 4)"""
    sizes: NDArray[np.int64]
    """(N, 2)"""
    owners: NDArray[np.int64]
    """(N,) indices of their images."""
    images: Sequence[WrittenBoxes]

    @classmethod
    def of(cls, images: Sequence[WrittenBoxes]) -> "_Boxes":
        numbers, sizes, owners = _joined(images)
        finite = np.isfinite(numbers).all(1)
        return cls(numbers[finite], sizes[finite], owners[finite], images)

    def tiny(self) -> NDArray[np.bool_]:
        return np.asarray((np.abs(self.numbers) <= 1).all(1))

    def outside(self, form: BoxForm) -> NDArray[np.bool_]:
        """(N,) whether a box reaches outside its image or has no area."""
        xyxy = corners(form, self.numbers, self.sizes)
        low, high = xyxy[:, :2], xyxy[:, 2:]
        return np.asarray(((low < -TOLERANCE) | (high > self.sizes + TOLERANCE) | (low >= high)).any(1))

    def first(self, found: NDArray[np.bool_]) -> str:
        """A description of the first box in `found`, or of the first box if there is none."""
        box = int(found.argmax())
        image = self.images[int(self.owners[box])]
        numbers = ", ".join(f"{side:g}" for side in self.numbers[box])
        return f"{image.where}, ({numbers}) in {image.width}x{image.height}"
