"""The classes of a dataset in words, and matching of two datasets' classes by name, as their numbers may differ."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.errors import InputError
from socodet.images.spelling import composed
from socodet.runtime.counted import counted
from socodet.runtime.notices import notice, printable

NAMED_CLASSES = 10


def describe_objects(data: DetectionDataset) -> str:
    """The numbers of objects trained on and of classes, and the number of objects in each of the most frequent ones."""
    counts = data.object_counts(trained_on=True)
    names = (printable(category.name) for category in data.categories)
    ordered = sorted(zip(counts, names, strict=True), key=lambda one: -one[0])
    there = [f"{name} {count:,}" for count, name in ordered if count]
    named = ", ".join(there[:NAMED_CLASSES])
    if len(there) > NAMED_CLASSES:
        named += f" and {len(there) - NAMED_CLASSES} more classes down to {there[-1]}"
    without = [name for count, name in ordered if not count]
    if without:
        more = f" and {len(without) - NAMED_CLASSES} more" if len(without) > NAMED_CLASSES else ""
        named += f"{'; ' if named else ''}none of {', '.join(without[:NAMED_CLASSES])}{more}"
    classes = counted(len(counts), "class", "classes")
    return f"{sum(counts):,} in {f'{len(there):,} of ' if without else ''}{classes}: {named}"


def match_classes(trained: DetectionDataset, scored: DetectionDataset) -> DetectionDataset:
    """The dataset `scored` with the labels of `trained`, matched by class name, and its images read in the same way.

    Objects of other classes are left out; a note on stderr lists the differences. InputError when the datasets have no
    class in common, or two classes share a name.
    """
    names, own = ([category.name for category in one.categories] for one in (trained, scored))
    reading = trained.pixel_reading.filled_from(scored.pixel_reading)
    if names == own:
        return scored if scored.pixel_reading == reading else replace(scored, pixel_reading=reading)
    common = set(names) & set(own)
    alike = _similar_names([name for name in names if name not in common], [name for name in own if name not in common])
    if not common or len(set(names)) < len(names) or len(set(own)) < len(own):
        why = "they have none in common; give a dataset with classes of the same names"
        if common:
            why = "two of them share a name; give each class a name of its own"
        raise InputError(
            f"{scored.name}: its classes ({_listed_names(own)}) cannot be matched with those of {trained.name} "
            f"({_listed_names(names)}), because {why}{alike}"
        )
    label_of = {label: names.index(name) + 1 for label, name in enumerate(own, 1) if name in common}
    problems = AnnotationProblems() + scored.problems
    images = [_relabelled(image, label_of, own, problems) for image in scored.images]
    dropped = problems.counts.get(Problem.UNKNOWN_CATEGORY, 0) - scored.problems.counts.get(Problem.UNKNOWN_CATEGORY, 0)
    lacking, further = [name for name in names if name not in common], [name for name in own if name not in common]
    notice(
        f"{scored.name}: classes matched by name with those of {trained.name}"
        + (f"; it lacks {_listed_names(lacking)}" if lacking else "")
        + (
            f"; {dropped:,} objects of classes that only it has were left out: {_listed_names(further)}"
            if further
            else ""
        )
        + alike
    )
    by_name = {category.name: category for category in scored.categories}
    ids = {category.id for category in scored.categories}
    unused = itertools.count(max(ids | {category.id for category in trained.categories}) + 1)
    categories = tuple(
        by_name.get(one.name, one if one.id not in ids else replace(one, id=next(unused))) for one in trained.categories
    )
    return replace(scored, categories=categories, images=images, problems=problems, pixel_reading=reading)


def _relabelled(
    image: ImageAnnotations, label_of: Mapping[int, int], names: list[str], problems: AnnotationProblems
) -> ImageAnnotations:
    kept = np.isin(image.labels, list(label_of))
    if not kept.all():
        first = names[int(image.labels[~kept][0]) - 1]
        problems.add(Problem.UNKNOWN_CATEGORY, f"image {image.image_id}, category {first}", int((~kept).sum()))
    return replace(
        image,
        boxes=image.boxes[kept],
        labels=np.array([label_of[label] for label in image.labels[kept].tolist()], np.int64),
        crowd=image.crowd[kept],
        difficult=image.difficult[kept],
        areas=image.areas[kept],
        masks=None if image.masks is None else [image.masks[index] for index in np.flatnonzero(kept).tolist()],
        absent=frozenset(label_of[label] for label in image.absent if label in label_of),
        incomplete=frozenset(label_of[label] for label in image.incomplete if label in label_of),
    )


def plain_name(name: str) -> str:
    """A class name for comparison: without case, spaces and hyphens, and with accents in one encoding."""
    return re.sub(r"[\s_-]+", " ", composed(name)).strip().casefold()


def _similar_names(lacking: Sequence[str], further: Sequence[str]) -> str:
    """A remark on classes that only one of the two datasets has but that differ only in spelling."""
    of_plain = {plain_name(name): name for name in lacking}
    alike = [(of_plain[plain_name(name)], name) for name in further if plain_name(name) in of_plain]
    if not alike:
        return ""
    more = f" (and {len(alike) - 1:,} more pairs)" if len(alike) > 1 else ""
    one, other = alike[0]
    return f"; {one!r} and {other!r}{more} differ in spelling only: if they are one class, call them alike"


def _listed_names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
