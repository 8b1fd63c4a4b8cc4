"""Reads Label Studio's own exports, "JSON" and "JSON-MIN": regions on images, in percent of their width and height."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.areas import Area, ellipse, joined_entry, outlined, rotation
from socodet.detection.datasets.beginning import beginning_of
from socodet.detection.datasets.coco import Content, read_content
from socodet.detection.datasets.entries import Entry, ListedImage
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.uploads import renamed_uploads
from socodet.detection.datasets.values import as_id, flag, number, pixel_count
from socodet.errors import InputError
from socodet.images.spelling import decode_url
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.files import parse_json, read_user_file
from socodet.runtime.notices import notice

IMAGE = "image"
"""The usual name of the field of a task that names its image."""
LABELS = "labels"
"""The end of the names of fields with a region's labels, such as `rectanglelabels`."""
RECTANGLE, ELLIPSE, POLYGON = ("x", "y", "width", "height"), ("x", "y", "radiusX", "radiusY"), ("points",)
"""Fields of regions that have an area."""
PLACE = (*RECTANGLE, *ELLIPSE[2:], *POLYGON, "rle")
"""Fields that say where a region is."""
MORE = ("rotation", "closed")
"""Fields that say more about it."""

Written = Mapping[str, Any]


class _Region(NamedTuple):
    """A region with the labels of all results that belong to it."""

    id: str
    place: Written
    """The fields that say where it is; empty if it is nowhere in an image."""
    labels: Sequence[str]


class _Task(NamedTuple):
    """The annotation of an image that is read."""

    id: int | str
    image: str
    """As written."""
    regions: Sequence[_Region]
    size: tuple[int, int]
    """Width and height; 0 if they are missing, or differ between the regions."""


class _Content(NamedTuple):
    tasks: Sequence[_Task]
    problems: AnnotationProblems
    several: int
    """Number of images of which only one of several annotations is read."""
    turned: int
    """Number of regions drawn on an image that was turned in the editor."""


def is_label_studio(file: Path) -> bool:
    """Whether a file begins like one of these exports, which are lists of tasks."""
    beginning = beginning_of(file)

    def has(*keys: bytes) -> bool:
        return all(re.search(rb'"%s"\s*:' % key, beginning) for key in keys)

    return beginning.lstrip().startswith(b"[") and (
        has(b"from_name")
        or has(b"(rectangle|polygon|ellipse|brush|keypoint)labels")
        or has(b"annotator", b"annotation_id")
        or has(b"data", b"(annotations|completions)")
    )


def read_label_studio(
    file: Path, *, siblings: Sequence[Path] = (), images: Path | None = None, name: str | None = None
) -> DetectionDataset:
    """The images of the annotated tasks of an export with their regions. Predictions are not read.

    The classes are those of `siblings`, too, sorted by name. Of several annotations of a task, the one that is marked
    as ground truth is read, otherwise the last one created. The other arguments, and the errors, are as for
    `read_coco`. InputError also if nothing is annotated.
    """
    content = _content(file)
    every = [*content.tasks, *(task for other in siblings if other != file for task in _content(other).tasks)]
    regions = [region for task in every for region in task.regions]
    classes = sorted({region.labels[0] for region in regions if len(region.labels) == 1 and _form(region.place)})
    problems = content.problems
    if not classes:
        raise InputError(
            f"{file}: no rectangle, polygon or ellipse in it has a label (predictions, brush masks and other regions "
            "are not read); annotate its tasks, or export them as COCO"
            + "".join(f"; {line}" for line in problems.lines())
        )
    if content.several:
        notice(
            f"{file}: {content.several:,} of its images have several annotations; only the one that is marked as "
            "ground truth is read, otherwise the last one created"
        )
    if content.turned:
        notice(
            f"{file}: {content.turned:,} of its regions were drawn on images turned in the editor; they are read as "
            "current versions of Label Studio write them, for the image that is not turned"
        )
    id_of = {one: place for place, one in enumerate(classes, 1)}
    renamed = renamed_uploads([task.image for task in content.tasks], file, images)
    listed: list[Entry] = []
    annotations: list[Entry] = []
    for task in content.tasks:
        name_there = renamed.get(task.image, task.image)
        listed.append({"id": task.id, "file_name": name_there, "width": task.size[0], "height": task.size[1]})
        for region in task.regions:
            what = f"region {region.id} of task {task.id}"
            if not _form(region.place):
                problems.add(Problem.NO_AREA, what)
            elif len(region.labels) != 1:
                problems.add(Problem.UNKNOWN_CATEGORY, f"{what}, labels {', '.join(region.labels) or 'missing'}")
            else:
                known = {"id": region.id, "image_id": task.id, "category_id": id_of[region.labels[0]]}
                annotations.append(known | {"region": region.place})
    lists: dict[str, list[Any]] = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": one, "name": name} for name, one in id_of.items()],
    }
    annotated = frozenset(task.id for task in content.tasks if task.regions)
    found = Content(
        lists,
        "xyxy",
        "correct the percentages",
        sized=False,
        annotated=annotated,
        complete=_complete,
        problems=problems,
    )
    return read_content(file, found, images=images, name=name)


