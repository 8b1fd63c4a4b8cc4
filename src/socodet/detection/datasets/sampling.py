"""Repeat-factor sampling for datasets with rare classes (LVIS: Gupta et al. 2019, appendix B)."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset

REPEAT_THRESHOLD = 0.001


def repeat_factors(dataset: DetectionDataset, threshold: float = REPEAT_THRESHOLD) -> NDArray[np.float64]:
    """(N,): how often each image is shown per epoch, at least once.

    f(c) is the fraction of images with category c, and r(c) = max(1, sqrt(threshold / f(c))). An image's factor is the
    largest r(c) of its categories, or 1 if it has none.
    """
    shown = [set(image.labels.tolist()) for image in dataset.images]
    images = Counter(label for labels in shown for label in labels)
    factor = {label: max(1.0, (threshold * len(dataset) / count) ** 0.5) for label, count in images.items()}
    return np.array([max((factor[label] for label in labels), default=1.0) for labels in shown])
