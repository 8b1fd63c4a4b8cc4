"""Reads annotations in YOLO's form: a label file per image, and a `data.yaml` or `classes.txt` with class names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from socodet.detection.datasets.annotations import Category, DetectionDataset
from socodet.detection.datasets.box_forms import check_box_form
from socodet.detection.datasets.entries import (
    FoundImage,
    ListedImage,
    dataset_from_entries,
    labels_of,
    note_shifted_labels,
)
from socodet.detection.datasets.folder_listing import OF_MACOS, FolderListings, folder_listings
from socodet.detection.datasets.headers import sizes_of
from socodet.detection.datasets.problems import NEARLY_ALL, AnnotationProblems, Problem
from socodet.detection.datasets.splits import AnnotationFolder, by_folder, images_below, same_named_images, split_name
from socodet.detection.datasets.yolo_description import NAMES, YoloDataset
from socodet.detection.datasets.yolo_labels import LabelLine, LabelReader, guess_keypoints, labelled, look_like_tracks
from socodet.errors import InputError, UnreadableImageError
from socodet.images.file_header import image_file_size
from socodet.images.lists import locate_images, read_lines, spelled_as_in
from socodet.images.reach import points_outside
from socodet.images.spelling import composed
from socodet.runtime.notices import notice
from socodet.runtime.threads import map_files

NO_LABELS = frozenset({*NAMES, "notes.txt", "train.txt", "val.txt", "valid.txt", "test.txt"})
"""Names of text files beside label files that are not label files."""


@dataclass
class _Reading:
    """What is collected while a split is read."""

    problems: AnnotationProblems = field(default_factory=AnnotationProblems)
    listings: FolderListings = field(default_factory=folder_listings)
    lines: dict[Path, list[LabelLine]] = field(default_factory=dict)
    """The objects of each image."""
    broken: set[Path] = field(default_factory=set)
    """Images with lines in their label file, none of which is a label."""


class _Folder(NamedTuple):
    """The images of a split in one folder."""

    images: Sequence[Path]
    labels: AnnotationFolder | None
    whole: bool
    """Whether these are all images of the folder."""


def read_yolo(described: YoloDataset, split: str) -> DetectionDataset:
    """The images of a split with their objects, sorted or in the order of their list; sizes are read from the images.

    An image without a label file has no objects. InputError if no image can be used, hardly any image has a label file,
    hardly any line is a label, no object has a known class, or boxes are not fractions of the image.
    """
    reading = _Reading()
    problems = reading.problems
    labels = LabelReader(problems, described.keypoints)
    folders = list(_folders(described, split, reading))
    ambiguous = _ambiguous(described, split, folders, reading)
    for folder in folders:
        _read_folder(folder, labels, ambiguous, reading)
    about = f"{described.about}, {split}"
    _note_other_classes(described, folders, reading)
    if not reading.lines:
        raise InputError(f"{about}: none of its images can be used: {'; '.join(problems.lines()) or 'there is none'}")
    if labels.broken > NEARLY_ALL * labels.lines:
        raise InputError(
            f"{about}: hardly any line is a label: {'; '.join(problems.lines())}; a label is the number of a class and "
            "a box in fractions of the image, `0 0.5 0.5 0.2 0.1`"
        )
    unlabelled = problems.counts.get(Problem.NO_LABEL_FILE, 0)
    if unlabelled > NEARLY_ALL * len(reading.lines):
        if Problem.SHARED_ANNOTATION_FILE in problems.counts:
            raise InputError(f"{about}: hardly any image has a label file of its own: {'; '.join(problems.lines())}")
        raise InputError(
            f"{about}: {unlabelled:,} of {len(reading.lines):,} images have no label file (first: "
            f"{problems.first[Problem.NO_LABEL_FILE]}); put them into labels/ beside images/, or beside the images"
        )
    _refuse_keypoints(about, described, reading)
    categories = described.categories or _numbered_classes(described.about, reading.lines)
    note_shifted_labels(
        described.about, categories, {line.category for lines in reading.lines.values() for line in lines}
    )
    label_of = labels_of(categories)
    found = []
    sizes = sizes_of(list(reading.lines), image_file_size)
    for (file, lines), size in zip(reading.lines.items(), sizes, strict=True):
        if isinstance(size, OSError | UnreadableImageError):
            problems.add(Problem.BROKEN_IMAGE, f"{file}: {size}")
            continue
        width, height = size
        listed_image = ListedImage(_name(file, described.images or described.root), file.name, height, width, {})
        objects = labelled(lines, size, label_of, problems)
        found.append(FoundImage(file, listed_image, objects, annotated=file in reading.broken or bool(lines)))
    unknown = problems.counts.get(Problem.UNKNOWN_CATEGORY, 0)
    if not found or (unknown and not any(image.objects for image in found)):
        raise InputError(f"{about}: nothing in it can be used: {'; '.join(problems.lines())}")
    check_box_form(described.about, "cxcywh-shares", [image.written_boxes for image in found])
    return dataset_from_entries(
        split_name(described.root, split), categories, found, "coco", "cxcywh-shares", problems, described.about
    )


def _folders(described: YoloDataset, split: str, reading: _Reading) -> Iterator[_Folder]:
    for place in described.splits[split]:
        listed = place.is_file()
        found = _listed_images(place, described.images, reading) if listed else images_below(place)
        for images in by_folder(found).values():
            yield _Folder(images, described.label_folder(images, reading.listings), not listed)


def _note_other_classes(described: YoloDataset, folders: Sequence[_Folder], reading: _Reading) -> None:
    """Prints a note if a file beside the labels, as labelImg writes it, names other classes than the dataset's file."""
    names = [category.name for category in described.categories or ()]
    for place in {folder.labels.path for folder in folders if folder.labels}:
        for file in (place / name for name in NAMES if place / name in reading.listings):
            lines = _lines_or_error(file)
            if names and not isinstance(lines, InputError) and [line for line in lines if line] != names:
                notice(f"{file}: names other classes than {described.about}; the names of the latter are used")


