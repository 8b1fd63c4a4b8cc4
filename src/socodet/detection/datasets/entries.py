"""Builds a dataset from entries as in COCO's files; readers of other formats make such entries, too."""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import (
    Category,
    DetectionDataset,
    ImageAnnotations,
    Style,
    note_repeated_objects,
)
from socodet.detection.datasets.box_forms import BoxForm, WrittenBoxes, boxes_by_image, turn
from socodet.detection.datasets.masks import (
    EMPTY,
    Segmentation,
    box_outline,
    misses_box,
    outline_parts,
    usable_segmentation,
)
from socodet.detection.datasets.problems import FEWEST, NEARLY_ALL, AnnotationProblems, Problem, refuse_unusable
from socodet.detection.datasets.values import flag, is_text, matching_id, number
from socodet.errors import InputError
from socodet.images.source import ImageSource
from socodet.runtime.notices import notice

A_PIXEL_AROUND = np.array([-1, -1, 1, 1], np.float32)
"""What enlarges an xyxy box by a pixel on each side."""
Entry = Mapping[str, Any]
LabelledEntry = tuple[Entry, int]
"""An entry of `annotations` and its label."""


@dataclass(frozen=True)
class ListedImage:
    """An entry of `images`."""

    image_id: int | str
    name: str
    height: int
    """0 if the file does not give it; the same holds for the width."""
    width: int
    entry: Entry
    stored: tuple[ImageSource, int] | None = None
    """Source and index of an image that is not stored as a file."""


@dataclass(frozen=True)
class FoundImage:
    """A listed image whose file exists, and its objects."""

    file: Path
    listed: ListedImage
    """The entry, with its size filled in."""
    objects: Sequence[LabelledEntry]
    annotated: bool
    """Whether it has annotations, even if they are not among the objects; without a usable one it is no background."""

    @cached_property
    def written_boxes(self) -> WrittenBoxes:
        """Its boxes as written in the entries."""
        numbers = np.array([_numbers(entry.get("bbox")) for entry, _ in self.objects], np.float64).reshape(-1, 4)
        return WrittenBoxes(numbers, self.listed.width, self.listed.height, f"image {self.listed.image_id}")


def dataset_from_entries(
    name: str,
    categories: Sequence[Category],
    found: Sequence[FoundImage],
    style: Style,
    form: BoxForm,
    problems: AnnotationProblems,
    about: Path | None = None,
) -> DetectionDataset:
    """The dataset of these images; boxes are in `form`. Problems of entries are added to `problems`.

    `about` is the file or folder, for messages.

    InputError if the name of a class is not UTF-8, or if hardly any object is usable.
    """
    for category in categories:
        if not is_text(category.name):
            raise InputError(
                f"{name}: the name of category {category.id}, {category.name!a}, is not UTF-8; correct it, and save "
                "the annotations as UTF-8"
            )
    has_masks = any(
        usable_segmentation(entry.get("segmentation"), image.listed.height, image.listed.width)
        and not flag(entry.get("iscrowd"))
        for image in found
        for entry, _ in image.objects
    )
    label_of = labels_of(categories)
    angles = np.array([_rotation(entry) for image in found for entry, _ in image.objects], float)
    boxes = boxes_by_image([image.written_boxes for image in found], form, angles, problems)
    images = [
        _image(image, *usable, label_of, has_masks, style == "lvis", problems)
        for image, usable in zip(found, boxes, strict=True)
    ]
    note_repeated_objects(about or name, images)
    usable = sum(map(len, images))
    refuse_unusable(about or name, sum(len(image.objects) for image in found), usable, problems)
    crowds = sum(int(image.crowd.sum()) for image in images)
    if crowds > max(NEARLY_ALL * usable, FEWEST - 1):
        notice(
            f"{about or name}: {crowds:,} of its {usable:,} objects are marked as crowd regions, which are neither "
            "trained on nor scored; if they are single objects, set `iscrowd` to 0 in the annotations"
        )
    return DetectionDataset(name, tuple(categories), images, has_masks, style, problems)


def in_pixels(found: Sequence[FoundImage], form: BoxForm) -> Sequence[FoundImage]:
    """Removes the areas of objects if boxes are shares of the image, because the areas are shares as well."""
    if not form.endswith("-shares"):
        return found
    return [
        replace(
            image,
            objects=[
                ({name: value for name, value in entry.items() if name != "area"}, label)
                for entry, label in image.objects
            ],
        )
        for image in found
    ]


def labels_of(categories: Sequence[Category]) -> dict[int, int]:
    """Category id → label."""
    return {category.id: label for label, category in enumerate(categories, 1)}


def note_voc_scoring(about: Path) -> None:
    """Prints a note that a dataset whose objects say whether they are difficult is scored by VOC's rules."""
    notice(f"{about}: its objects say whether they are difficult; they are scored by Pascal VOC's rules")


def note_shifted_labels(about: Path, categories: Sequence[Category], used: Container[int]) -> None:
    """Prints a note if the objects' class numbers seem to be one too high or too low.

    used: the class numbers that the objects have.
    """
    first, last = min(one.id for one in categories), max(one.id for one in categories)
    for unused, beyond in ((first, last + 1), (last, first - 1)):
        if unused not in used and beyond in used:
            notice(
                f"{about}: some objects have class {beyond}, which does not exist, and none has class {unused}; if all "
                f"class numbers are 1 too {'high' if beyond > last else 'low'}, correct them"
            )


