"""A share of a set's images held back for validation."""

from dataclasses import replace

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.mini import drawn_order
from socodet.detection.datasets.problems import AnnotationProblems
from socodet.errors import InputError


def hold_out(dataset: DetectionDataset, share: float, seed: int) -> tuple[DetectionDataset, DetectionDataset]:
    """Training and validation images, in the order of the set; the choice depends on the seed and the images' ids only.

    The set's problems stay with the training images. InputError when one of the two would be empty.
    """
    count = round(share * len(dataset))
    if not 0 < count < len(dataset):
        raise InputError(
            f"{dataset.name}: --val-share {share:g} of {len(dataset):,} images leaves "
            f"{'none to train on' if count else 'none to score on'}; choose another share, or give a set with --val"
        )
    held = set(drawn_order(dataset, f"val {seed}")[:count])
    parts = (
        (1 - share, [index for index in range(len(dataset)) if index not in held]),
        (share, sorted(held)),
    )
    train, val = (dataset.select(indices, f"{dataset.name}, {100 * size:.3g}%") for size, indices in parts)
    return train, replace(val, problems=AnnotationProblems())
