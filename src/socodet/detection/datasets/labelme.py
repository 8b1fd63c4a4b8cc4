"""Reads LabelMe's JSON files: one per image, with the shapes drawn on it. X-AnyLabeling writes them, too."""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotation_files import FileFormat, ImageFile, PerImageDataset, files_by_split
from socodet.detection.datasets.annotations import Category, DetectionDataset
from socodet.detection.datasets.areas import BROKEN, Area, bounds, joined_entry, outlined
from socodet.detection.datasets.box_forms import check_box_form
from socodet.detection.datasets.entries import FoundImage, LabelledEntry, ListedImage, dataset_from_entries
from socodet.detection.datasets.headers import Size, size_mismatch, sizes_of
from socodet.detection.datasets.masks import placed_mask
from socodet.detection.datasets.problems import LEAST_SIDE, AnnotationProblems, Problem
from socodet.detection.datasets.splits import split_name
from socodet.detection.datasets.values import as_id, flag, number, pixel_count
from socodet.errors import InputError, UnreadableImageError
from socodet.images.file_header import image_file_size
from socodet.images.opening import open_with_pillow
from socodet.images.reading import requested_reading
from socodet.runtime.files import parse_json, read_user_file
from socodet.runtime.notices import notice
from socodet.runtime.threads import map_files

IGNORED, BACKGROUND = "__ignore__", "_background_"
OUTLINES = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")
"""Shape types whose points are the corners of an outline; `rotation` and `quadrilateral` are X-AnyLabeling's."""
AREAS = ("rectangle", "circle", "mask", *OUTLINES)


class _Shape(NamedTuple):
    id: str
    label: str
    type: str
    points: NDArray[np.float64]
    """(P, 2); empty if they are unusable."""
    group: int | str | None
    """Shapes with the same group and label are one object."""
    mask: Any


class _Written(NamedTuple):
    """The content of an image's annotation file."""

    file: ImageFile
    shapes: Sequence[_Shape]
    size: tuple[int, int]
    """Width and height; 0 if they are missing."""
    named: str
    """The name of the image in the file."""
    ignored: bool


def read_labelme_set(described: PerImageDataset, split: str) -> DetectionDataset:
    """The images of a split with their objects. The classes are those of all splits, sorted by name.

    InputError if no shape has a label, if no image can be used, or if the points are fractions of the image.
    """
    problems = AnnotationProblems()
    root = described.root
    written: list[_Written] = []
    shapes: list[_Shape] = []
    for one, files in files_by_split(described, split, problems).items():
        for read in map_files(_read_or_error, files, lambda file: str(file.path)):
            if isinstance(read, InputError):
                if one == split:
                    problems.add(Problem.BROKEN_ANNOTATION_FILE, str(read))
                continue
            shapes += [shape._replace(points=shape.points[:0], mask=None) for shape in read.shapes]
            written += [read] if one == split else []
    classes = sorted({shape.label for shape in shapes if shape.type in AREAS} - {"", IGNORED, BACKGROUND})
    if not classes:
        raise InputError(f"{root}: no JSON file in it has a labelled shape with an area; draw boxes or polygons")
    _note_numbered_labels(root, classes)
    label_of = {name: label for label, name in enumerate(classes, 1)}
    sizes = sizes_of([one.file.image for one in written], image_file_size)
    found = [
        image for one, size in zip(written, sizes, strict=True) if (image := _image(one, size, label_of, problems))
    ]
    if not found:
        raise InputError(f"{root}: none of its images can be used: {'; '.join(problems.lines()) or 'there is none'}")
    fix = "multiply the points by its width and height"
    check_box_form(root, "xyxy", [image.written_boxes for image in found], fix)
    categories = tuple(Category(label, name) for name, label in label_of.items())
    return dataset_from_entries(split_name(root, split), categories, found, "coco", "xyxy", problems, root)


def is_labelme(file: Path) -> bool:
    """Whether a file is a LabelMe file."""
    try:
        return bool(_content(file))
    except InputError:
        return False


def _content(file: Path) -> Mapping[str, Any]:
    content = parse_json(file, read_user_file(file), "save it in LabelMe again")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise InputError(f"{file}: is not a LabelMe file; it has no list `shapes`")
    return content


def _read_or_error(file: ImageFile) -> _Written | InputError:
    try:
        return _read(file)
    except InputError as error:
        return error


def _read(file: ImageFile) -> _Written:
    content = _content(file.path)
    flags = content.get("flags")
    shapes = [_shape(one, f"shapes[{place}]") for place, one in enumerate(content["shapes"])]
    size = pixel_count(content.get("imageWidth")), pixel_count(content.get("imageHeight"))
    ignored = isinstance(flags, dict) and flag(flags.get(IGNORED)) is True
    return _Written(file, shapes, size, _image_path(content).name, ignored)


def _image_path(content: Mapping[str, Any]) -> PureWindowsPath:
    return PureWindowsPath(str(content.get("imagePath") or "").strip())


def _image_name_in(file: Path) -> tuple[str, str]:
    try:
        named = _image_path(_content(file))
    except InputError:
        return "", ""
    return named.name, named.parent.name


