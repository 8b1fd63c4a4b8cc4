"""Pascal VOC's form of annotations: an XML file a picture, and lists of the pictures in `ImageSets/Main`."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from socodet.detection.datasets.annotations import Category, DetectionDataset, ImageAnnotations
from socodet.detection.datasets.problems import AnnotationProblems, FilesThere, Problem, usable_boxes
from socodet.errors import InputError

VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "  # noqa: SIM905
    "sheep sofa train tvmonitor".split()
)
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
LISTS = Path("ImageSets", "Main")


def read_voc(lists: Sequence[Path], name: str, classes: Sequence[str] | None = None) -> DetectionDataset:
    """The pictures that the files `…/ImageSets/Main/NAME.txt` list, with their objects, in VOC's style.

    `classes` are the set's, in the order of their labels; VOC's twenty if not given.

    Corners are 1-based there and the right and bottom ones inclusive: xmin and ymin are lowered by 1, and xmax
    and ymax, 0-based and exclusive, stay as they are. Objects marked difficult are trained on, as in Detectron2, and
    kept out of the score. InputError when a list cannot be read, or none of the pictures can be used.
    """
    label_of = {name: label for label, name in enumerate(classes or VOC_CLASSES, 1)}
    problems = AnnotationProblems()
    there = FilesThere()
    read: dict[str, ImageAnnotations] = {}
    for file in lists:
        root = file.absolute().parents[2]
        for image_id in _listed(file):
            if image_id in read:
                problems.add(Problem.REPEATED_IMAGE, f"{file}: {image_id}")
                continue
            image = _read_image(root, image_id, label_of, there, problems)
            if image is not None:
                read[image_id] = image
    if not read:
        details = "; ".join(problems.lines()) or "the lists are empty"
        raise InputError(f"{lists[0]}: no picture of it can be used: {details}")
    categories = tuple(Category(label, name) for name, label in label_of.items())
    return DetectionDataset(name, categories, list(read.values()), False, "voc", problems)


def classes_of(root: Path) -> list[str]:
    """The names that the objects of all XML files in `root/Annotations` have, in the order of the alphabet.

    Of all, not of one list's, so that a label means the same in every list.
    """
    names = set()
    for file in sorted((root / "Annotations").glob("*.xml")):
        try:
            names |= {(found.findtext("name") or "").strip() for found in ElementTree.parse(file).findall("object")}
        except (OSError, ElementTree.ParseError):
            continue  # counted when a list names it
    names.discard("")
    if not names:
        raise InputError(f"{root / 'Annotations'}: no XML file there holds an object; give a folder in VOC's layout")
    return sorted(names)


def _listed(file: Path) -> list[str]:
    """The first word of each line; the lists of a class have a second, 1 or -1."""
    try:
        return [line.split()[0] for line in file.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give a list that is there") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not a text file; write one picture's name a line") from None


def _read_image(
    root: Path, image_id: str, label_of: dict[str, int], there: FilesThere, problems: AnnotationProblems
) -> ImageAnnotations | None:
    pictures = [root / "JPEGImages" / f"{image_id}{suffix}" for suffix in SUFFIXES]
    path = next((path for path in pictures if path in there), None)
    if path is None:
        problems.add(Problem.MISSING_IMAGE, str(pictures[0]))
        return None
    xml = root / "Annotations" / f"{image_id}.xml"
    try:
        tree = ElementTree.parse(xml)
    except (OSError, ElementTree.ParseError) as error:
        problems.add(Problem.BROKEN_ANNOTATION_FILE, f"{xml}: {error}")
        return None
    width, height = (_number(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    if not (width >= 1 and height >= 1):  # not-a-number is neither
        problems.add(Problem.BROKEN_IMAGE_ENTRY, f"{xml}: size")
        return None
    objects = []
    for found in tree.findall("object"):
        name = (found.findtext("name") or "").strip()
        if name in label_of:
            objects.append((found, label_of[name]))
        else:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{xml}: {name or 'object without a name'}")
    corners = np.array(
        [
            [_number(found.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for found, _ in objects
        ],
        np.float64,
    ).reshape(-1, 4)
    boxes, kept = usable_boxes(corners - [1, 1, 0, 0], int(width), int(height), str(xml), problems)
    return ImageAnnotations(
        image_id,
        path,
        int(width),
        int(height),
        boxes,
        np.array([objects[index][1] for index in kept], np.int64),
        np.zeros(len(kept), bool),
        np.array([(objects[index][0].findtext("difficult") or "0").strip() == "1" for index in kept], bool),
        (boxes[:, 2:] - boxes[:, :2]).prod(1),
    )


def _number(text: str | None) -> float:
    """Not-a-number for what is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
