"""Finds the images that two datasets share, wherever they are stored."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.errors import InputError
from socodet.runtime.files import open_file, write_atomically
from socodet.runtime.notices import log_if_slow
from socodet.runtime.threads import map_files

EXCERPT = 4096
"""How many bytes of files of equal size are compared first."""
PART = 2**20
"""How many bytes are read at once."""


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

    Images are recognised by their files, and copies of files by their contents, whatever they are called; images that
    are not files, by their names, boxes and contents.
    """
    with log_if_slow(f"{val.name}: comparing its images with those of {train.name}"):
        copied = _copied_files(train, val)
    of_file = {image.file: image.file for image in train.images} | copied
    named = {_digest(image): image for image in train.images if len(image)}
    shared: list[tuple[Path, Path]] = []
    for image in val.images:
        other = of_file.get(image.file)
        if other is None and image.stored and len(image):
            same = named.get(_digest(image))
            other = same.file if same is not None and _is_same(image, same) else None
        if other is not None:
            shared.append((image.file, other))
    if not shared:
        return None
    first = " is ".join(map(str, dict.fromkeys(shared[0])))
    return (
        f"note: {val.name}: {len(shared):,} of its {len(val):,} images are also in {train.name}, the training set "
        f"(first: {first}); scores on them are higher than on new images, so take them out of one of the two"
    )


def _copied_files(train: DetectionDataset, val: DetectionDataset) -> dict[Path, Path]:
    """Files of `val` with the contents of another file of `train`, and that file.

    Whole files are read only if their sizes and an excerpt coincide.
    """
    there, here = ({image.file for image in data.images if not image.stored} for data in (train, val))
    known: dict[Path, tuple[int | bytes, ...]] = dict.fromkeys((there | here) - (there & here), ())
    fingerprints: list[Callable[[Path], int | bytes]] = [_size, _excerpt, _content]
    for fingerprint in fingerprints:
        found = zip(known.items(), map_files(fingerprint, list(known)), strict=True)
        known = {file: (*before, value) for (file, before), value in found if value}
        both = {known[file] for file in there & known.keys()} & {known[file] for file in here & known.keys()}
        known = {file: key for file, key in known.items() if key in both}
    original = {known[file]: file for file in sorted(there & known.keys(), reverse=True)}
    return {file: original[known[file]] for file in here & known.keys()}


def _size(file: Path) -> int:
    """Its bytes; 0 if it is gone."""
    with suppress(OSError):
        return file.stat().st_size
    return 0


def _excerpt(file: Path) -> bytes:
    """Some bytes from its middle; none if it cannot be read."""
    with suppress(OSError), open_file(file) as stream:
        stream.seek(_size(file) // 2)
        return stream.read(EXCERPT)
    return b""


def _content(file: Path) -> bytes:
    """A digest of the file; empty if it cannot be read."""
    digest = hashlib.blake2b()
    with suppress(OSError), open_file(file) as stream:
        while part := stream.read(PART):
            digest.update(part)
        return digest.digest()
    return b""


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
