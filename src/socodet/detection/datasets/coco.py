"""COCO's form of annotations, one JSON file, and LVIS's, which adds what of an image is not annotated."""

import json
import math
import posixpath
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import Category, DetectionDataset, Frequency, ImageAnnotations, Style
from socodet.detection.datasets.box_forms import XYWH, WrittenBoxes, check_box_form
from socodet.detection.datasets.folder_listing import FilesThere
from socodet.detection.datasets.masks import Segmentation, box_outline, misses_box, usable_segmentation
from socodet.detection.datasets.problems import AnnotationProblems, Problem, usable_boxes
from socodet.detection.datasets.values import as_id, flag, matching_id, number, pixel_count
from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import image_file_size
from socodet.images.lists import locate_images, spelled_as_in

Entry = Mapping[str, Any]
_Object = tuple[Entry, int]
"""An entry of `annotations` and its label."""


@dataclass(frozen=True)
class _Listed:
    """An entry of `images`."""

    image_id: int | str
    name: str
    height: int
    """0 where the file does not say it, as for the width."""
    width: int
    entry: Entry


def read_coco(file: Path, *, images: Path | None = None, style: Style | None = None) -> DetectionDataset:
    """The images of a COCO or LVIS file, in its order, with their objects.

    `images` is the folder where the file names begin; without it the one that `images.lists.locate_images` finds. LVIS
    v1 names an image by the last two parts of its `coco_url`, `train2017/000000000009.jpg`.

    `style` is inferred from the file if omitted: LVIS's where images have `neg_category_ids`, VOC's where objects
    say whether they are `difficult`, else COCO's.

    InputError when the file is not such a file, when none of its images can be used, or when its boxes are in another
    form; what is wrong with single entries is in the set's `problems`.
    """
    content = _content(file)
    categories = _categories(file, content["categories"])
    problems = AnnotationProblems()
    listed = _usable_images(content["images"], problems)
    if not listed:
        raise InputError(f"{file}: lists no usable image; each needs `id`, `file_name`, `width` and `height`")
    label_of = {category.id: label for label, category in enumerate(categories, 1)}
    objects = _objects_by_image(content["annotations"], {image.image_id for image in listed}, label_of, problems)
    there = [(path, image, objects.get(image.image_id, [])) for path, image in _present(file, images, listed, problems)]
    boxes = [_written_boxes(image, found) for _, image, found in there]
    check_box_form(file, XYWH, boxes)
    has_masks = any(
        not flag(entry.get("iscrowd")) and usable_segmentation(entry.get("segmentation"), image.height, image.width)
        for _, image, found in there
        for entry, _ in found
    )
    read = [
        _image(image, path, written, found, label_of, has_masks, problems)
        for (path, image, found), written in zip(there, boxes, strict=True)
    ]
    style = style or _style(content, problems)
    return DetectionDataset(file.stem, categories, read, has_masks, style, problems)


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
    found = [_category(file, entry) for entry in entries]
    ids = [category.id for category in found]
    if not found or len(set(ids)) < len(ids):
        what = f"has the category id {next(i for i in ids if ids.count(i) > 1)} twice" if ids else "has no category"
        raise InputError(f"{file}: {what}; give each class its own id")
    return tuple(sorted(found, key=lambda category: category.id))


def _category(file: Path, entry: Any) -> Category:
    written = entry if isinstance(entry, dict) else {}
    category_id, name, frequency = number(written.get("id")), written.get("name"), written.get("frequency")
    if not category_id.is_integer() or not isinstance(name, str | int | float) or name == "":
        raise InputError(f"{file}: a category is unusable ({entry!r:.80}); each needs a whole number `id` and a `name`")
    return Category(int(category_id), str(name), cast(Frequency, frequency) if frequency in ("r", "c", "f") else None)


def _usable_images(entries: list[Any], problems: AnnotationProblems) -> list[_Listed]:
    usable: dict[int | str, _Listed] = {}
    for place, entry in enumerate(entries):
        image_id = as_id(entry.get("id")) if isinstance(entry, dict) else None
        name = _file_name(entry) if image_id is not None else ""
        if image_id is None or not name:
            problems.add(Problem.BROKEN_IMAGE_ENTRY, f"entry {place} of `images`")
        elif image_id in usable:
            problems.add(Problem.REPEATED_IMAGE, f"image id {image_id}")
        else:
            sides = pixel_count(entry.get("height")), pixel_count(entry.get("width"))
            usable[image_id] = _Listed(image_id, name, *sides, entry)
            if any(isinstance(entry.get(side), str) for side in ("height", "width")):
                problems.add(Problem.NUMBER_AS_TEXT, f"size of image {image_id}")
    return list(usable.values())


def _file_name(entry: Entry) -> str:
    """Relative to the images' folder; nothing when the entry has none."""
    name = entry.get("file_name") or "/".join(str(entry.get("coco_url") or "").split("/")[-2:])
    return name if isinstance(name, str) else ""


def _objects_by_image(
    entries: list[Any], images: Container[int | str], label_of: Mapping[int, int], problems: AnnotationProblems
) -> dict[int | str, list[_Object]]:
    """The annotations of each listed image, with their labels."""
    objects: dict[int | str, list[_Object]] = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            problems.add(Problem.BROKEN_BOX, f"entry {place} of `annotations`")
            continue
        written = entry.get("image_id"), entry.get("category_id")
        where = f"annotation {entry.get('id', f'number {place}')} of image {written[0]}"
        image_id, category_id = matching_id(written[0], images), matching_id(written[1], label_of)
        if image_id is None:
            problems.add(Problem.UNKNOWN_IMAGE, where)
        elif category_id is None:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{where}, category {written[1]}")
        else:
            if (image_id, category_id) != written:
                problems.add(Problem.NUMBER_AS_TEXT, f"ids of {where}, category {written[1]!r}")
            objects.setdefault(image_id, []).append((entry, label_of[cast(int, category_id)]))
    return objects


