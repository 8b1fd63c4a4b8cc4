"""How often a picture is shown where some kinds of objects are rare (LVIS: Gupta et al. 2019, appendix B)."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset

REPEAT_THRESHOLD = 0.001


def repeat_factors(dataset: DetectionDataset, threshold: float = REPEAT_THRESHOLD) -> NDArray[np.float64]:
    """(N,): how often each picture is to be shown in an epoch, at least once.

    f(c) is the fraction of pictures that show category c; r(c) = max(1, sqrt(threshold / f(c))); a picture's factor
    is the largest r(c) among the categories it shows, 1 for a picture that shows none.
    """
    shown = [set(image.labels.tolist()) for image in dataset.images]
    pictures = Counter(label for labels in shown for label in labels)
    factor = {label: max(1.0, (threshold * len(dataset) / count) ** 0.5) for label, count in pictures.items()}
    return np.array([max((factor[label] for label in labels), default=1.0) for labels in shown])


def repeated_indices(factors: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """The pictures of one epoch, in order, each repeated by its factor, whose fraction is the chance of once more."""
    times = np.floor(factors).astype(np.int64)
    times += generator.random(len(factors)) < factors - times
    return np.repeat(np.arange(len(factors)), times)
