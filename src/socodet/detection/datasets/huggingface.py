"""Reads datasets written by Hugging Face's `Dataset.save_to_disk`: Arrow files with a column of objects."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from socodet.detection.datasets.annotations import Category, DetectionDataset, Style
from socodet.detection.datasets.box_forms import FORMS, BoxForm, WrittenBoxes, check_box_form, find_box_form
from socodet.detection.datasets.entries import (
    Entry,
    FoundImage,
    LabelledEntry,
    ListedImage,
    dataset_from_entries,
    in_pixels,
    note_voc_scoring,
)
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.values import as_id, number, pixel_count
from socodet.errors import InputError, UnreadableImageError
from socodet.images.dataset_split import DatasetSplit, dataset_facts, open_dataset, saved_tables
from socodet.images.decode import image_size
from socodet.runtime.notices import notice

OBJECTS = ("objects", "annotations", "annotation")
BOXES = ("bbox", "bboxes", "boxes", "box")
CLASSES = ("category", "categories", "category_id", "label", "labels", "class", "classes", "class_id")
ALSO_READ = ("area", "iscrowd", "difficult", "segmentation")
"""Further fields of an object, with the same meaning as in COCO's files."""
ROWS = 1000
"""Number of rows read at a time."""


@dataclass(frozen=True)
class _Columns:
    """The columns that hold a split's objects."""

    objects: str | None
    """None if boxes and classes are columns themselves."""
    box: str
    category: str
    names: Sequence[str] | None
    """Class names, if the features hold them."""


def read_saved_split(folder: Path, siblings: Sequence[Path] = (), form: BoxForm | None = None) -> DetectionDataset:
    """The rows of a saved split with their objects; an image's id is its `image_id`, otherwise its row number.

    `form` is the meaning of a box's four numbers; by default the form that fits this split and the first rows of its
    `siblings`, since one split may be small. InputError if it cannot be determined, or if the split lacks a column of
    images, boxes or classes.
    """
    problems = AnnotationProblems()
    categories, found = _read(folder, problems)
    boxes = [image.written_boxes for image in found]
    if form is None:
        others = [sibling for sibling in siblings if sibling != folder]
        boxes += [boxes_of for sibling in others for boxes_of in _first_boxes(sibling)]
        form = find_box_form(folder, boxes)
        count = sum(len(image.numbers) for image in boxes)
        notice(
            f"{folder}: its boxes{', with those of the other splits,' if others else ''} fit {FORMS[form]} ({count:,} "
            "compared), and are read as such; --box-form sets another form"
        )
    else:
        check_box_form(folder, form, boxes, "give another --box-form", asked=True)
    difficult = any(entry.get("difficult") is not None for image in found for entry, _ in image.objects)
    if difficult:
        note_voc_scoring(folder)
    style: Style = "voc" if difficult else "coco"
    return dataset_from_entries(
        folder.absolute().name, categories, in_pixels(found, form), style, form, problems, folder
    )


def _first_boxes(folder: Path) -> list[WrittenBoxes]:
    try:
        return [image.written_boxes for image in _read(folder, AnnotationProblems(), ROWS)[1]]
    except InputError:  # reported when that split is read; a test split may have no objects
        return []


def _read(
    folder: Path, problems: AnnotationProblems, most: int | None = None
) -> tuple[tuple[Category, ...], list[FoundImage]]:
    """The classes, and the images (at most `most`)."""
    source = open_dataset(folder)
    columns = _columns(folder, dataset_facts(folder, "dataset_info.json", "features"))
    rows = list(islice(_rows(folder, columns), most))
    objects = [_objects(row, columns, f"row {place}", problems) for place, row in enumerate(rows)]
    categories = _categories(folder, columns, [one for found in objects for one in found])
    label_of = {category.name: label for label, category in enumerate(categories, 1)}
    ids = [as_id(row.get("image_id")) for row in rows]
    own_ids = None not in ids and len(set(ids)) == len(ids)
    found = []
    for place, (row, entries) in enumerate(zip(rows, objects, strict=True)):
        size = _size(source, place, row, problems)
        if size is None:
            continue
        labelled = list(_labelled(entries, columns, label_of, problems))
        name = source.key(place)
        listed = ListedImage(ids[place] if own_ids else place, name, size[1], size[0], {}, (source, place))  # type: ignore[arg-type]
        found.append(FoundImage(folder.absolute() / name, listed, labelled, annotated=bool(entries)))
    if not found:
        raise InputError(f"{folder}: none of its images can be used: {'; '.join(problems.lines())}")
    return categories, found


