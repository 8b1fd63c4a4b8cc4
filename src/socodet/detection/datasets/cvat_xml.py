"""Reads CVAT's own XML: the shapes drawn on the images of a job, a task or a project, or on a video's frames."""

import posixpath
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.areas import BROKEN, Area, ellipse, joined_entry, outlined, rotation
from socodet.detection.datasets.beginning import beginning_of
from socodet.detection.datasets.coco import Content, read_content
from socodet.detection.datasets.cvat_video import OF_VIDEOS, VIDEO, by_frame, check_frames
from socodet.detection.datasets.entries import Entry, ListedImage
from socodet.detection.datasets.folder_listing import folder_listings
from socodet.detection.datasets.masks import mask_area, mask_box, placed_mask
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.splits import SPELLINGS
from socodet.detection.datasets.values import flag, number, pixel_count
from socodet.detection.datasets.voc import parse
from socodet.errors import InputError
from socodet.images.reading import requested_reading
from socodet.runtime.notices import notice

USUAL = "annotations.xml"
"""The name that CVAT gives to these files."""
SHAPES = ("box", "ellipse", "polygon", "mask")
"""Elements of shapes that have an area."""
NO_SHAPES = ("tag", "attribute")
"""Elements of an image that are no shapes."""
TYPES = ("any", "bbox", "rectangle", "ellipse", "polygon", "mask")
"""Types of labels for shapes that have an area."""
DEFAULT = "default"
"""The subset of images for which none is chosen."""


def is_cvat(file: Path) -> bool:
    """Whether a file begins like CVAT's XML, which declares no document type and hence no entities."""
    comments = rb"(<!--((?!-->).)*-->\s*)*"
    begins = rb"\s*(<\?xml[^>]*>\s*)?%s<annotations\b[^>]*>\s*%s<(version|meta|image|track)\b" % (comments, comments)
    return re.match(begins, beginning_of(file), re.DOTALL) is not None


def cvat_subsets(file: Path) -> dict[str, str]:
    """Split → name of the subset, for the file of a project; empty if its images are of one subset.

    Subsets that would be the same split, such as `train` and `Training`, keep their names.
    """
    named = dict.fromkeys(map(_subset, _root(file).iter("image")))
    split_of = {
        name: next((split for split, names in SPELLINGS.items() if name.lower() in names), name) for name in named
    }
    count = Counter(split_of.values())
    found = {split if count[split] == 1 else name: name for name, split in split_of.items()}
    return found if len(found) > 1 else {}


def read_cvat(
    file: Path,
    *,
    subset: str | None = None,
    siblings: Sequence[Path] = (),
    images: Path | None = None,
    name: str | None = None,
) -> DetectionDataset:
    """The images of a file, or those of one of its subsets, with their shapes.

    The classes are those of `siblings`, too, sorted by name. As in CVAT's exports to COCO, shapes of a group that have
    the same label are one object. The other arguments, and the errors, are as for `read_coco`. InputError also as
    in `by_frame` and `check_frames`.
    """
    roots = [_root(file), *(_root(other) for other in siblings if other != file)]
    classes = sorted({one for root in roots for one in _classes(root)} - {""})
    if not classes:
        raise InputError(f"{file}: no box, ellipse, polygon or mask in it has a label; draw some in CVAT")
    id_of = {one: place for place, one in enumerate(classes, 1)}
    chosen = [image for image in roots[0].iter("image") if subset is None or _subset(image) == subset]
    names = Counter(_file_name(image) for image in chosen)
    listed: list[Entry] = []
    annotations: list[Entry] = []
    annotated: set[int | str] = set()
    problems = AnnotationProblems()
    grouped = 0
    for image in chosen:
        file_name = _file_name(image)
        if file_name and names[file_name] > 1:
            problems.add(Problem.ONE_NAME, file_name)
            continue
        size = {side: pixel_count(image.get(side)) for side in ("width", "height")}
        listed.append({"id": file_name, "file_name": file_name, **size})
        of_object = _objects(image, file_name, id_of, problems)
        grouped += sum(len(shapes) > 1 for shapes in of_object.values())
        for (label, which), shapes in of_object.items():
            known = {"id": which, "image_id": file_name, "category_id": id_of[label]}
            annotations.append(known | {"shapes": shapes} | _crowd(shapes))
        if any(one.tag not in NO_SHAPES and not flag(one.get("outside")) for one in image):
            annotated.add(file_name)
    if grouped:
        notice(f"{file}: {grouped:,} groups of shapes with the same label are read as one object each")
    lists: dict[str, list[Any]] = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": one, "name": name} for name, one in id_of.items()],
    }
    fix = "multiply the coordinates by its width and height"
    content = Content(lists, "xyxy", fix, annotated=frozenset(annotated), complete=_complete, problems=problems)
    data = read_content(file, content, images=images, name=name)
    if roots[0].tag == VIDEO:
        check_frames(roots[0], file, data)
    return data


def _root(file: Path) -> ElementTree.Element:
    """The root of a file, of the format for images. InputError if it is not XML, and as in `by_frame`."""
    kept = folder_listings().cvat
    if file not in kept:
        try:
            root = parse(file)
        except (OSError, ValueError, ElementTree.ParseError) as error:
            raise InputError(f"{file}: is not valid XML ({error}); export it from CVAT again") from None
        if root.find("track") is not None:
            root = by_frame(root, file)
        kept[file] = root
    return kept[file]


