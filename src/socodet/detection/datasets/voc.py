"""Reads annotations in Pascal VOC's form: an XML file per image, and lists of images in `ImageSets/Main`."""

import itertools
import posixpath
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from socodet.detection.datasets.annotation_files import ImageFile
from socodet.detection.datasets.annotations import Category, DetectionDataset, ImageAnnotations, note_repeated_objects
from socodet.detection.datasets.box_forms import WrittenBoxes, boxes_by_image, check_box_form, turn
from socodet.detection.datasets.folder_listing import FolderListings, folder_listings
from socodet.detection.datasets.problems import AnnotationProblems, Problem, refuse_unusable
from socodet.detection.datasets.values import flag, number, pixel_count
from socodet.errors import InputError, UnreadableImageError
from socodet.images.file_header import image_file_size
from socodet.images.lists import read_lines
from socodet.images.suffixes import SUFFIXES
from socodet.runtime.files import read_file
from socodet.runtime.threads import map_files

VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "  # noqa: SIM905
    "sheep sofa train tvmonitor".split()
)


class _Annotated(NamedTuple):
    """The content of an image's XML file."""

    file: ImageFile
    objects: list[ElementTree.Element]
    """Objects of known classes."""
    boxes: WrittenBoxes
    offset: tuple[int, int, int, int]
    """Subtracted from the corners to make them 0-based, with exclusive right and bottom."""
    annotated: bool
    """Whether it has an object of any class."""


def read_voc(
    lists: Sequence[Path], name: str, classes: Sequence[str] | None = None, images: Path | None = None
) -> DetectionDataset:
    """The images in the lists `…/ImageSets/Main/NAME.txt` with their objects, in VOC's style.

    `classes` are in the order of their labels; by default VOC's twenty. `images` is the folder of the images, if it is
    not the `JPEGImages` of each list. InputError as in `read_xml_files`, and when a list cannot be read.
    """
    problems = AnnotationProblems()
    listings = folder_listings()
    files: dict[str, ImageFile] = {}
    for file in lists:
        root = file.absolute().parents[2]
        folder = images.absolute() if images else root / "JPEGImages"
        for image_id in _read_list(file, folder, listings, problems):
            image = listings.image(folder, image_id)
            if image_id in files:
                problems.add(Problem.REPEATED_IMAGE, f"{file}: {image_id}")
            elif image is None:
                missing = image_id if image_id.lower().endswith(SUFFIXES) else f"{image_id}.jpg"
                problems.add(Problem.MISSING_IMAGE, str(folder / missing))
            else:
                files[image_id] = ImageFile(image_id, image, root / "Annotations" / f"{image_id}.xml")
    return read_xml_files(list(files.values()), lists[0], name, classes or VOC_CLASSES, problems)


def read_xml_files(
    files: Sequence[ImageFile], about: Path, name: str, classes: Sequence[str], problems: AnnotationProblems
) -> DetectionDataset:
    """The images with the objects of their XML files, in VOC's style.

    Objects marked difficult are trained on, as in Detectron2, but not scored. `about` is the path named in messages.
    InputError if no image or hardly any object can be used, if no object has a known class, or if the boxes are in
    another form.
    """
    label_of = {name: label for label, name in enumerate(classes, 1)}
    trees = map_files(lambda file: _tree_or_error(file.path), files, lambda file: str(file.path))
    read = [
        found for file, tree in zip(files, trees, strict=True) if (found := _read_image(file, tree, label_of, problems))
    ]
    if not read:
        details = "; ".join(problems.lines()) or "none is listed"
        raise InputError(f"{about}: none of its images can be used: {details}")
    unknown = problems.counts.get(Problem.UNKNOWN_CATEGORY, 0)
    if unknown and not any(image.objects for image in read):
        raise InputError(
            f"{about}: none of its {unknown:,} objects is of a known class (first: "
            f"{problems.first[Problem.UNKNOWN_CATEGORY]}); a folder named like VOC2007 must have VOC's twenty classes: "
            "rename it if the dataset has its own"
        )
    check_box_form(about, "xyxy", [image.boxes for image in read])
    categories = tuple(Category(label, name) for name, label in label_of.items())
    images = [_annotations(image, label_of, problems) for image in read]
    note_repeated_objects(about, images)
    refuse_unusable(about, sum(len(image.objects) for image in read), sum(map(len, images)), problems)
    return DetectionDataset(name, categories, images, False, "voc", problems)


