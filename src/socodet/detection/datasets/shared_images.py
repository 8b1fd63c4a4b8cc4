"""Which images two sets share, wherever they are stored."""

import hashlib
import json
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.runtime.files import write_atomically


def write_images(dataset: DetectionDataset, file: Path) -> None:
    """The set's images as JSON: their ids, so that others can train on the same, and what tells them from others."""
    content = {
        "name": dataset.name,
        "images": len(dataset),
        "image_ids": [image.image_id for image in dataset.images],
        "digests": sorted(_digests(dataset)),
    }
    write_atomically(file, json.dumps(content).encode() + b"\n")


def images_shared(dataset: DetectionDataset, file: Path) -> int:
    """How many images of a set, of those with objects, are among those that `write_images` wrote; 0 without a file."""
    try:
        there = set(json.loads(file.read_text())["digests"])
    except (OSError, ValueError, LookupError, TypeError):  # also of a version that did not write them
        return 0
    return sum(_digest(image) in there for image in dataset.images if len(image))


def _digests(dataset: DetectionDataset) -> set[str]:
    return {_digest(image) for image in dataset.images if len(image)}


def _digest(image: ImageAnnotations) -> str:
    """Ids, and images without an object, can be alike in different sets; names and boxes together hardly are."""
    name = f"{image.file.name}\0{image.width}x{image.height}\0".encode(errors="surrogatepass")
    return hashlib.blake2b(name + image.boxes.tobytes(), digest_size=8).hexdigest()