def _columns(folder: Path, features: Any) -> _Columns:
    features = features if isinstance(features, dict) else {}
    column = next((name for name in OBJECTS if name in features), None)
    fields = features if column is None else _inner(features[column])
    fields = fields if isinstance(fields, dict) else {}
    box, category = (next((name for name in names if name in fields), None) for names in (BOXES, CLASSES))
    if box is None or category is None:
        inside = f", and {column} holds {', '.join(fields) or 'nothing'}" if column else ""
        if "dtype" in fields:
            inside = f", and {column} is a column of {fields['dtype']}, not of lists"
        raise InputError(
            f"{folder}: has no objects with a `bbox` and a `category`; its columns are "
            f"{', '.join(features) or 'none'}{inside}"
        )
    return _Columns(column, box, category, _class_names(fields[category]))


def _inner(feature: Any) -> Any:
    """The feature of a list's items, in any of the forms that versions of the library write."""
    while isinstance(feature, list) or (isinstance(feature, dict) and "_type" in feature and "feature" in feature):
        feature = (feature or [None])[0] if isinstance(feature, list) else feature["feature"]
    return feature


def _class_names(feature: Any) -> list[str] | None:
    feature = _inner(feature)
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _rows(folder: Path, columns: _Columns) -> Iterator[Mapping[str, Any]]:
    wanted = [columns.objects] if columns.objects else [columns.box, columns.category, *ALSO_READ]
    for table in saved_tables(folder):
        there = [name for name in (*wanted, "image_id", "width", "height") if name in table.column_names]
        for batch in table.select(there).to_batches(max_chunksize=ROWS):
            try:
                yield from batch.to_pylist()
            except (pa.ArrowException, ValueError) as error:
                reason = " ".join(str(error).split())
                raise InputError(f"{folder}: has rows that cannot be read ({reason}); save it again") from None


def _objects(row: Mapping[str, Any], columns: _Columns, where: str, problems: AnnotationProblems) -> list[Entry]:
    """A row's objects as entries; rows store them as a list of objects, or as one list per field."""
    written = row.get(columns.objects) if columns.objects else row
    if isinstance(written, list):
        found = [one if isinstance(one, dict) else {} for one in written]
    elif isinstance(written, dict):
        lists = {name: one for name, one in written.items() if isinstance(one, list)}
        boxes, classes = (lists.get(name) or [] for name in (columns.box, columns.category))
        if len(boxes) != len(classes):
            problems.add(Problem.BROKEN_BOX, f"{where}: {len(boxes)} boxes and {len(classes)} classes")
            return []
        whole = {name: one for name, one in lists.items() if len(one) == len(boxes)}
        found = [{name: one[place] for name, one in whole.items()} for place in range(len(boxes))]
    else:
        if written is not None:
            problems.add(Problem.BROKEN_BOX, f"{where}: {columns.objects} is neither a list nor a dict of lists")
        return []
    return [one | {"id": f"{place} of {where}"} for place, one in enumerate(found)]


def _categories(folder: Path, columns: _Columns, objects: Sequence[Entry]) -> tuple[Category, ...]:
    if columns.names:
        names = list(columns.names)
        if len(set(names)) < len(names):
            raise InputError(f"{folder}: two of its classes have the same name; rename one")
        return tuple(Category(place, name) for place, name in enumerate(names))
    written = [one.get(columns.category) for one in objects]
    numbers = sorted({one for one in map(as_id, written) if isinstance(one, int) and one >= 0})
    if numbers:
        notice(f"{folder}: its features do not name the classes, so their numbers serve as names")
    names = [*map(str, numbers), *sorted({one for one in written if isinstance(one, str) and one})]
    if not names:
        raise InputError(f"{folder}: no object has a class; check its column {columns.category}")
    return tuple(Category(place, name) for place, name in enumerate(dict.fromkeys(names)))


def _labelled(
    entries: Sequence[Entry], columns: _Columns, label_of: Mapping[str, int], problems: AnnotationProblems
) -> Iterator[LabelledEntry]:
    for entry in entries:
        written = entry.get(columns.category)
        known = written
        if isinstance(written, int | float) and columns.names:
            place = number(written)
            known = columns.names[int(place)] if place.is_integer() and 0 <= place < len(columns.names) else None
        label = None if as_id(known) is None else label_of.get(str(as_id(known)))
        if label is None:
            problems.add(Problem.UNKNOWN_CATEGORY, f"object {entry['id']}, category {written!r:.40}")
        else:
            more = {name: entry[name] for name in ALSO_READ if name in entry}
            yield {"id": entry["id"], "bbox": entry.get(columns.box), **more}, label


def _size(
    source: DatasetSplit, place: int, row: Mapping[str, Any], problems: AnnotationProblems
) -> tuple[int, int] | None:
    """Width and height from the row, otherwise from the image; None if the image cannot be read."""
    width, height = pixel_count(row.get("width")), pixel_count(row.get("height"))
    if width and height:
        return width, height
    try:
        return image_size(source.read(place))
    except (OSError, UnreadableImageError) as error:
        problems.add(Problem.BROKEN_IMAGE, f"row {place}: {error}")
        return None
