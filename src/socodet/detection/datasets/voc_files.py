"""VOC's XML files without VOC's folders: beside their images, or in `annotations/` beside `images/`."""

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.folder_listing import FilesThere
from socodet.detection.datasets.parts import (
    AnnotationFolder,
    annotation_folder,
    by_folder,
    image_folders,
    images_below,
    part_name,
    places_in_set,
    rivals,
)
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.voc import XmlFile, classes_of, named_image, parse, read_xml_files
from socodet.images.lists import composed
from socodet.images.suffixes import SUFFIXES

XML_FOLDERS = ("annotations", "annotation", "annots", "xmls", "xml", "labels", "label")
LOOKED_AT = 16
"""XML files that are read before they are taken for something else."""


@dataclass(frozen=True)
class XmlSet:
    """The parts of a set of images with XML files."""

    root: Path
    parts: Mapping[str, Path]
    """Folders of images."""
    images: Path | None = None
    """Where the images are, if not in the set's folder."""

    def folders(self, part: str, there: FilesThere) -> Iterator[tuple[Sequence[Path], AnnotationFolder | None]]:
        """Images that lie in one folder, and where their XML files are."""
        for images in by_folder(images_below(self.parts[part])).values():
            places = places_in_set(images[0].parent, self.root, self.images)
            mirrored = AnnotationFolder(places[-1], False) if places else None
            yield images, annotation_folder(images, XML_FOLDERS, ".xml", there, places) or mirrored


def found_in(folder: Path, images: Path | None = None) -> XmlSet | None:
    """The set in a folder; None when no image has an XML file. `images`: where its images are, if elsewhere."""
    root, elsewhere = folder.absolute(), images.absolute() if images else None
    found = XmlSet(root, image_folders(elsewhere or root), elsewhere)
    there = FilesThere()
    parts = {part: place for part, place in found.parts.items() if _has_annotations(found, part, there)}
    return XmlSet(root, parts, elsewhere) if parts else None


def read_xml_set(described: XmlSet, part: str) -> DetectionDataset:
    """The images of a part with their objects; InputError as `voc.read_xml_files`.

    An XML file belongs to the image of the same name, otherwise to the image that it names. Of images of the same name
    in several folders that may have it, it belongs to the one in the `folder` that it names. The classes are those of
    all parts.
    """
    problems = AnnotationProblems()
    there = FilesThere()
    files: dict[str, list[XmlFile]] = {one: [] for one in described.parts}
    folders = {one: list(described.folders(one, there)) for one in described.parts}
    ambiguous = rivals(itertools.chain(*folders.values()))
    for one in described.parts:
        counted = problems if one == part else AnnotationProblems()
        for images, place in folders[one]:
            for file in _pairs(described, images, place, there, counted):
                if _is_its_own(file, ambiguous.get(file.image, ()), counted):
                    files[one].append(file)
    xml_files = [file.xml for found in files.values() for file in found]
    classes = classes_of(xml_files, described.root) if xml_files else []
    return read_xml_files(files[part], described.root, part_name(described.root, part), classes, problems)


def _has_annotations(described: XmlSet, part: str, there: FilesThere) -> bool:
    """Whether XML files of a part's images are annotations, and not something else."""
    for images, place in described.folders(part, there):
        files = (there.file(place.path, image.stem, ".xml") for image in images) if place else ()
        for file in itertools.islice(filter(None, files), LOOKED_AT):
            try:
                if parse(file).tag == "annotation":
                    return True
            except (OSError, ValueError, ElementTree.ParseError):
                continue
    return False


def _pairs(
    described: XmlSet,
    images: Sequence[Path],
    place: AnnotationFolder | None,
    there: FilesThere,
    problems: AnnotationProblems,
) -> Iterator[XmlFile]:
    """The images of one folder that have an XML file, in their order; counts those without, and files without image."""
    names = there.names(place.path) if place else frozenset()
    files = sorted(name for name in names if name.lower().endswith(".xml"))
    xml_of = {composed(name[:-4]): place.path / name for name in files} if place else {}
    of_stem: dict[str, list[Path]] = {}
    for image in images:
        of_stem.setdefault(composed(image.stem), []).append(image)
    chosen = {_first(same): xml_of[stem] for stem, same in of_stem.items() if stem in xml_of}
    by_name = {composed(image.name): image for image in images} | {
        stem: same[0] for stem, same in of_stem.items() if len(same) == 1
    }
    for stem, xml in xml_of.items():
        if stem in of_stem or (place and place.shared):
            continue
        named = composed(_named_in(xml))
        found = by_name.get(named) or by_name.get(Path(named).stem)
        if found is None or found in chosen:
            problems.add(Problem.NO_IMAGE_FOR_LABELS, str(xml))
        else:
            chosen[found] = xml
    stems = frozenset(of_stem)
    for image in images:
        if image in chosen:
            inside = image.relative_to(described.images or described.root).with_suffix("").as_posix()
            yield XmlFile(inside, image, chosen[image], stems)
        else:
            problems.add(Problem.NO_ANNOTATION_FILE, str(image))


def _is_its_own(file: XmlFile, same: Sequence[Path], problems: AnnotationProblems) -> bool:
    """Whether an XML file is of its image, and not of another of the images `same`; counts it if not."""
    if not same:
        return True
    named = _folder_named_in(file.xml)
    folders = {image.parent for image in same if image.parent.name.lower() == named}
    if len(folders) == 1 and file.image.parent not in folders:
        problems.add(Problem.NO_ANNOTATION_FILE, str(file.image))
    elif len(folders) != 1:
        problems.add(Problem.SHARED_ANNOTATION_FILE, f"{file.xml} of {' and '.join(map(str, same))}")
    return folders == {file.image.parent}


def _folder_named_in(xml: Path) -> str:
    try:
        return PureWindowsPath((parse(xml).findtext("folder") or "").strip()).name.lower()
    except (OSError, ValueError, ElementTree.ParseError):
        return ""


def _first(same: Sequence[Path]) -> Path:
    """Of images that differ only in their suffix, the one whose suffix comes first among those of images."""
    return min(same, key=lambda image: SUFFIXES.index(image.suffix.lower()))


def _named_in(xml: Path) -> str:
    try:
        return named_image(parse(xml))
    except (OSError, ValueError, ElementTree.ParseError):
        return ""
