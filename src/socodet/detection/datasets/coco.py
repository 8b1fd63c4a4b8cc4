"""COCO's form of annotations, one JSON file, and LVIS's, which adds what of a picture is not annotated."""

import json
import math
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np

from socodet.detection.datasets.annotations import Category, DetectionDataset, Frequency, ImageAnnotations, Style
from socodet.detection.datasets.checks import AnnotationProblems, FilesThere, Problem, usable_boxes
from socodet.detection.datasets.masks import Segmentation, box_outline, usable_segmentation
from socodet.errors import InputError
from socodet.images.lists import coco_root

Entry = Mapping[str, Any]


def read_coco(file: Path, *, images: Path | None = None, style: Style | None = None) -> DetectionDataset:
    """The pictures of a COCO or LVIS file, in its order, with their objects.

    `images` is the folder where the file names begin; without it the one that `images.lists.open_coco` finds. LVIS v1
    names a picture by the last two parts of its `coco_url`, `train2017/000000000009.jpg`.

    `style` is told by the file if not given: LVIS's where pictures have `neg_category_ids`, VOC's where objects
    say whether they are `difficult`, else COCO's.

    InputError when the file is not such a file, or none of its pictures can be used; what is wrong with single entries
    is in the set's `problems`.
    """
    content = _content(file)
    categories = _categories(file, content["categories"])
    problems = AnnotationProblems()
    entries = _usable_images(content["images"], problems)
    if not entries:
        raise InputError(f"{file}: lists no usable image; each needs `id`, `file_name`, `width` and `height`")
    root = (images if images is not None else coco_root(file, [_file_name(e) for e in entries.values()])).resolve()
    objects = _objects_by_image(content["annotations"], entries, categories, problems)
    has_masks = any(
        not _crowd(entry) and usable_segmentation(entry.get("segmentation"), *_size(entries[image_id])) is not None
        for image_id, found in objects.items()
        for entry in found
    )
    label_of = {category.id: label for label, category in enumerate(categories, 1)}
    there = FilesThere()
    read = []
    for image_id, entry in entries.items():
        path = root / _file_name(entry)
        if path in there:
            read.append(_image(entry, path, objects.get(image_id, []), label_of, has_masks, problems))
        else:
            problems.add(Problem.MISSING_IMAGE, str(path))
    if not read:
        raise InputError(f"{file}: none of its {len(entries)} images is in {root}; name their folder")
    return DetectionDataset(
        file.stem, categories, read, has_masks, style or _style(content["images"], objects), problems
    )


def _content(file: Path) -> dict[str, list[Any]]:
    try:
        content: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); make it readable") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not valid JSON ({error}); give a COCO file") from None
    for part in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise InputError(f"{file}: is not a COCO file of annotations; it has no list `{part}`")
    return cast(dict[str, list[Any]], content)


def _categories(file: Path, entries: list[Any]) -> tuple[Category, ...]:
    """By their ids, so that two files of a set agree whatever their order."""
    try:
        found = [Category(int(e["id"]), str(e["name"]), _frequency(e.get("frequency"))) for e in entries]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(f"{file}: a category is unusable; each needs a number `id` and a `name`") from None
    ids = [category.id for category in found]
    if not found or len(set(ids)) < len(ids):
        what = f"has the category id {next(i for i in ids if ids.count(i) > 1)} twice" if ids else "has no category"
        raise InputError(f"{file}: {what}; give each kind of object its own id")
    return tuple(sorted(found, key=lambda category: category.id))


def _frequency(value: Any) -> Frequency | None:
    return cast(Frequency, value) if value in ("r", "c", "f") else None


def _usable_images(entries: list[Any], problems: AnnotationProblems) -> dict[int | str, Entry]:
    usable: dict[int | str, Entry] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not _file_name(entry) or 0 in _size(entry):
            problems.add(Problem.BROKEN_IMAGE_ENTRY, f"entry {number} of `images`")
        elif entry["id"] in usable:
            problems.add(Problem.REPEATED_IMAGE, f"image id {entry['id']}")
        else:
            usable[entry["id"]] = entry
    return usable


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    """Of a size that a picture can have; not-a-number has none."""
    return isinstance(value, int | float) and abs(value) < 1e9


