"""Reads VOC's XML files outside VOC's folders: beside their images, or in `annotations/` beside `images/`."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path, PureWindowsPath

from socodet.detection.datasets.annotation_files import FileFormat, PerImageDataset, files_by_split
from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.problems import AnnotationProblems
from socodet.detection.datasets.splits import split_name
from socodet.detection.datasets.voc import classes_of, image_name_in_xml, parse, read_xml_files


def read_xml_set(described: PerImageDataset, split: str) -> DetectionDataset:
    """The images of a split with their objects. The classes are those of all splits.

    InputError as in `voc.read_xml_files`.
    """
    problems = AnnotationProblems()
    files = files_by_split(described, split, problems)
    xml_files = [file.path for found in files.values() for file in found]
    classes = classes_of(xml_files, described.root) if xml_files else []
    return read_xml_files(files[split], described.root, split_name(described.root, split), classes, problems)


def _is_annotation(xml: Path) -> bool:
    try:
        return parse(xml).tag == "annotation"
    except (OSError, ValueError, ElementTree.ParseError):
        return False


def _image_name_in(xml: Path) -> tuple[str, str]:
    try:
        tree = parse(xml)
    except (OSError, ValueError, ElementTree.ParseError):
        return "", ""
    return image_name_in_xml(tree), PureWindowsPath((tree.findtext("folder") or "").strip()).name


XML = FileFormat(
    ".xml",
    ("annotations", "annotation", "annots", "anns", "ann", "xmls", "xml", "labels", "label"),
    _is_annotation,
    _image_name_in,
)