def classes_of(files: Iterable[Path], about: Path) -> list[str]:
    """The class names of the objects in these XML files, sorted alphabetically.

    Pass the files of all splits of a dataset, so that labels mean the same in each. InputError if there is no object.
    """
    kept, asked = folder_listings().classes, tuple(files)
    if asked not in kept:
        trees = map_files(_tree_or_error, asked)  # an error is counted when its split is read
        objects = (one for tree in trees if isinstance(tree, ElementTree.Element) for one in tree.findall("object"))
        kept[asked] = sorted({_class_name(found) for found in objects} - {""})
    if not kept[asked]:
        raise InputError(f"{about}: no XML file there holds an object; give a folder in VOC's layout")
    return kept[asked]


def _read_list(file: Path, images: Path, listings: FolderListings, problems: AnnotationProblems) -> list[str]:
    """The names in a list, one per line. If the whole line is not an image's name, a class list's mark is removed.

    The list of a single class has 1, 0 or -1 after each name. Names do not include the image's suffix, nor leading
    folders that do not exist here, as in paths from another machine.
    """
    names = []
    for line in filter(None, read_lines(file)):
        marked = re.fullmatch(r"(.*\S)\s+(-1|0|1)", line)
        spelled = [line, *([marked[1]] if marked else [])]
        shorter = (end for name in spelled for end in _path_suffixes(name))
        tried = itertools.chain(spelled, shorter)
        whole = next(
            (name for name in tried if listings.image(images, name) or _image_exists(images, name, listings)),
            spelled[-1],
        )
        name = posixpath.splitext(whole)[0] if _image_exists(images, whole, listings) else whole
        if name != whole and images / whole not in listings:
            problems.add(Problem.OTHER_SUFFIX, f"{file}: {whole}")
        names.append(posixpath.normpath(name))
    return names


def _image_exists(images: Path, name: str, listings: FolderListings) -> bool:
    """Whether there is an image with this name, including its suffix, in any spelling."""
    return not name.startswith("/") and ".." not in name.split("/") and listings.spelled(images, name) is not None


