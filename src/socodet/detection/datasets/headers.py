"""Checks by their headers, without decoding, whether image files match their annotations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.errors import UnreadableImageError
from socodet.runtime.notices import log_if_slow
from socodet.runtime.progress import progress_bar
from socodet.runtime.threads import map_files

T = TypeVar("T")
Size = tuple[int, int]
"""Width and height."""
MANY = 10_000
"""Number of images from which the check shows a progress bar."""


def sizes_of(
    images: Sequence[T], size: Callable[[T], Size], name: Callable[[T], str] = str
) -> Iterator[Size | OSError | UnreadableImageError]:
    """The `size` of each image in order, or why it cannot be read; name: what to call an image that takes long."""
    return map_files(lambda image: _size_or_error(image, size), images, name)


def _size_or_error(image: T, size: Callable[[T], Size]) -> Size | OSError | UnreadableImageError:
    try:
        return size(image)
    except (OSError, UnreadableImageError) as error:
        return error


def unusable_images(dataset: DetectionDataset, *, show_progress: bool = False) -> AnnotationProblems:
    """Counts images that cannot be read or differ in size from their annotation; they stay in the dataset.

    In training such an image is replaced by another; in evaluation its objects count as missed.
    """
    problems = AnnotationProblems()
    bar = show_progress and len(dataset) >= MANY
    with (
        log_if_slow(f"{dataset.name}: checking its images", show=show_progress and not bar),
        progress_bar("check images", len(dataset), show=bar) as progress,
    ):
        for image, fault in zip(dataset.images, _header_problems(dataset), strict=True):
            if fault is not None:
                problems.add(Problem.UNUSABLE_IMAGE, f"{image.file}: {fault}")
            progress.advance()
    return problems


def without_broken_images(dataset: DetectionDataset) -> DetectionDataset:
    """Leaves out, and counts, images that cannot be read or differ in size from their annotation.

    Damage after the header is found only when an image is decoded.
    """
    problems = AnnotationProblems() + dataset.problems
    sound = []
    with log_if_slow(f"{dataset.name}: checking its images"):
        for index, (image, fault) in enumerate(zip(dataset.images, _header_problems(dataset), strict=True)):
            if fault is None:
                sound.append(index)
            else:
                problems.add(Problem.BROKEN_IMAGE, f"{image.file}: {fault}")
    return replace(dataset.select(sound, dataset.name), problems=problems)


def size_mismatch(size: Size, annotated: Size) -> str:
    """The message for an image whose size differs from its annotation."""
    swapped = " (width and height are swapped, or its EXIF rotation is left out)" if size == annotated[::-1] else ""
    return f"{size[0]}x{size[1]}, annotated as {annotated[0]}x{annotated[1]}{swapped}"


def _header_problems(dataset: DetectionDataset) -> Iterator[str | None]:
    """What is wrong with each image, or None."""
    found = sizes_of(dataset.images, lambda image: image.size_by_header(), lambda image: str(image.file))
    for image, size in zip(dataset.images, found, strict=True):
        if isinstance(size, OSError):
            yield f"cannot be read ({size.strerror or size})"
        elif isinstance(size, UnreadableImageError):
            yield str(size)
        elif size != (image.width, image.height):
            yield size_mismatch(size, (image.width, image.height))
        else:
            yield None
