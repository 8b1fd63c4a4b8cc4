"""Whether image files match their annotations, checked by their headers without decoding them."""

from dataclasses import replace

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.errors import UnreadableImageError
from socodet.runtime.progress import progress_bar

MANY = 10_000
"""Images whose check takes long enough for a progress bar."""


def unusable_images(dataset: DetectionDataset, *, show_progress: bool = False) -> AnnotationProblems:
    """Counts images that cannot be read or differ in size from their annotation; they stay in the set.

    In training such an image is replaced by another; in evaluation its objects count as missed.
    """
    problems = AnnotationProblems()
    with progress_bar("check images", len(dataset), show=show_progress and len(dataset) >= MANY) as progress:
        for image in dataset.images:
            fault = _fault(image)
            if fault is not None:
                problems.add(Problem.UNUSABLE_IMAGE, f"{image.file}: {fault}")
            progress.advance()
    return problems


def without_broken_images(dataset: DetectionDataset) -> DetectionDataset:
    """Leaves out, and counts, images that cannot be read or differ in size from their annotation.

    Damage behind the header is found only when an image is decoded.
    """
    problems = AnnotationProblems() + dataset.problems
    sound = []
    for index, image in enumerate(dataset.images):
        fault = _fault(image)
        if fault is None:
            sound.append(index)
        else:
            problems.add(Problem.BROKEN_IMAGE, f"{image.file}: {fault}")
    return replace(dataset.select(sound, dataset.name), problems=problems)


def _fault(image: ImageAnnotations) -> str | None:
    try:
        width, height = image.size_by_header()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except UnreadableImageError as error:
        return str(error)
    if (width, height) != (image.width, image.height):
        return f"{width}x{height}, annotated as {image.width}x{image.height}"
    return None
