"""Problems in annotation files, which are counted with the first example of each, and repaired or left out."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.runtime.notices import printable

NEARLY_ALL = 0.9
"""If a larger share is faulty, the whole dataset is assumed to be in another format."""
FEWEST = 3
"""Fewer objects are too few to conclude anything."""
TOLERANCE = 1.0
"""Pixels by which a box may reach outside its image unreported, since COCO's are rounded; it is clipped anyway."""
LEAST_SIDE = 0.01
"""Minimum side of a box in pixels; less is due to rounding, for example of a box that only touches the border."""


class Problem(StrEnum):
    """What was found, and how it was handled."""

    MISSING_IMAGE = "image file missing; image left out"
    NAME_ASTRAY = (
        "name of no image, or of one outside the dataset; left out (--outside-images reads images from anywhere)"
    )
    BROKEN_IMAGE = "image file unreadable, or not of the annotated size; image left out"
    UNUSABLE_IMAGE = (
        "image file unreadable, or not of the annotated size; replaced in training, its objects missed in scores"
    )
    BROKEN_ANNOTATION_FILE = "annotation file missing or broken; image left out"
    SIZE_FROM_FILE = "image entry without a usable size; size of the image file used"
    NAME_FROM_ELSEWHERE = "image named by a URL or by a path on another machine; found by the last parts of the name"
    OTHER_SUFFIX = "image name that differs from its file's in suffix, case or encoding of accents; matched anyway"
    BROKEN_IMAGE_ENTRY = "image entry without a usable id or file name; left out"
    ONE_NAME = "image name that several images have; all left out with their objects, which cannot be told apart"
    NOT_ANNOTATED = "image that nobody has annotated, or whose annotation was skipped; left out, as it may show objects"
    UNCLEAR_IMAGE = "task without an image, or with several; left out, as nobody can tell which one its objects are on"
    REPEATED_IMAGE = "image listed again under an id already used; left out"
    ONE_ID = "image id that several images have; all left out with their objects, which cannot be told apart (renumber)"
    SAME_FILE = "image file listed again under another id; its objects added to the first entry's, without duplicates"
    OTHER_SIZE = (
        "image file listed more than once, here with a size that is not the file's; the objects of this entry left out"
    )
    UNKNOWN_IMAGE = "annotation of an image that is not listed; left out"
    UNKNOWN_CATEGORY = "annotation of an unknown category; left out"
    PLACEHOLDER_CATEGORY = "category that is not a class but a group of classes or the background; left out"
    NO_ANNOTATION_FILE = "image without an annotation file; left out, as it may show objects that nobody annotated"
    UNLISTED_IMAGE = (
        "image beside the table that no line of it names; left out, as it may show objects that nobody annotated"
    )
    NO_LABEL_FILE = "image without a label file; taken as an image without objects"
    NO_IMAGE_FOR_LABELS = "annotation file without an image; left out"
    OTHER_FILE_NAME = "annotation file that names one image and is named after another; the latter used"
    SHARED_ANNOTATION_FILE = "two images of the same name share one annotation file; both left out (give each its own)"
    IGNORED = "image or shape marked __ignore__ or as deleted, or shape labelled _background_; left out"
    NO_AREA = "shape without area, such as a point or a line, with broken points, or of an unknown type; left out"
    BROKEN_LINE = "label line that is neither a class and a box nor a class and an outline; left out"
    REPEATED_LINE = "label line that repeats an earlier one of its file; left out"
    BROKEN_BOX = "box missing, or not of four finite numbers; left out"
    FURTHER_BOX = "extra box of an object that has one; left out (give each box an object of its own)"
    OUTLINE_AS_BOX = "outline without a box in an XML file; the box around it is used"
    EMPTY_BOX = "box without area, or of negative width or height; left out"
    OUTSIDE = "box wholly outside its image; left out"
    ROTATED = "rotated box; replaced by the upright box around it"
    CLIPPED = "box partly outside its image; clipped"
    NUMBER_AS_TEXT = "number written as text, or an id of another type than the one it refers to; read as the number"
    UNCLEAR_FLAG = "flag that is neither yes nor no; read as no"
    MASK_ELSEWHERE = "mask empty or not on its box; its box is used as its outline"
    PARTLY_LVIS = "file with only some of the fields of LVIS"
    BROKEN_MASK = "mask missing or unusable; its box is used as its outline"
    BROKEN_PART = "part of an outline of fewer than three points, or not of finite numbers; left out"
    BROKEN_OUTLINE = "outline unusable, like all others in the dataset; left out, and only boxes are used"
    BROKEN_AREA = "area that is not a number above 0; the area of the box is used"
    BROKEN_LVIS_LIST = "LVIS list of classes missing, or with unknown ones, which are left out"
    BROKEN_FREQUENCY = "LVIS frequency that is not r, c or f; the class counts as neither"
    MASK_AS_CROWD = "mask marked as a crowd region, as CVAT marks every mask; read as an object, with the box around it"
    CROWD = "crowd region; not trained on, and ignored in the scores as the rules say"