def _content(file: Path) -> _Content:
    """The tasks of an export that are annotated; those of one image under one id are one."""
    written = parse_json(file, read_user_file(file), "export it from Label Studio again")
    if not isinstance(written, list) or not all(isinstance(task, dict) for task in written):
        raise InputError(f"{file}: is not an export of Label Studio; it must be a list of tasks")
    problems = AnnotationProblems()
    of_task: dict[tuple[int | str, str], list[tuple[Written, Sequence[Written]]]] = {}
    parsed = [(task, list(_annotations(task))) for task in written]
    several_shown = len({_shown(one) for _, found in parsed for _, results in found for one in results} - {None}) > 1
    for place, (task, found) in enumerate(parsed):
        name = _image_name(task, several_shown)
        which = as_id(task.get("id"))
        of_task.setdefault((f"number {place}" if which is None else which, name), []).extend(found)
    ids = Counter(which for which, _ in of_task)
    several = turned = 0
    tasks = []
    for (which, name), annotations in of_task.items():
        if not annotations:
            problems.add(Problem.NOT_ANNOTATED, f"task {which}, {name:.200}")
            continue
        if not name:
            problems.add(Problem.UNCLEAR_IMAGE, f"task {which}")
            continue
        several += len(annotations) > 1
        _, results = max(
            enumerate(annotations),
            key=lambda one: (
                flag(one[1][0].get("ground_truth")) is True,
                str(one[1][0].get("created_at") or ""),
                one[0],
            ),
        )[1]
        turned += sum(number(one.get("image_rotation")) % 360 > 0 for one in results)
        sizes = {tuple(pixel_count(one.get(f"original_{side}")) for side in ("width", "height")) for one in results}
        usable = [size for size in sizes if all(size)]
        width, height = usable[0] if len(usable) == 1 else (0, 0)
        task_id = which if ids[which] == 1 else f"{which}, {name}"
        tasks.append(_Task(task_id, name, _regions(results), (width, height)))
    return _Content(tasks, problems, several, turned)


def _image_name(task: Written, several_shown: bool) -> str:
    """The name of a task's image: its field `image`, otherwise the only one with the name of an image file.

    Only the latter if the annotators saw several images side by side. Empty if it is unclear.
    """
    data = task["data"] if isinstance(task.get("data"), dict) else task
    lists = [value if isinstance(value, list) else [value] for value in data.values()]
    texts = (one for value in lists for one in value if isinstance(one, str) and not one.startswith("data:"))
    files = {one for one in texts if decode_url(one).lower().endswith(SUFFIXES)}
    image = data.get(IMAGE)
    if isinstance(image, str) and image and not image.startswith("data:") and not (several_shown and len(files) > 1):
        return image
    return files.pop() if len(files) == 1 else ""


def _shown(result: Written) -> tuple[str, str] | None:
    """The tag of the labelling interface, and the page, that show the image of a region; None if it is nowhere."""
    return (str(result.get("to_name")), str(result.get("item_index") or 0)) if _place(result) else None