def _refuse_keypoints(about: str, described: YoloDataset, reading: _Reading) -> None:
    """InputError if lines that would be read as outlines seem to hold keypoints, or tracks."""
    lines = [line for found in reading.lines.values() for line in found]
    if look_like_tracks(lines):
        raise InputError(
            f"{about}: its lines seem to end with a confidence and a track id, like detections in a video (first: "
            f"{lines[0].where}); remove these two numbers"
        )
    shape = None if described.keypoints else guess_keypoints(lines)
    if shape:
        raise InputError(
            f"{about}: its lines seem to be boxes with {shape[0]} keypoints of {shape[1]} numbers, not outlines "
            f"(first: {lines[0].where}); give a data.yaml with kpt_shape: [{shape[0]}, {shape[1]}]"
        )


def _ambiguous(
    described: YoloDataset, split: str, folders: Sequence[_Folder], reading: _Reading
) -> Mapping[Path, Sequence[Path]]:
    """Images whose label file may belong to another image, in any split: see `same_named_images`."""
    if not any(folder.labels and folder.labels.shared for folder in folders):
        return {}
    everywhere = list(folders)
    for other in described.splits:
        try:
            if other != split:
                described.check(other)
                everywhere += _folders(described, other, _Reading(listings=reading.listings))
        except InputError:  # reported when that split is read
            continue
    return same_named_images((folder.images, folder.labels) for folder in everywhere)


def _read_folder(
    folder: _Folder, labels: LabelReader, ambiguous: Mapping[Path, Sequence[Path]], reading: _Reading
) -> None:
    images, place, whole = folder
    problems = reading.problems
    owner: dict[Path, Path] = {}
    files: dict[Path, Path] = {}
    for image in images:
        if image in reading.lines:
            problems.add(Problem.REPEATED_IMAGE, str(image))
            continue
        file = None if place is None else reading.listings.file(place.path, image.stem, ".txt")
        if file is None:
            problems.add(Problem.NO_LABEL_FILE, str(image))
            reading.lines[image] = []
            continue
        if owner.setdefault(file, image) != image:
            problems.add(Problem.NO_ANNOTATION_FILE, f"{image}, as {file} belongs to {owner[file].name}")
            continue
        if image in ambiguous:
            problems.add(Problem.SHARED_ANNOTATION_FILE, f"{file} for {' and '.join(map(str, ambiguous[image]))}")
            continue
        files[image] = file
        reading.lines[image] = []  # in its place
    for image, text in zip(files, map_files(_lines_or_error, list(files.values())), strict=True):
        if isinstance(text, InputError):
            problems.add(Problem.BROKEN_ANNOTATION_FILE, str(text))
            del reading.lines[image]
        else:
            reading.lines[image] = labels.read(files[image], text)
            if any(text) and not reading.lines[image]:
                reading.broken.add(image)
    if whole and place is not None and not place.shared:
        stems = {composed(image.stem) for image in images}
        names = {
            name
            for name in reading.listings.names(place.path)
            if name.lower().endswith(".txt") and name.lower() not in NO_LABELS and not name.startswith(OF_MACOS)
        }
        for name in sorted(names):
            if composed(name[: -len(".txt")]) not in stems:
                problems.add(Problem.NO_IMAGE_FOR_LABELS, str(place.path / name))


def _lines_or_error(file: Path) -> list[str] | InputError:
    try:
        return read_lines(file)
    except InputError as error:
        return error


def _listed_images(file: Path, images: Path | None, reading: _Reading) -> list[Path]:
    names = [line for line in read_lines(file) if line and not line.startswith("#")]
    if not names:
        raise InputError(f"{file}: lists no image; write one path a line")
    root, keys = locate_images(file, names) if images is None else (images, spelled_as_in(images, names, file))
    found = []
    for key in keys:
        astray = points_outside(key, file, root)
        image = None if astray else reading.listings.spelled(root, key)
        if astray:
            reading.problems.add(Problem.NAME_ASTRAY, f"{file}: {root / key}")
        elif image is None:
            reading.problems.add(Problem.MISSING_IMAGE, str(root / key))
        else:
            found.append(image)
            if image != root / key:
                reading.problems.add(Problem.OTHER_SUFFIX, f"{file}: {key} is {image.name}")
    return found


def _numbered_classes(about: Path, lines: Mapping[Path, Sequence[LabelLine]]) -> tuple[Category, ...]:
    ids = {line.category for found in lines.values() for line in found if line.category >= 0} or {0}
    notice(f"{about}: no file names its classes, so their numbers serve as names; to name them, add a classes.txt")
    return tuple(Category(one, str(one)) for one in sorted(ids))


def _name(file: Path, root: Path) -> str:
    """The file's path, relative to the root if it is below it; unique in the dataset either way."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()
