"""Reads YOLO's label files: one line per object, with its class and its box or outline as fractions of the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.entries import Entry, LabelledEntry
from socodet.detection.datasets.problems import FEWEST, AnnotationProblems, Problem
from socodet.detection.datasets.values import number

LABEL_FOLDERS = ("labels", "label", "annotations")
BOX = 5
"""How many numbers a line with a box has: class, centre x, centre y, width, height."""
FEWEST_OF_OUTLINE = 7
"""How many numbers a line with an outline has at least: class and three points."""


@dataclass(frozen=True)
class LabelLine:
    """One object as written in the file."""

    category: int
    numbers: NDArray[np.float64]
    """(4,) centre and size, or (2·P,) x, y, x, y, …, as fractions of the image's sides."""
    where: str

    def entry(self, width: int, height: int) -> Entry:
        """The object as an entry of COCO's `annotations`, with its box as centre and size in fractions of the image,
        and its outline in pixels.
        """
        if len(self.numbers) == BOX - 1:
            return {"id": self.where, "bbox": self.numbers.tolist()}
        points = self.numbers.reshape(-1, 2)
        low, high = points.min(0), points.max(0)
        outline = points * [width, height]
        x, y = outline.T
        area = float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
        box = np.concatenate([(low + high) / 2, high - low])
        return {"id": self.where, "bbox": box.tolist(), "segmentation": [outline.reshape(-1).tolist()], "area": area}


@dataclass
class LabelReader:
    """Reads label files and counts their problems."""

    problems: AnnotationProblems
    keypoints: int = 0
    """How many numbers of keypoints follow an object's box; they are left out."""
    lines: int = 0
    broken: int = 0

    def read(self, file: Path, lines: Sequence[str]) -> list[LabelLine]:
        """The objects of a file with these lines."""
        found = []
        known: set[tuple[float, ...]] = set()
        for place, line in enumerate(lines, 1):
            if not line:
                continue
            self.lines += 1
            where = f"{file.parent.name}/{file.name} line {place}"
            read = self._line(line, where)
            if read is None:
                self.broken += 1
                self.problems.add(Problem.BROKEN_LINE, f"{where}: {line:.60}")
                continue
            numbers = read.category, *read.numbers.tolist()
            if numbers in known:  # for example after running a conversion twice
                self.problems.add(Problem.REPEATED_LINE, f"{where}: {line:.60}")
                continue
            known.add(numbers)
            found.append(read)
        return found

    def _line(self, line: str, where: str) -> LabelLine | None:
        values = [number(word) for word in line.split()]
        if self.keypoints and len(values) == BOX + self.keypoints:
            values = values[:BOX]
        outline = len(values) >= FEWEST_OF_OUTLINE and len(values) % 2 == 1 and not self.keypoints
        if not (outline or len(values) == BOX) or not values[0].is_integer():
            return None
        numbers = np.array(values[1:])
        return LabelLine(int(values[0]), numbers, where) if np.isfinite(numbers).all() else None


def guess_keypoints(lines: Sequence[LabelLine]) -> tuple[int, int] | None:
    """The number of keypoints, and of numbers in each, that seem to follow the box on lines with more than a box.

    None if the lines are boxes and outlines. Keypoints lie within the box given by the first four numbers, while the
    size of that box, read as the second point of an outline, lies away from them.
    """
    outlines = [line.numbers for line in lines if len(line.numbers) >= BOX]
    if len(outlines) < FEWEST or len({len(one) for one in outlines}) > 1:
        return None
    numbers = np.array(outlines)
    centre, size, behind = numbers[:, None, :2], numbers[:, None, 2:4], numbers[:, 4:]
    for values in (2, 3):
        count, rest = divmod(behind.shape[1], values)
        if rest or count < FEWEST:
            continue
        points = behind.reshape(len(outlines), count, values)[..., :2]
        unseen = (points == 0).all(2, keepdims=True)
        inside = ((np.abs(points - centre) <= size / 2 + 0.01) | unseen).all((1, 2))
        low, high = (bound(np.where(unseen, centre, points), 1) for bound in (np.min, np.max))
        apart = ((size[:, 0] < 2 * low - high) | (size[:, 0] > 2 * high - low)).any(1)
        if np.count_nonzero(inside & apart) > max(len(outlines) / 2, FEWEST - 1):
            return count, values
    return None


def look_like_tracks(lines: Sequence[LabelLine]) -> bool:
    """Whether lines with more than a box seem to end with a confidence and a track id.

    Ultralytics writes these after the boxes and outlines that it detects in a video. A whole number above 1 is not a
    coordinate, and hardly any outline has only three points, as a box with these two numbers would.
    """
    ends = [line.numbers[-1] for line in lines if len(line.numbers) >= BOX]
    triangles = all(len(line.numbers) == BOX + 1 for line in lines)
    whole = sum(float(end).is_integer() for end in ends)
    return whole > max(len(ends) / 2, FEWEST - 1) and (triangles or max(ends) > 1)


def labelled(
    lines: Sequence[LabelLine], size: tuple[int, int], label_of: Mapping[int, int], problems: AnnotationProblems
) -> list[LabelledEntry]:
    """The objects of known classes in an image of this (width, height), as entries with their labels."""
    known = []
    for line in lines:
        if line.category in label_of:
            known.append((line.entry(*size), label_of[line.category]))
        else:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{line.where}, class {line.category}")
    return known