def _annotations(task: Written) -> Iterator[tuple[Written, Sequence[Written]]]:
    """The annotations of a task that were not skipped, and their results with the fields of their values."""
    written = task.get("annotations", task.get("completions"))
    if written is None and not isinstance(task.get("data"), dict):  # JSON-MIN, with an entry for each annotation
        fields = [value for value in task.values() if isinstance(value, list)]
        regions = [one for value in fields for one in value if isinstance(one, dict) and (_place(one) or _labels(one))]
        if regions or task.get("annotation_id") is not None:
            yield task, regions
        return
    for annotation in written if isinstance(written, list) else []:
        if isinstance(annotation, dict) and not any(flag(annotation.get(one)) for one in ("was_cancelled", "skipped")):
            given = annotation.get("result")
            results = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
            yield annotation, [one | value for one in results if isinstance(value := one.get("value"), dict)]


def _regions(results: Sequence[Written]) -> list[_Region]:
    """The regions of an annotation; a region may have one result that draws it, and others that label it."""
    joined: dict[str, list[Written]] = {}
    for place, one in enumerate(results):
        where = _place(one)
        same = one.get("id") or (json.dumps(where, sort_keys=True) if where else f"number {place}")
        joined.setdefault(str(same), []).append(one)
    regions = []
    for place, (which, same) in enumerate(joined.items()):
        labels = list(dict.fromkeys(label for one in same for label in _labels(one)))
        where = next((found for one in same if (found := _place(one))), {})
        if where or labels:  # choices and texts about the whole image have neither
            name = which if same[0].get("id") else f"number {place}"
            regions.append(_Region(name, where, labels))
    return regions


def _labels(result: Written) -> list[str]:
    written = (value for name, value in result.items() if name.endswith(LABELS) and isinstance(value, list))
    texts = (str(one).strip() for value in written for one in value if isinstance(one, str | int | float))
    return [text for text in texts if text]


def _place(result: Written) -> Written:
    found = {name: result[name] for name in PLACE if name in result}
    return {**found, **{name: result[name] for name in MORE if name in result}} if found else {}


def _form(place: Written) -> tuple[str, ...]:
    """`RECTANGLE`, `ELLIPSE` or `POLYGON`; empty for a point, a line, a brush mask, and anything else."""
    if "rle" in place:
        return ()
    if "points" in place:
        return POLYGON if len(_points(place)) > 2 and flag(place.get("closed", True)) else ()
    return next((form for form in (ELLIPSE, RECTANGLE) if all(name in place for name in form)), ())


def _complete(entry: Entry, image: ListedImage) -> Entry:
    """The entry of an object with its area in pixels. Rotation is clockwise, of rectangles about their first corner."""
    region: Written = entry["region"]
    form = _form(region)
    sides, degrees = np.array([image.width, image.height]) / 100, number(region.get("rotation") or 0)
    if form == POLYGON:
        area = outlined(_points(region) * sides)
    elif form == ELLIPSE:
        x, y, wide, high = np.array([number(region[name]) for name in ELLIPSE]) * np.tile(sides, 2)
        area = outlined(ellipse(x, y, wide, high, np.radians(degrees)))
    else:
        first, size = np.array([number(region[name]) for name in RECTANGLE]).reshape(2, 2) * sides
        centre = first + rotation(np.radians(degrees)) @ size / 2
        area = Area(np.concatenate([centre - size / 2, centre + size / 2]), float(size.prod()))
        entry = {**entry, "attributes": {"rotation": degrees}}
    return {**entry, **joined_entry([area], str(entry["id"]), image.width, image.height)}


def _points(place: Written) -> NDArray[np.float64]:
    """(P, 2) corners of a polygon, in percent; empty if they are unusable."""
    written = place.get("points")
    pairs = written if isinstance(written, list) else []
    usable = all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
    points = np.array([[number(side) for side in pair] for pair in pairs] if usable else [], np.float64).reshape(-1, 2)
    return points if np.isfinite(points).all() else points[:0]
