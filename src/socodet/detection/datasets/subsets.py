"""Subsets of a dataset: Mini COCO (section 4.5, Table 8), label-efficiency curves, a share held back for validation."""

import hashlib
from dataclasses import replace

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.problems import AnnotationProblems
from socodet.errors import InputError

COPY = ".rf."
"""The text between name and hash in the file names that Roboflow gives to an image and its augmented copies."""


def mini_dataset(dataset: DetectionDataset, fraction: float, seed: int = 0) -> DetectionDataset:
    """The given fraction of the images, at least one, chosen by the seed; they keep their order.

    The choice depends only on a hash of the seed and each image's id, not on the order of the file or the version of a
    random generator. With the same seed, a smaller subset is contained in a larger one.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"the fraction of {dataset.name} must be more than 0 and at most 1, not {fraction:g}")
    count = max(1, round(fraction * len(dataset)))
    return dataset.select(
        sorted(_drawn_order(dataset, seed)[:count]), f"{dataset.name}, {fraction:.3g} of it, seed {seed}"
    )


def hold_out(dataset: DetectionDataset, share: float, seed: int) -> tuple[DetectionDataset, DetectionDataset]:
    """Training and validation images, in the dataset's order; the choice depends only on the seed and the images' ids.

    Copies that Roboflow made of one image stay together: if some were trained on, scores on the others would be too
    high. The dataset's problems stay with the training images. InputError when one of the two would be empty.
    """
    count = round(share * len(dataset))
    held = _first_of_groups(dataset, f"val {seed}", count)
    if not 0 < len(held) < len(dataset):
        raise InputError(
            f"{dataset.name}: --val-share {share:g} of {len(dataset):,} images leaves "
            f"{'none to train on' if count else 'none to score on'}; choose another share, or give a dataset with --val"
        )
    parts = (
        (1 - share, [index for index in range(len(dataset)) if index not in held]),
        (share, sorted(held)),
    )
    train, val = (dataset.select(indices, f"{dataset.name}, {100 * size:.3g}%") for size, indices in parts)
    return train, replace(val, problems=AnnotationProblems())


def _first_of_groups(dataset: DetectionDataset, seed: str, count: int) -> set[int]:
    """At least `count` images: the first in the drawn order, with the copies of each."""
    copies: dict[str, list[int]] = {}
    for index, image in enumerate(dataset.images):
        origin, of_roboflow, _ = image.file.stem.rpartition(COPY)
        copies.setdefault(origin if of_roboflow else f"{index}/", []).append(index)
    of_index = {index: same for same in copies.values() for index in same}
    held: set[int] = set()
    for index in _drawn_order(dataset, seed):
        if len(held) >= count:
            break
        held.update(of_index[index])
    return held


def _drawn_order(dataset: DetectionDataset, seed: int | str) -> list[int]:
    """The indices of the images in an order that depends on the seed, not on their order in the dataset."""
    return sorted(range(len(dataset)), key=lambda index: _draw(seed, dataset.images[index].image_id))


def _draw(seed: int | str, image_id: int | str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode(errors="surrogatepass")).digest()
