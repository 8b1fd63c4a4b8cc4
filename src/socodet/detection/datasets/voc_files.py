"""Reads VOC's XML files outside VOC's folders: beside their images, or in `annotations/` beside `images/`."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path, PureWindowsPath

from socodet.detection.datasets.annotation_files import FileForm, FileSet, files_of_parts
from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.parts import part_name
from socodet.detection.datasets.problems import AnnotationProblems
from socodet.detection.datasets.voc import classes_of, named_image, parse, read_xml_files


def read_xml_set(described: FileSet, part: str) -> DetectionDataset:
    """The images of a part with their objects. The classes are those of all parts.

    InputError as in `voc.read_xml_files`.
    """
    problems = AnnotationProblems()
    files = files_of_parts(described, part, problems)
    xml_files = [file.path for found in files.values() for file in found]
    classes = classes_of(xml_files, described.root) if xml_files else []
    return read_xml_files(files[part], described.root, part_name(described.root, part), classes, problems)


def _is_annotation(xml: Path) -> bool:
    try:
        return parse(xml).tag == "annotation"
    except (OSError, ValueError, ElementTree.ParseError):
        return False


def _named_in(xml: Path) -> tuple[str, str]:
    try:
        tree = parse(xml)
    except (OSError, ValueError, ElementTree.ParseError):
        return "", ""
    return named_image(tree), PureWindowsPath((tree.findtext("folder") or "").strip()).name


XML = FileForm(
    ".xml",
    ("annotations", "annotation", "annots", "anns", "ann", "xmls", "xml", "labels", "label"),
    _is_annotation,
    _named_in,
)
