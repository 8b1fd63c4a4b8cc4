"""Subsets of a training set: Mini COCO (Section 4.5, Table 8), and label-efficiency curves."""

import hashlib

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.errors import InputError


def mini_set(dataset: DetectionDataset, fraction: float, seed: int = 0) -> DetectionDataset:
    """The given fraction of the images, at least one, chosen by the seed; they keep their order.

    The choice depends only on a hash of the seed and each image's id. A smaller subset lies within a larger one of the
    same seed, whatever the order of the file or the version of a random generator.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"the fraction of {dataset.name} must be more than 0 and at most 1, not {fraction:g}")
    count = max(1, round(fraction * len(dataset)))
    return dataset.select(
        sorted(drawn_order(dataset, seed)[:count]), f"{dataset.name} {fraction:.3g} of it, seed {seed}"
    )


def drawn_order(dataset: DetectionDataset, seed: int | str) -> list[int]:
    """The indices of the images in an order that the seed decides, whatever their order in the set."""
    return sorted(range(len(dataset)), key=lambda index: _draw(seed, dataset.images[index].image_id))


def _draw(seed: int | str, image_id: int | str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode(errors="surrogatepass")).digest()