def _shape(written: Any, shape_id: str) -> _Shape:
    """A shape as read. Before version 3, LabelMe wrote no type; all shapes were polygons."""
    shape = written if isinstance(written, dict) else {}
    label, points = shape.get("label"), shape.get("points")
    name = "" if label is None or isinstance(label, list | dict) else str(label).strip()
    pairs = points if isinstance(points, list) else []
    usable = all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
    numbers = np.array([[number(side) for side in pair] for pair in pairs] if usable else [], np.float64).reshape(-1, 2)
    type_ = str(shape.get("shape_type") or "polygon")
    finite = numbers if np.isfinite(numbers).all() else numbers[:0]
    return _Shape(shape_id, name, type_, finite, as_id(shape.get("group_id")), shape.get("mask"))


def _note_numbered_labels(root: Path, classes: Sequence[str]) -> None:
    """Prints a note on labels such as cat-1: before 4.0, LabelMe joined parts of an object by numbers, not groups."""
    of_base: dict[str, list[str]] = {}
    for name in classes:
        numbered = re.fullmatch(r"(.*\S)-\d+", name)
        if numbered:
            of_base.setdefault(numbered[1], []).append(name)
    several = next((names for names in of_base.values() if len(names) > 1), None)
    if several:
        notice(
            f"{root}: {several[0]} and {several[1]} are read as two classes; if the numbers count objects of one "
            "class, as in LabelMe before 4.0, remove them from the labels"
        )


def _image(
    written: _Written,
    size: Size | OSError | UnreadableImageError,
    label_of: Mapping[str, int],
    problems: AnnotationProblems,
) -> FoundImage | None:
    file, image = written.file, written.file.image
    if written.ignored:
        problems.add(Problem.IGNORED, f"{file.path}, flags")
        return None
    file.count_other_name(written.named, problems)
    if isinstance(size, OSError | UnreadableImageError):
        problems.add(Problem.BROKEN_IMAGE, f"{image}: {size}")
        return None
    width, height = size
    if not all(written.size):
        problems.add(Problem.SIZE_FROM_FILE, str(file.path))
    elif written.size != (width, height):
        problems.add(Problem.BROKEN_IMAGE, f"{image}: {size_mismatch(size, written.size)}")
        return None
    of_object: dict[tuple[str, int | str | None, str], list[Area]] = {}
    first: dict[tuple[str, int | str | None, str], str] = {}
    for shape in written.shapes:
        where = f"{file.path}, {shape.id}"
        area = _area(shape, width, height)
        if shape.label in (IGNORED, BACKGROUND):
            problems.add(Problem.IGNORED, f"{where}, {shape.label}")
        elif area is None or area.area < LEAST_SIDE**2:
            problems.add(Problem.NO_AREA, f"{where}, {shape.type}")
        elif shape.label not in label_of:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{where}, without a label")
        else:
            key = shape.label, shape.group, shape.id if shape.group is None else ""
            of_object.setdefault(key, []).append(area)
            first.setdefault(key, shape.id)
    objects: list[LabelledEntry] = [
        (joined_entry(areas, first[key], width, height), label_of[key[0]]) for key, areas in of_object.items()
    ]
    annotated = any(shape.label not in (IGNORED, BACKGROUND) for shape in written.shapes)
    return FoundImage(image, ListedImage(file.image_id, image.name, height, width, {}), objects, annotated)


def _area(shape: _Shape, width: int, height: int) -> Area | None:
    """The area of a shape; None for points, lines, too few points, and unknown types."""
    points, count = shape.points, len(shape.points)
    if shape.type == "circle" and count == 2:
        return _circle(points)
    if shape.type in OUTLINES and count > 2:
        return outlined(points)
    if shape.type == "mask" and count == 2:
        return _mask(shape, width, height)
    if shape.type == "rectangle" and count > 1:  # LabelMe writes two corners in any order, X-AnyLabeling all four
        box = bounds(points)
        return Area(box, float((box[2:] - box[:2]).prod()))
    return None


def _circle(points: NDArray[np.float64]) -> Area:
    """A circle from its centre and a point on it; the polygon stays within a quarter of a pixel of the circle."""
    centre, radius = points[0], float(np.hypot(*(points[1] - points[0])))
    corners = max(12, int(np.ceil(np.pi * np.sqrt(2 * min(radius, 1e5)))))
    angles = 2 * np.pi / corners * np.arange(corners)
    outline = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    return Area(np.concatenate([centre - radius, centre + radius]), float(np.pi * radius**2), outline.reshape(-1))


def _mask(shape: _Shape, width: int, height: int) -> Area:
    """A mask from a PNG of its box; the points are the first and the last pixel of the box."""
    low, high = bounds(np.round(shape.points)).reshape(2, 2).astype(np.int64)
    box = np.concatenate([low, high + 1]).astype(np.float64)
    try:
        with open_with_pillow(base64.b64decode(shape.mask), ("PNG",), requested_reading().reading.max_pixels) as image:
            if (np.abs(image.size - (high - low + 1)) > 1).any():  # rounding may shift one of them by a pixel
                raise ValueError
            patch = np.array(image) > 0
        if patch.ndim != 2:
            raise ValueError
    except (OSError, ValueError, TypeError, SyntaxError, UnreadableImageError):
        return Area(box, float((box[2:] - box[:2]).prod()), mask=BROKEN)
    columns, rows = np.flatnonzero(patch.any(0)), np.flatnonzero(patch.any(1))
    if not len(rows):
        return Area(box, 0)
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + np.tile(low, 2)
    return Area(box.astype(np.float64), float(patch.sum()), mask=placed_mask(patch, low.tolist(), height, width))


LABELME = FileFormat(
    ".json",
    ("annotations", "annotation", "annots", "anns", "ann", "labels", "label", "json", "jsons"),
    is_labelme,
    _image_name_in,
)