def _classes(root: ElementTree.Element) -> set[str]:
    """The labels of shapes with an area, and those declared for such shapes."""
    drawn = {_label(shape) for image in root.iter("image") for shape in image if shape.tag in SHAPES}
    declared = (label for labels in root.findall("meta//labels") for label in labels.findall("label"))
    usable = (one for one in declared if one.find("parent") is None and (one.findtext("type") or "any") in TYPES)
    return drawn | {(one.findtext("name") or "").strip() for one in usable}


def _label(shape: ElementTree.Element) -> str:
    return shape.get("label", "").strip()


def _subset(image: ElementTree.Element) -> str:
    return image.get("subset") or DEFAULT


def _file_name(image: ElementTree.Element) -> str:
    """The path of an image's file below the folder of images, where a project has a folder for each subset."""
    name, subset = image.get("name", ""), image.get("subset", "")
    whole = name if posixpath.splitext(name)[1] or not name else name + OF_VIDEOS
    return f"{subset}/{whole}" if subset and whole else whole


def _objects(
    image: ElementTree.Element, name: str, id_of: Mapping[str, int], problems: AnnotationProblems
) -> dict[tuple[str, str], list[ElementTree.Element]]:
    """Label and group, or number, of each object of an image → its shapes; counts those that are left out."""
    found: dict[tuple[str, str], list[ElementTree.Element]] = {}
    for place, shape in enumerate(one for one in image if one.tag not in NO_SHAPES):
        label, group, which = _label(shape), shape.get("group_id", "0"), f"{shape.tag} {place}"
        what = f"{which} of image {name}"
        if flag(shape.get("outside")):
            problems.add(Problem.IGNORED, f"{what}, outside")
        elif shape.tag not in SHAPES or (shape.tag == "polygon" and len(_points(shape)) < 3):
            problems.add(Problem.NO_AREA, what)
        elif label not in id_of:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{what}, without a label")
        else:
            found.setdefault((label, which if group == "0" else f"group {group}"), []).append(shape)
    return found


def _crowd(shapes: Sequence[ElementTree.Element]) -> dict[str, str | None]:
    """`iscrowd`, if the shapes have CVAT's attribute for it."""
    written = [one for shape in shapes for one in shape.findall("attribute") if one.get("name") == "is_crowd"]
    return {"iscrowd": written[0].text} if written else {}


def _complete(entry: Entry, image: ListedImage) -> Entry:
    """The entry of an object with the areas of its shapes."""
    shapes: Sequence[ElementTree.Element] = entry["shapes"]
    usable = image.width * image.height <= requested_reading().reading.max_pixels
    size = (image.width, image.height) if usable else (0, 0)
    single = len(shapes) == 1
    areas = [_area(shape, *size, single=single) for shape in shapes]
    areas = [area for area in areas if area.area or area.mask is None] or areas  # an empty mask is nowhere
    if not np.isfinite([area.box for area in areas]).all():
        return entry
    turned = {"attributes": {"rotation": shapes[0].get("rotation")}} if single and shapes[0].tag == "box" else {}
    return {**entry, **turned, **joined_entry(areas, entry["id"], *size)}


def _area(shape: ElementTree.Element, width: int, height: int, *, single: bool) -> Area:
    """The area of a shape; a single box is left upright, as its rotation is part of its object's entry."""
    turned = np.radians(number(shape.get("rotation", "0")))
    if shape.tag == "polygon":
        return outlined(_points(shape))
    if shape.tag == "ellipse":
        x, y, wide, high = _numbers(shape, "cx", "cy", "rx", "ry")
        return outlined(ellipse(x, y, wide, high, turned))
    if shape.tag == "mask":
        return _mask(shape, width, height)
    box = np.array(_numbers(shape, "xtl", "ytl", "xbr", "ybr"))
    if single or not turned:
        return Area(box, float((box[2:] - box[:2]).prod()))
    centre, (wide, high) = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    corners = np.array([[-wide, wide, wide, -wide], [-high, -high, high, high]])
    return outlined((rotation(turned) @ corners).T + centre)


def _mask(shape: ElementTree.Element, width: int, height: int) -> Area:
    """A mask from run lengths over the rows of its box, zeros first; zeros at the end may be missing."""
    left, top, wide, high = _numbers(shape, "left", "top", "width", "height")
    try:
        runs = np.array([int(run) for run in shape.get("rle", "").split(",")], np.int64)
    except (ValueError, OverflowError):
        runs = np.array([-1])
    whole = all(side.is_integer() for side in (left, top, wide, high)) and min(wide, high) >= 1
    total = int(wide * high) if whole and wide * high <= width * height else 0
    if runs.min() < 0 or runs.max() > total or not 0 < runs.sum() <= total:
        return Area(np.array([left, top, left + wide, top + high]), wide * high, mask=BROKEN)
    patch = np.zeros(total, bool)
    patch[: runs.sum()] = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask = placed_mask(patch.reshape(int(high), int(wide)), (int(left), int(top)), height, width)
    x, y, sides_x, sides_y = mask_box(mask)
    return Area(np.array([x, y, x + sides_x, y + sides_y]), mask_area(mask), mask=mask)


def _points(shape: ElementTree.Element) -> NDArray[np.float64]:
    """(P, 2); empty if they are unusable."""
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    usable = all(len(pair) == 2 for pair in pairs)
    points = np.array([[number(side) for side in pair] for pair in pairs] if usable else [], np.float64).reshape(-1, 2)
    return points if np.isfinite(points).all() else points[:0]


def _numbers(shape: ElementTree.Element, *names: str) -> list[float]:
    return [number(shape.get(name)) for name in names]