def _present(
    file: Path, images: Path | None, listed: Sequence[_Listed], problems: AnnotationProblems
) -> Iterator[tuple[Path, _Listed]]:
    """The images whose files are there, each with its size."""
    names = [image.name for image in listed]
    root, paths = locate_images(file, names) if images is None else (images, spelled_as_in(images, names, file))
    moved = [(name, path) for name, path in zip(names, paths, strict=True) if posixpath.normpath(name) != path]
    if moved:
        problems.add(Problem.NAME_FROM_ELSEWHERE, " is ".join(moved[0]), len(moved))
    root = root.resolve()
    there = FilesThere()
    found = False
    for image, path in zip(listed, (root / path for path in paths), strict=True):
        if path not in there:
            problems.add(Problem.MISSING_IMAGE, str(path))
            continue
        found = True
        if image.height and image.width:
            yield path, image
            continue
        try:
            width, height = image_file_size(path)
        except (OSError, UnreadableImageError) as error:
            problems.add(Problem.BROKEN_IMAGE, f"{path}: {error}")
            continue
        problems.add(Problem.SIZE_FROM_FILE, f"image {image.image_id}, {path.name}")
        yield path, replace(image, height=height, width=width)
    if not found:
        raise InputError(f"{file}: none of its {len(listed)} images is in {root}; name their folder")


def _written_boxes(image: _Listed, objects: Sequence[_Object]) -> WrittenBoxes:
    numbers = np.array([_numbers(entry.get("bbox")) for entry, _ in objects], np.float64).reshape(-1, 4)
    return WrittenBoxes(numbers, image.width, image.height, f"image {image.image_id}")


def _image(
    image: _Listed,
    path: Path,
    written: WrittenBoxes,
    objects: Sequence[_Object],
    label_of: Mapping[int, int],
    has_masks: bool,
    problems: AnnotationProblems,
) -> ImageAnnotations:
    where, xywh = written.where, written.numbers
    boxes, kept = usable_boxes(
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), image.width, image.height, where, problems
    )
    entries, labels = [objects[index][0] for index in kept], [objects[index][1] for index in kept]
    as_text = sum(any(isinstance(side, str) for side in entry["bbox"]) for entry in entries)
    if as_text:
        problems.add(Problem.NUMBER_AS_TEXT, f"box of {where}", as_text)
    crowd = _flags(entries, "iscrowd", where, problems)
    if crowd.any():
        problems.add(Problem.CROWD, where, int(crowd.sum()))
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [_positive(entry.get("area")) or float(w * h) for entry, (w, h) in zip(entries, sides, strict=True)]
    return ImageAnnotations(
        image.image_id,
        path,
        image.width,
        image.height,
        boxes,
        np.array(labels, np.int64),
        crowd,
        _flags(entries, "difficult", where, problems),
        np.array(areas, np.float32),
        [_mask(entry, box, image, where, problems) for entry, box in zip(entries, boxes, strict=True)]
        if has_masks
        else None,
        _labels(image.entry.get("neg_category_ids"), label_of),
        _labels(image.entry.get("not_exhaustive_category_ids"), label_of),
    )


def _numbers(bbox: Any) -> list[float]:
    """Four numbers; not-a-number where there are not four."""
    return [number(side) for side in bbox] if isinstance(bbox, list) and len(bbox) == 4 else [math.nan] * 4


def _flags(entries: Sequence[Entry], name: str, where: str, problems: AnnotationProblems) -> NDArray[np.bool_]:
    flags = [flag(entry.get(name)) for entry in entries]
    if None in flags:
        unclear = entries[flags.index(None)]
        problems.add(
            Problem.UNCLEAR_FLAG,
            f"{name} {unclear[name]!r:.40} of annotation {unclear.get('id')} of {where}",
            flags.count(None),
        )
    return np.array([one is True for one in flags], bool)


def _mask(
    entry: Entry, box: NDArray[np.float32], image: _Listed, where: str, problems: AnnotationProblems
) -> Segmentation:
    mask = usable_segmentation(entry.get("segmentation"), image.height, image.width)
    if mask is not None and not misses_box(mask, box):
        return mask
    problem = Problem.BROKEN_MASK if mask is None else Problem.MASK_ELSEWHERE
    problems.add(problem, f"annotation {entry.get('id')} of {where}")
    return box_outline(box)


def _positive(area: Any) -> float | None:
    found = number(area)
    return found if found > 0 else None


def _labels(ids: Any, label_of: Mapping[int, int]) -> frozenset[int]:
    found = [matching_id(one, label_of) for one in ids] if isinstance(ids, list) else []
    return frozenset(label_of[cast(int, one)] for one in found if one is not None)


def _style(content: Mapping[str, list[Any]], problems: AnnotationProblems) -> Style:
    fields = {
        "neg_category_ids": content["images"],
        "not_exhaustive_category_ids": content["images"],
        "frequency": content["categories"],
    }
    there = {name: any(isinstance(entry, dict) and name in entry for entry in fields[name]) for name in fields}
    lvis = there["neg_category_ids"]
    if any(there.values()) and not all(there.values()):
        missing = ", ".join(name for name in there if not there[name])
        problems.add(Problem.PARTLY_LVIS, f"without {missing}, scored by {'LVIS' if lvis else 'COCO'}'s rules")
    if lvis:
        return "lvis"
    difficult = any(isinstance(entry, dict) and "difficult" in entry for entry in content["annotations"])
    return "voc" if difficult else "coco"