def objects_by_image(
    entries: list[Any], images: Container[int | str], label_of: Mapping[int, int], problems: AnnotationProblems
) -> dict[int | str, list[LabelledEntry]]:
    """The annotations of each listed image, with their labels."""
    objects: dict[int | str, list[LabelledEntry]] = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            problems.add(Problem.BROKEN_BOX, f"entry {place} of `annotations`")
            continue
        written = entry.get("image_id"), entry.get("category_id")
        image_id, category_id = matching_id(written[0], images), matching_id(written[1], label_of)
        if image_id is not None and category_id is not None:
            objects.setdefault(image_id, []).append((entry, label_of[cast(int, category_id)]))
            if (image_id, category_id) == written:
                continue
        where = f"annotation {entry.get('id', f'number {place}')} of image {written[0]}"
        if image_id is None:
            problems.add(Problem.UNKNOWN_IMAGE, where)
        elif category_id is None:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{where}, category {written[1]}")
        else:
            problems.add(Problem.NUMBER_AS_TEXT, f"ids of {where}, category {written[1]!r}")
    return objects


def _image(
    found: FoundImage,
    boxes: NDArray[np.float32],
    kept: NDArray[np.int64],
    label_of: Mapping[int, int],
    has_masks: bool,
    lvis: bool,
    problems: AnnotationProblems,
) -> ImageAnnotations:
    """An image with its usable boxes, `boxes`, whose places among its objects are `kept`."""
    image, where = found.listed, found.written_boxes.where
    objects = [found.objects[index] for index in kept.tolist()]
    entries, labels = [entry for entry, _ in objects], [label for _, label in objects]
    as_text = sum(str in map(type, entry["bbox"]) for entry in entries)
    if as_text:
        problems.add(Problem.NUMBER_AS_TEXT, f"box of {where}", as_text)
    crowd = _flags(entries, "iscrowd", where, problems)
    if crowd.any():
        problems.add(Problem.CROWD, where, int(crowd.sum()))
    sides = boxes[:, 2:] - boxes[:, :2]
    of_boxes = (sides[:, 0] * sides[:, 1]).tolist()
    areas = [_area(*one, where, problems) for one in zip(entries, of_boxes, strict=True)]
    near = (boxes + A_PIXEL_AROUND).tolist()
    masks = [_mask(*one, image, where, has_masks, problems) for one in zip(entries, boxes, near, strict=True)]
    return ImageAnnotations(
        image.image_id,
        found.file,
        image.width,
        image.height,
        boxes,
        np.array(labels, np.int64),
        crowd,
        _flags(entries, "difficult", where, problems),
        np.array(areas, np.float32),
        masks if has_masks else None,
        _labels(image, "neg_category_ids", label_of, lvis, problems),
        _labels(image, "not_exhaustive_category_ids", label_of, lvis, problems),
        image.stored,
        unusable=found.annotated and not len(kept),
    )


def _named(entry: Entry, where: str) -> str:
    return f"annotation {entry.get('id')} of {where}"


def _numbers(bbox: Any) -> list[float]:
    """The four numbers of a box; NaN if there are not four."""
    return [number(side) for side in bbox] if isinstance(bbox, list) and len(bbox) == 4 else [math.nan] * 4


def _rotation(entry: Entry) -> float:
    """CVAT's rotation of a box in degrees; 0 for an object with an outline, whose box already encloses it."""
    attributes = entry.get("attributes")
    if not isinstance(attributes, dict) or entry.get("segmentation") not in EMPTY:
        return 0.0
    return turn(attributes.get("rotation"))


def _flags(entries: Sequence[Entry], name: str, where: str, problems: AnnotationProblems) -> NDArray[np.bool_]:
    flags = [flag(entry.get(name)) for entry in entries]
    if None in flags:
        unclear = entries[flags.index(None)]
        what = f"{name} {unclear[name]!r:.40} of {_named(unclear, where)}"
        problems.add(Problem.UNCLEAR_FLAG, what, flags.count(None))
    return np.array([one is True for one in flags], bool)


def _mask(
    entry: Entry,
    box: NDArray[np.float32],
    near: Sequence[float],
    image: ListedImage,
    where: str,
    has_masks: bool,
    problems: AnnotationProblems,
) -> Segmentation:
    """The outline of an object, otherwise of its box; in a dataset without masks it is only checked."""
    value = entry.get("segmentation")
    if not has_masks and value in EMPTY:
        return []
    mask = usable_segmentation(value, image.height, image.width)
    if not has_masks:
        if mask is None:
            problems.add(Problem.BROKEN_OUTLINE, _named(entry, where))
        return []
    if mask is None or misses_box(mask, near):
        problems.add(Problem.BROKEN_MASK if mask is None else Problem.MASK_ELSEWHERE, _named(entry, where))
        return box_outline(box)
    lost = len(outline_parts(value)) - len(mask) if isinstance(mask, list) else 0
    if lost:
        problems.add(Problem.BROKEN_PART, _named(entry, where), lost)
    return mask


def _area(entry: Entry, of_box: float, where: str, problems: AnnotationProblems) -> float:
    """The area as written, otherwise the area of the box."""
    area = number(entry.get("area"))
    if area > 0:
        return area
    if entry.get("area") is not None:
        problems.add(Problem.BROKEN_AREA, f"area {entry['area']!r:.40} of {_named(entry, where)}")
    return of_box


def _labels(
    image: ListedImage, name: str, label_of: Mapping[int, int], lvis: bool, problems: AnnotationProblems
) -> frozenset[int]:
    ids = image.entry.get(name)
    found = [matching_id(one, label_of) for one in ids] if isinstance(ids, list) else []
    labels = [label_of[cast(int, one)] for one in found if one in label_of]
    if lvis and not (isinstance(ids, list) and len(labels) == len(ids)):
        problems.add(Problem.BROKEN_LVIS_LIST, f"{name} of image {image.image_id}")
    return frozenset(labels)
