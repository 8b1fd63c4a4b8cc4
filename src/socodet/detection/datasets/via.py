"""Reads the JSON files of the VGG Image Annotator (VIA, versions 1 and 2): regions drawn on the images of a folder."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.areas import ellipse
from socodet.detection.datasets.beginning import beginning_of
from socodet.detection.datasets.coco import Content, read_content
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.values import flag, number
from socodet.errors import InputError
from socodet.runtime.files import parse_json, read_user_file
from socodet.runtime.notices import notice

USUAL = "via_region_data.json"
"""The name of most of these files."""
CLASS = ("class", "label", "category", "name", "type", "object")
"""Attributes of regions that may be the class if there are several."""
ONLY_CLASS = "object"
"""The class of regions without attributes."""
CLOSED = 0.1
"""A line whose ends are at most this share of its extent apart is an outline, as some draw them instead of polygons."""


def is_via(file: Path) -> bool:
    """Whether a file begins like one of VIA."""
    beginning = beginning_of(file)
    return b'"_via_img_metadata"' in beginning or all(
        re.search(rb'"%s"\s*:' % name, beginning) for name in (b"filename", b"regions", b"(file|shape)_attributes")
    )


def read_via(
    file: Path, *, siblings: Sequence[Path] = (), images: Path | None = None, name: str | None = None
) -> DetectionDataset:
    """The images of a VIA file with their regions. The classes are those of `siblings`, too, sorted by name.

    The other arguments, and the errors, are as for `read_coco`. InputError also if it is unclear which attribute of the
    regions is their class.
    """
    entries = _entries(file)
    every = [*entries.values(), *(one for other in siblings if other != file for one in _entries(other).values())]
    regions = [region for entry in every for region in _regions(entry)]
    attribute = _class_attribute(file, regions)
    classes = sorted({_class(region, attribute) for region in regions} - {""})
    if not classes:
        raise InputError(f"{file}: no region in it has a class; draw boxes or polygons, and give them an attribute")
    id_of = {one: place for place, one in enumerate(classes, 1)}
    listed = [{"id": key, "file_name": entry.get("filename")} for key, entry in entries.items()]
    annotations: list[Mapping[str, Any]] = []
    problems = AnnotationProblems()
    for key, entry in entries.items():
        for place, region in enumerate(_regions(entry)):
            area = _area(region.get("shape_attributes"))
            if area is None:
                problems.add(Problem.NO_AREA, f"regions[{place}] of image {key}")
                continue
            known = {"id": f"regions[{place}]", "image_id": key, "category_id": id_of.get(_class(region, attribute))}
            annotations.append(known | area)
    lists: dict[str, list[Any]] = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": one, "name": name} for name, one in id_of.items()],
    }
    annotated = frozenset(key for key, entry in entries.items() if _regions(entry))
    fix = "multiply the coordinates by its width and height"
    content = Content(lists, fix=fix, sized=False, annotated=annotated, problems=problems)
    return read_content(file, content, images=images, name=name)


def _entries(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """The entries of images."""
    content = parse_json(file, read_user_file(file), "export it from VIA again")
    found = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not all(isinstance(one, dict) and "regions" in one for one in found.values()):
        raise InputError(f"{file}: is not a file of VIA's versions 1 or 2; each image needs `regions`")
    return found


def _regions(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The regions of an image; version 1 numbers them."""
    regions = entry["regions"]
    found = list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else []
    return [one for one in found if isinstance(one, dict)]


def _class_attribute(file: Path, regions: Sequence[Mapping[str, Any]]) -> str | None:
    """The attribute that is the class: the only one, or the one that is called like a class; None without any."""
    used = list(
        dict.fromkeys(name for region in regions for name, value in _attributes(region).items() if _text(value))
    )
    named = [name for name in used if name.strip().lower() in CLASS]
    found = named if len(named) == 1 else used
    if len(found) > 1:
        raise InputError(
            f"{file}: its regions have the attributes {', '.join(used)}; call the one that is the class `class`"
        )
    if len(used) > 1:
        notice(f"{file}: its regions have the attributes {', '.join(used)}; {found[0]} is read as the class")
    if regions and not used:
        notice(f"{file}: its regions have no attribute, so they are read as one class, {ONLY_CLASS!r}")
    return found[0] if found else None


def _class(region: Mapping[str, Any], attribute: str | None) -> str:
    return ONLY_CLASS if attribute is None else _text(_attributes(region).get(attribute))


def _attributes(region: Mapping[str, Any]) -> Mapping[str, Any]:
    written = region.get("region_attributes")
    return written if isinstance(written, dict) else {}


def _text(value: Any) -> str:
    """The value of an attribute; that of checkboxes if one is ticked, otherwise empty."""
    if isinstance(value, dict):
        ticked = [name for name, one in value.items() if flag(one)]
        return ticked[0].strip() if len(ticked) == 1 else ""
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _area(shape: Any) -> dict[str, Any] | None:
    """The box, and the outline unless it is a rectangle, as in COCO; None for a point, a line or an unknown shape."""
    written = shape if isinstance(shape, dict) else {}
    kind = written.get("name")
    if kind == "rect":
        return {"bbox": [number(written.get(side)) for side in ("x", "y", "width", "height")]}
    points = _ellipse(written) if kind in ("circle", "ellipse") else _corners(written)
    if len(points) < 3 or not np.isfinite(points).all():
        return None
    low, high = points.min(0), points.max(0)
    if kind == "polyline" and np.hypot(*(points[-1] - points[0])) > CLOSED * (high - low).max():
        return None
    x, y = points.T
    covered = float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
    box = [*low.tolist(), *(high - low).tolist()]
    return {"bbox": box, "segmentation": [points.reshape(-1).tolist()], "area": covered or None}


def _corners(written: Mapping[str, Any]) -> NDArray[np.float64]:
    """The points of a polygon or a line; empty for anything else."""
    axes = [written.get("all_points_x"), written.get("all_points_y")]
    x, y = ([number(one) for one in points] if isinstance(points, list) else [] for points in axes)
    return np.array([x, y], np.float64).T if len(x) == len(y) else np.empty((0, 2))


def _ellipse(written: Mapping[str, Any]) -> NDArray[np.float64]:
    """The outline of an ellipse, whose rotation is in radians, or of a circle."""
    names = ("cx", "cy", "r", "r") if written["name"] == "circle" else ("cx", "cy", "rx", "ry")
    x, y, wide, high = (number(written.get(name)) for name in names)
    return ellipse(x, y, wide, high, number(written.get("theta", 0)))