def _file_name(entry: Entry) -> str:
    """Relative to the images' folder; nothing when the entry has none."""
    name = entry.get("file_name") or "/".join(str(entry.get("coco_url") or "").split("/")[-2:])
    return posixpath.normpath(name) if isinstance(name, str) and name else ""


def _size(entry: Entry) -> tuple[int, int]:
    """Height and width; 0 for what is no number of pixels."""
    height, width = (
        int(side) if _is_number(side) and side > 0 else 0 for side in (entry.get("height"), entry.get("width"))
    )
    return height, width


def _crowd(entry: Entry) -> bool:
    return bool(entry.get("iscrowd"))


def _objects_by_image(
    entries: list[Any],
    images: Mapping[int | str, Entry],
    categories: tuple[Category, ...],
    problems: AnnotationProblems,
) -> dict[int | str, list[Entry]]:
    known = {category.id for category in categories}
    objects: dict[int | str, list[Entry]] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            problems.add(Problem.BROKEN_BOX, f"entry {number} of `annotations`")
            continue
        image_id, category = entry.get("image_id"), entry.get("category_id")
        where = f"annotation {entry.get('id', f'number {number}')} of image {image_id}"
        if not _is_id(image_id) or image_id not in images:
            problems.add(Problem.UNKNOWN_IMAGE, where)
        elif not _is_id(category) or category not in known:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{where}, category {category}")
        else:
            objects.setdefault(cast(int | str, image_id), []).append(entry)
    return objects


def _image(
    entry: Entry,
    path: Path,
    objects: list[Entry],
    label_of: Mapping[int, int],
    has_masks: bool,
    problems: AnnotationProblems,
) -> ImageAnnotations:
    height, width = _size(entry)
    where = f"image {entry['id']}"
    xywh = np.array([_numbers(found.get("bbox")) for found in objects], np.float64).reshape(-1, 4)
    boxes, kept = usable_boxes(
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), width, height, where, problems
    )
    objects = [objects[index] for index in kept]
    crowd = np.array([_crowd(found) for found in objects], bool)
    if crowd.any():
        problems.add(Problem.CROWD, where, int(crowd.sum()))
    masks: list[Segmentation] | None = None
    if has_masks:
        masks = []
        for found, box in zip(objects, boxes, strict=True):
            mask = usable_segmentation(found.get("segmentation"), height, width)
            if mask is None:
                problems.add(Problem.BROKEN_MASK, f"annotation {found.get('id')} of {where}")
            masks.append(box_outline(box) if mask is None else mask)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [_positive(found.get("area")) or float(w * h) for found, (w, h) in zip(objects, sides, strict=True)]
    return ImageAnnotations(
        entry["id"],
        path,
        width,
        height,
        boxes,
        np.array([label_of[found["category_id"]] for found in objects], np.int64),
        crowd,
        np.array([bool(found.get("difficult")) for found in objects], bool),
        np.array(areas, np.float32),
        masks,
        _labels(entry.get("neg_category_ids"), label_of),
        _labels(entry.get("not_exhaustive_category_ids"), label_of),
    )


def _numbers(bbox: Any) -> list[float]:
    """Four numbers; not-a-number where there are not four."""
    if isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox)):
        return [float(side) for side in bbox]
    return [math.nan] * 4


def _positive(area: Any) -> float | None:
    return float(area) if _is_number(area) and area > 0 else None


def _labels(ids: Any, label_of: Mapping[int, int]) -> frozenset[int]:
    return (
        frozenset(label_of[one] for one in ids if _is_id(one) and one in label_of)
        if isinstance(ids, list)
        else frozenset()
    )


def _style(images: list[Any], objects: Mapping[int | str, list[Entry]]) -> Style:
    if any(isinstance(entry, dict) and "neg_category_ids" in entry for entry in images):
        return "lvis"
    difficult = any("difficult" in entry for found in objects.values() for entry in found)
    return "voc" if difficult else "coco"
