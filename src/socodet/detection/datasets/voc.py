"""Pascal VOC's form of annotations: an XML file per image, and lists of the images in `ImageSets/Main`."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from socodet.detection.datasets.annotations import Category, DetectionDataset, ImageAnnotations
from socodet.detection.datasets.box_forms import CORNERS, WrittenBoxes, check_box_form
from socodet.detection.datasets.folder_listing import FilesThere
from socodet.detection.datasets.problems import AnnotationProblems, Problem, usable_boxes
from socodet.detection.datasets.values import flag, number, pixel_count
from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import image_file_size
from socodet.images.lists import read_lines

VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "  # noqa: SIM905
    "sheep sofa train tvmonitor".split()
)
LISTS = Path("ImageSets", "Main")


class _Annotated(NamedTuple):
    """An image and its XML."""

    image_id: str
    path: Path
    objects: list[ElementTree.Element]
    """Those of known classes."""
    boxes: WrittenBoxes


def read_voc(lists: Sequence[Path], name: str, classes: Sequence[str] | None = None) -> DetectionDataset:
    """The images that the files `…/ImageSets/Main/NAME.txt` list, with their objects, in VOC's style.

    `classes` are the set's, in the order of their labels; VOC's twenty if not given.

    Corners are 1-based there and the right and bottom ones inclusive: xmin and ymin are lowered by 1, and xmax
    and ymax, 0-based and exclusive, stay as they are. Objects marked difficult are trained on, as in Detectron2, and
    kept out of the score. InputError when a list cannot be read, when none of the images can be used, when no object
    is of a known class, or when the boxes are in another form.
    """
    label_of = {name: label for label, name in enumerate(classes or VOC_CLASSES, 1)}
    problems = AnnotationProblems()
    there = FilesThere()
    read: dict[str, _Annotated] = {}
    for file in lists:
        root = file.absolute().parents[2]
        for image_id in _listed(file, root / "JPEGImages", there):
            if image_id in read:
                problems.add(Problem.REPEATED_IMAGE, f"{file}: {image_id}")
                continue
            image = _read_image(root, image_id, label_of, there, problems)
            if image is not None:
                read[image_id] = image
    if not read:
        details = "; ".join(problems.lines()) or "the lists are empty"
        raise InputError(f"{lists[0]}: none of its images can be used: {details}")
    unknown = problems.counts.get(Problem.UNKNOWN_CATEGORY, 0)
    if unknown and not any(image.objects for image in read.values()):
        raise InputError(
            f"{lists[0]}: none of its {unknown:,} objects is of a known class (first: "
            f"{problems.first[Problem.UNKNOWN_CATEGORY]}); VOC2007 and the like stand for VOC's twenty classes: give a "
            "set with classes of its own another folder name"
        )
    check_box_form(lists[0], CORNERS, [image.boxes for image in read.values()])
    categories = tuple(Category(label, name) for name, label in label_of.items())
    images = [_annotations(image, label_of, problems) for image in read.values()]
    return DetectionDataset(name, categories, images, False, "voc", problems)


def classes_of(root: Path) -> list[str]:
    """The names that the objects of all XML files in `root/Annotations` have, in the order of the alphabet.

    Of all, not of one list's, so that a label means the same in every list.
    """
    names = set()
    for file in sorted((root / "Annotations").glob("*.xml")):
        try:
            names |= {_class_name(found) for found in _parse(file).findall("object")}
        except (OSError, ValueError, ElementTree.ParseError):
            continue  # counted when a list names it
    names.discard("")
    if not names:
        raise InputError(f"{root / 'Annotations'}: no XML file there holds an object; give a folder in VOC's layout")
    return sorted(names)


def _listed(file: Path, images: Path, there: FilesThere) -> list[str]:
    """The names of a list, a line each; where no image is named by the whole line, without the mark of a class's list.

    Such a list has 1, 0 or -1 behind each name. An image's suffix is no part of its name.
    """
    names = []
    for line in filter(None, read_lines(file)):
        marked = re.fullmatch(r"(.*\S)\s+(-1|0|1)", line)
        spelled = [line, *([marked[1]] if marked else [])]
        whole = next((name for name in spelled if there.image(images, name) or images / name in there), spelled[-1])
        names.append(Path(whole).stem if images / whole in there else whole)
    return names


def _parse(file: Path) -> ElementTree.Element:
    """The root of an XML file, in the encoding that it declares. OSError, ValueError or ParseError."""
    data = file.read_bytes()
    declared = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([\w.-]+)[\"'][^>]*\?>", data)
    try:
        return ElementTree.fromstring(data)
    except (ValueError, LookupError, ElementTree.ParseError):
        if declared is None:
            raise
    try:  # an encoding that Python knows and the parser does not
        return ElementTree.fromstring(data[declared.end() :].decode(declared[1].decode()))
    except LookupError as error:
        raise ValueError(str(error)) from None


def _read_image(
    root: Path, image_id: str, label_of: Mapping[str, int], there: FilesThere, problems: AnnotationProblems
) -> _Annotated | None:
    path = there.image(root / "JPEGImages", image_id)
    if path is None:
        problems.add(Problem.MISSING_IMAGE, str(root / "JPEGImages" / f"{image_id}.jpg"))
        return None
    xml = root / "Annotations" / f"{image_id}.xml"
    try:
        tree = _parse(xml)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        problems.add(Problem.BROKEN_ANNOTATION_FILE, f"{xml}: {error}")
        return None
    width, height = (pixel_count(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    if not (width and height):
        try:
            width, height = image_file_size(path)
        except (OSError, UnreadableImageError) as error:
            problems.add(Problem.BROKEN_IMAGE, f"{path}: {error}")
            return None
        problems.add(Problem.SIZE_FROM_FILE, str(xml))
    objects = []
    for found in tree.findall("object"):
        if _class_name(found) in label_of:
            objects.append(found)
        else:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{xml}: {_class_name(found) or 'object without a name'}")
    corners = [
        [number(found.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")] for found in objects
    ]
    boxes = WrittenBoxes(np.array(corners, np.float64).reshape(-1, 4), width, height, str(xml))
    return _Annotated(image_id, path, objects, boxes)


def _annotations(image: _Annotated, label_of: Mapping[str, int], problems: AnnotationProblems) -> ImageAnnotations:
    corners, width, height, where = image.boxes
    boxes, kept = usable_boxes(corners - [1, 1, 0, 0], width, height, where, problems)
    objects = [image.objects[index] for index in kept]
    difficult = []
    for found in objects:
        marked = flag(found.findtext("difficult"))
        if marked is None:
            problems.add(Problem.UNCLEAR_FLAG, f"{where}: difficult {found.findtext('difficult')!r:.40}")
        difficult.append(marked is True)
    return ImageAnnotations(
        image.image_id,
        image.path,
        width,
        height,
        boxes,
        np.array([label_of[_class_name(found)] for found in objects], np.int64),
        np.zeros(len(kept), bool),
        np.array(difficult, bool),
        (boxes[:, 2:] - boxes[:, :2]).prod(1),
    )


def _class_name(found: ElementTree.Element) -> str:
    return (found.findtext("name") or "").strip()