def _path_suffixes(name: str) -> Iterator[str]:
    """A path without its first folder, without its first two, and so on; backslashes count as slashes."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    yield from ("/".join(parts[start:]) for start in range(len(parts)))


def parse(file: Path) -> ElementTree.Element:
    """The root of an XML file in its declared encoding, without namespaces. OSError, ValueError or ParseError.

    If the declared encoding does not fit, UTF-8 is used: .NET declares UTF-16 in text that is then saved differently.
    """
    root = _parsed(read_file(file))
    if root.tag.startswith("{"):
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
    return root


def _parsed(data: bytes) -> ElementTree.Element:
    declared = re.match(rb"(?:\xef\xbb\xbf)?\s*<\?xml[^>]*encoding=[\"']([\w.-]+)[\"'][^>]*\?>", data)
    try:
        return ElementTree.fromstring(data)
    except (ValueError, LookupError, ElementTree.ParseError):
        if declared is None:
            raise
    rest = data[declared.end() :]
    try:  # an encoding that Python knows but the parser does not
        return ElementTree.fromstring(rest.decode(declared[1].decode()))
    except LookupError as error:
        raise ValueError(str(error)) from None
    except (ValueError, ElementTree.ParseError):
        if not declared[1].lower().startswith(b"utf-16"):
            raise
    return ElementTree.fromstring(rest.decode())


def _tree_or_error(file: Path) -> ElementTree.Element | Exception:
    """The root of an XML file, or the error; InputError for other XML, in which no object would be found."""
    try:
        tree = parse(file)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return error
    if tree.tag != "annotation" and tree.find("object") is None:
        return InputError(f"begins with <{tree.tag}>, not <annotation>")
    return tree


def _read_image(
    file: ImageFile, tree: ElementTree.Element | Exception, label_of: Mapping[str, int], problems: AnnotationProblems
) -> _Annotated | None:
    path, xml = file.image, file.path
    if isinstance(tree, Exception):
        problems.add(Problem.BROKEN_ANNOTATION_FILE, f"{xml}: {tree}")
        return None
    file.count_other_name(image_name_in_xml(tree), problems)
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
        if flag(found.findtext("deleted")):
            problems.add(Problem.IGNORED, f"{xml}: {_class_name(found)}")
        elif _class_name(found) in label_of:
            objects.append(found)
        else:
            problems.add(Problem.UNKNOWN_CATEGORY, f"{xml}: {_class_name(found) or 'object without a name'}")
        further = len(found.findall("bndbox")) - 1
        if further > 0:
            problems.add(Problem.FURTHER_BOX, f"{xml}: {_class_name(found)}", further)
    corners = [_corners(found) for found in objects]
    outlined = sum(found.find("bndbox") is None and found.find("polygon/pt") is not None for found in objects)
    if outlined:
        problems.add(Problem.OUTLINE_AS_BOX, str(xml), outlined)
    boxes = WrittenBoxes(np.array(corners, np.float64).reshape(-1, 4), width, height, str(xml))
    annotated = any(not flag(found.findtext("deleted")) for found in tree.findall("object"))
    return _Annotated(file, objects, boxes, _offset(xml, tree), annotated)


def _corners(found: ElementTree.Element) -> list[float]:
    """The corners of an object's box, otherwise of its outline, which LabelMe's web version writes."""
    points = [[number(point.findtext(side)) for side in "xy"] for point in found.findall("polygon/pt")]
    if found.find("bndbox") is None and points:
        return [*map(float, np.min(points, 0)), *map(float, np.max(points, 0))]
    return [number(found.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]


def _annotations(image: _Annotated, label_of: Mapping[str, int], problems: AnnotationProblems) -> ImageAnnotations:
    corners, width, height, where = image.boxes
    angles = np.array([_rotation(found) for found in image.objects], float)
    written = image.boxes._replace(numbers=corners - image.offset)
    ((boxes, kept),) = boxes_by_image([written], "xyxy", angles, problems)
    objects = [image.objects[index] for index in kept]
    difficult = []
    for found in objects:
        marked = flag(found.findtext("difficult"))
        if marked is None:
            problems.add(Problem.UNCLEAR_FLAG, f"{where}: difficult {found.findtext('difficult')!r:.40}")
        difficult.append(marked is True)
    return ImageAnnotations(
        image.file.image_id,
        image.file.image,
        width,
        height,
        boxes,
        np.array([label_of[_class_name(found)] for found in objects], np.int64),
        np.zeros(len(kept), bool),
        np.array(difficult, bool),
        (boxes[:, 2:] - boxes[:, :2]).prod(1),
        unusable=image.annotated and not len(kept),
    )


def image_name_in_xml(tree: ElementTree.Element) -> str:
    """The `filename` in an XML file, without the folders of the machine that wrote it."""
    return PureWindowsPath((tree.findtext("filename") or "").strip()).name


def _offset(xml: Path, tree: ElementTree.Element) -> tuple[int, int, int, int]:
    """The offset to subtract from an XML file's corners, which depends on the tool that wrote it.

    VOC's own corners are 1-based with inclusive right and bottom; Roboflow adds 1 to all four; labelImg, CVAT, Label
    Studio and others use the same convention as COCO.
    """
    database = (tree.findtext("source/database") or "").strip().lower()
    if is_voc_year(xml.parent.parent) or re.fullmatch(r"the voc20\d\d database", database):
        return (1, 1, 0, 0)
    return (1, 1, 1, 1) if database.startswith("roboflow") else (0, 0, 0, 0)


def is_voc_year(folder: Path) -> bool:
    """Whether a folder is, by its name, one of VOC's own, with VOC's twenty classes."""
    return re.fullmatch(r"VOC20\d\d", folder.absolute().name) is not None


def _rotation(found: ElementTree.Element) -> float:
    """CVAT's rotation of an object's box about its centre, in degrees."""
    named = (one for one in found.findall("attributes/attribute") if one.findtext("name") == "rotation")
    return turn(next((one.findtext("value") for one in named), None))


def _class_name(found: ElementTree.Element) -> str:
    return (found.findtext("name") or "").strip()
