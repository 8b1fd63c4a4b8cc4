"""Joins entries of a COCO file that name the same image file."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from socodet.detection.datasets.entries import FoundImage, LabelledEntry
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.values import flag
from socodet.errors import UnreadableImageError
from socodet.images.file_header import image_file_size


def merge_repeated_images(found: Iterable[FoundImage], problems: AnnotationProblems) -> list[FoundImage]:
    """Joins entries of the same image file, as written by converters of tables with a row per object, or by merging.

    Otherwise an image could be in both the training and the validation split, with half of its objects in each.
    """
    of_file: dict[Path, list[FoundImage]] = {}
    for image in found:
        of_file.setdefault(image.file, []).append(image)
    joined = []
    for same in of_file.values():
        sized = _with_size_of_file(same, problems) if len(same) > 1 else same
        for image in sized[1:]:
            where = f"image {image.listed.image_id}, {image.file.name}"
            problems.add(Problem.SAME_FILE, f"{where}, of image {sized[0].listed.image_id}")
        joined.append(sized[0] if len(sized) == 1 else _merged(sized))
    return joined


def _with_size_of_file(same: Sequence[FoundImage], problems: AnnotationProblems) -> Sequence[FoundImage]:
    """The entries of one file that have the file's own size, so that their boxes fit.

    If none has it, those with the size of the first.
    """
    sizes = [(image.listed.width, image.listed.height) for image in same]
    if len(set(sizes)) == 1:
        return same
    own = sizes[0]
    with suppress(OSError, UnreadableImageError):
        own = image_file_size(same[0].file)
    own = own if own in sizes else sizes[0]
    for image, (width, height) in zip(same, sizes, strict=True):
        if (width, height) != own:
            problems.add(Problem.OTHER_SIZE, f"image {image.listed.image_id}, {image.file.name}: {width}x{height}")
    return [image for image, size in zip(same, sizes, strict=True) if size == own]


def _merged(same: Sequence[FoundImage]) -> FoundImage:
    """The first entry of one file, with the objects of all, without those whose class and box an earlier one has."""
    objects: list[LabelledEntry] = []
    known: set[tuple[Any, ...]] = set()
    for image in same:
        boxes = image.written_boxes.numbers.tolist()
        named = [
            ((label, bool(flag(entry.get("iscrowd"))), *box), (entry, label))
            for (entry, label), box in zip(image.objects, boxes, strict=True)
        ]
        objects += [one for key, one in named if key not in known]
        known |= {key for key, _ in named}
    return replace(same[0], objects=objects, annotated=any(image.annotated for image in same))
