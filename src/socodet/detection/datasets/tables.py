"""Reads tables of boxes: CSV files with one box per line, as Roboflow and tutorials of TensorFlow and Keras write."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path, PureWindowsPath
from typing import Any

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.beginning import beginning_of
from socodet.detection.datasets.box_forms import BoxForm
from socodet.detection.datasets.coco import Content, read_content
from socodet.detection.datasets.folder_listing import folder_listings
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.values import number, pixel_count
from socodet.errors import InputError
from socodet.images.lists import read_text
from socodet.images.suffixes import SUFFIXES

SIDES = ("x1", "y1", "x2", "y2")
COLUMNS = {
    "image": ("filename", "imagename", "imagepath", "image", "imgname", "img", "filepath", "path", "file", "imageid"),
    "class": ("class", "classname", "label", "labelname", "category", "categoryname"),
    "x1": ("xmin", "x1", "x"),
    "y1": ("ymin", "y1", "y"),
    "x2": ("xmax", "x2", "w"),
    "y2": ("ymax", "y2", "h"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
}
"""Names that columns may have, in any case, with spaces or underscores."""
OBJECT = ("class", *SIDES)
"""Columns that are empty in the line of an image without objects."""
EMPTY = ("", "nan", "none", "null")
"""How programs write an empty cell, in any case."""
REQUIRED = ("image", *OBJECT)
WITHOUT_HEADER = (("image", *SIDES, "class"), ("image", *SIDES, "class", "width", "height"))
"""Columns of tables without a header: those of keras-retinanet, and of SKU-110K."""


def is_table(file: Path) -> bool:
    """Whether a file begins like a table of boxes."""
    first = _first_line(file)
    return _columns(_cells(first), _delimiter(first)) is not None


def lacking_columns(file: Path) -> list[str]:
    """The columns that the first line of a file lacks, by their usual names, if it has others that a table needs."""
    names = {_plain_name(cell) for cell in _cells(_first_line(file))}
    lacking = [column for column in REQUIRED if not names.intersection(COLUMNS[column])]
    return [COLUMNS[column][0] for column in lacking] if len(lacking) < len(REQUIRED) else []


def _first_line(file: Path) -> str:
    return re.split("[\r\n]", beginning_of(file).decode(errors="replace").lstrip(" \r\n"))[0]


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], delimiter=_delimiter(line)))


def read_table(
    file: Path,
    *,
    siblings: Sequence[Path] = (),
    images: Path | None = None,
    form: BoxForm | None = None,
    name: str | None = None,
) -> DetectionDataset:
    """The images of a table with their objects. The classes are those of `siblings`, too, sorted by name.

    The other arguments, and the errors, are as for `read_coco`; boxes are corners unless `form` says otherwise, as it
    must for columns x, y, w and h.
    """
    columns = {_plain_name(cell) for cell in _cells(_first_line(file))}
    if form is None and "w" in columns and columns.isdisjoint(COLUMNS["x2"][:2]):
        raise InputError(
            f"{file}: its columns x and y may be a box's corner or its centre; give --box-form xywh or cxcywh"
        )
    rows = list(_rows(file))
    others = [row for sibling in siblings if sibling != file for _, row in _rows(sibling)]
    classes = sorted({row["class"] for row in [*(row for _, row in rows), *others]} - {""})
    if not rows or not classes:
        raise InputError(f"{file}: has no line of a box and its class; give a table that has one")
    id_of = {one: number for number, one in enumerate(classes, 1)}
    entries: dict[str, Mapping[str, Any]] = {}
    annotations: list[Mapping[str, Any]] = []
    for line, row in rows:
        sides = {side: pixel_count(row[side]) for side in ("width", "height") if side in row}
        entries.setdefault(row["image"], {"id": row["image"], "file_name": row["image"]} | sides)
        if any(row[column] for column in OBJECT):
            box = [number(row[side]) for side in SIDES]
            known = {"image_id": row["image"], "category_id": id_of.get(row["class"])}
            annotations.append({"id": f"in line {line}", "bbox": box} | known)
    lists: dict[str, list[Any]] = {
        "images": list(entries.values()),
        "annotations": annotations,
        "categories": [{"id": one, "name": name} for name, one in id_of.items()],
    }
    content = Content(lists, "xyxy", sized="width" in rows[0][1])
    dataset = read_content(file, content, images=images, form=form, name=name)
    _count_unlisted(file, dataset, {PureWindowsPath(row["image"]).name for row in others}, content.problems)
    return dataset


def _count_unlisted(file: Path, dataset: DetectionDataset, elsewhere: Set[str], problems: AnnotationProblems) -> None:
    """Counts images in the folder of the table that no table names, if those that it names are all in this folder."""
    listed = {image.file for image in dataset.images}
    if {image.parent for image in listed} == {file.absolute().parent.resolve()}:
        names = sorted(folder_listings().names(file.parent) - {image.name for image in listed} - elsewhere)
        beside = [name for name in names if name.lower().endswith(SUFFIXES)]
        if beside:
            problems.add(Problem.UNLISTED_IMAGE, str(file.parent / beside[0]), len(beside))


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number and cells of each line, by column. InputError if it is not a table of boxes."""
    lines = read_text(file).split("\n")
    first = next(filter(str.strip, lines), "")
    delimiter = _delimiter(first)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    columns: Mapping[str, int] | None = None
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            if columns is None:
                columns = _columns(row, delimiter)
                if columns is None:
                    raise InputError(
                        f"{file}: is not a table of boxes ({first:.80}); its first line must name the columns "
                        "filename, class, xmin, ymin, xmax and ymax"
                    )
                if not _is_box_line(row, delimiter):
                    continue
            found = {name: row[at] if at < len(row) else "" for name, at in columns.items()}
            if all(found[column].lower() in EMPTY for column in OBJECT):
                found |= dict.fromkeys(OBJECT, "")
            yield reader.line_num, found | {side: _with_point(found[side], delimiter) for side in SIDES}
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num} is not one of a table ({error}); correct it") from None


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _with_point(cell: str, delimiter: str) -> str:
    """A number with a point, not a comma, before its fraction; only between semicolons is it not ambiguous."""
    return cell.replace(",", ".") if delimiter == ";" and re.fullmatch(r"-?\d+,\d+", cell) else cell


def _columns(row: Sequence[str], delimiter: str) -> dict[str, int] | None:
    """The column of each value, from the first line of a table; None if that is not a table of boxes."""
    names = [_plain_name(cell) for cell in row]
    first = {key: next((name for name in known if name in names), None) for key, known in COLUMNS.items()}
    found = {key: names.index(name) for key, name in first.items() if name is not None}
    if all(key in found for key in REQUIRED):
        return found
    if _is_box_line(row, delimiter):
        return {key: at for columns in WITHOUT_HEADER if len(columns) == len(row) for at, key in enumerate(columns)}
    return None


def _plain_name(cell: str) -> str:
    return re.sub("[^a-z0-9]", "", cell.lower())


def _is_box_line(row: Sequence[str], delimiter: str) -> bool:
    """Whether a line has the columns of a table without a header, and a box or none."""
    box = [_with_point(cell.strip(), delimiter) for cell in row[1:5]]
    fits = len(row) in map(len, WITHOUT_HEADER) and row[0].strip().lower().endswith(SUFFIXES)
    return fits and (not any(box) or all(number(cell) == number(cell) for cell in box))