class AnnotationProblems:
    """How often each problem occurred, and its first example."""

    def __init__(self) -> None:
        self.counts: dict[Problem, int] = {}
        self.first: dict[Problem, str] = {}

    def add(self, problem: Problem, where: str, count: int = 1) -> None:
        """Counts a problem; `where` names the image or annotation."""
        self.counts[problem] = self.counts.get(problem, 0) + count
        if problem not in self.first:
            self.first[problem] = printable(where)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def lines(self) -> list[str]:
        """One line per problem: count, what it is, what was done, and the first example."""
        return [self.line(problem) for problem in Problem if problem in self.counts]

    def line(self, problem: Problem) -> str:
        """The line of one problem that occurred."""
        return f"{self.counts[problem]:,} × {problem} (first: {self.first[problem]})"

    def as_json(self) -> dict[str, dict[str, int | str]]:
        """Problem → count and first example, for a run's record."""
        return {
            problem.name.lower(): {"count": self.counts[problem], "first": self.first[problem]}
            for problem in Problem
            if problem in self.counts
        }

    def __add__(self, other: "AnnotationProblems") -> "AnnotationProblems":
        both = AnnotationProblems()
        for part in (self, other):
            for problem, count in part.counts.items():
                both.add(problem, part.first[problem], count)
        return both


def refuse_unusable(about: Path | str, objects: int, usable: int, problems: AnnotationProblems) -> None:
    """InputError if hardly any object of a dataset is usable."""
    if objects - usable > max(NEARLY_ALL * objects, FEWEST - 1):
        raise InputError(
            f"{about}: {usable or 'none'} of its {objects:,} objects can be used: {'; '.join(problems.lines())}"
        )


def large_enough(boxes: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of (N, 4) xyxy boxes have sides of at least `LEAST_SIDE`."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(1))


def usable_boxes(
    boxes: NDArray[np.float64], sizes: NDArray[np.int64], where: Callable[[int], str], problems: AnnotationProblems
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The usable boxes among (N, 4) xyxy, clipped to their images, and their indices; counts the others as problems.

    sizes: (N, 2) widths and heights of their images. where: names the image of a box, for messages.
    """
    finite = np.isfinite(boxes).all(1)
    with np.errstate(invalid="ignore"):
        has_area = large_enough(boxes)
        reach = np.maximum(-boxes[:, :2], boxes[:, 2:] - sizes).max(1, initial=0.0)
        clipped = np.clip(boxes, 0, np.tile(sizes, 2)).astype(np.float32)
        inside = large_enough(clipped)
    usable = finite & has_area & inside
    for found, problem in (
        (~finite, Problem.BROKEN_BOX),
        (finite & ~has_area, Problem.EMPTY_BOX),
        (finite & has_area & ~inside, Problem.OUTSIDE),
        (usable & (reach > TOLERANCE), Problem.CLIPPED),
    ):
        if found.any():
            first = int(found.argmax())
            numbers = ", ".join(f"{side:g}" for side in boxes[first])
            width, height = sizes[first]
            problems.add(problem, f"{where(first)}, box ({numbers}) in {width}x{height}", int(found.sum()))
    kept = np.flatnonzero(usable)
    return clipped[kept], kept
