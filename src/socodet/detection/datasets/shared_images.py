"""Finds the images that two datasets share, wherever they are stored."""

import hashlib
import json
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.errors import InputError
from socodet.runtime.files import write_atomically


def write_images(dataset: DetectionDataset, file: Path) -> None:
    """Writes the dataset's images as JSON: their ids, so that others can train on them, and what identifies them."""
    content = {
        "name": dataset.name,
        "images": len(dataset),
        "image_ids": [image.image_id for image in dataset.images],
        "digests": sorted(_digests(dataset)),
    }
    write_atomically(file, json.dumps(content).encode() + b"\n")


def count_shared_images(dataset: DetectionDataset, file: Path) -> int:
    """How many images of a dataset, among those with objects, `write_images` wrote to `file`; 0 without a file."""
    try:
        there = set(json.loads(file.read_text())["digests"])
    except (OSError, ValueError, LookupError, TypeError):  # including versions that did not write this
        return 0
    return sum(_digest(image) in there for image in dataset.images if len(image))


def note_on_shared(train: DetectionDataset, val: DetectionDataset) -> str | None:
    """A warning about scores on `val` if some of its images are also in `train`, otherwise None.

    Images are recognised by their files, and copies elsewhere by their names, boxes and contents.
    """
    there = {_digest(image): image for image in train.images if len(image)}
    files = {image.file for image in train.images}
    shared = sum(
        image.file in files
        or (len(image) > 0 and (other := there.get(_digest(image))) is not None and _is_same(image, other))
        for image in val.images
    )
    if not shared:
        return None
    return (
        f"note: {val.name}: {shared:,} of its {len(val):,} images are also in {train.name}, the training set; "
        "scores on them are higher than on new images, so keep the two sets apart"
    )


def _digests(dataset: DetectionDataset) -> set[str]:
    return {_digest(image) for image in dataset.images if len(image)}


def _is_same(one: ImageAnnotations, other: ImageAnnotations) -> bool:
    """Whether two images with the same name and boxes, such as one box around everything, have the same content."""
    try:
        return one.read() == other.read()
    except (OSError, InputError):
        return False


def _digest(image: ImageAnnotations) -> str:
    """A digest of name and boxes, which hardly coincide in different datasets, unlike ids or images without objects."""
    name = f"{image.file.name}\0{image.width}x{image.height}\0".encode(errors="surrogatepass")
    return hashlib.blake2b(name + image.boxes.tobytes(), digest_size=8).hexdigest()
