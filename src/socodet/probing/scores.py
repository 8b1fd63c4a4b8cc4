"""Probes one encoder on annotated training and validation images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from socodet.errors import InputError
from socodet.models.encoders import ObjectEncoder
from socodet.probing.classifiers import accuracies, logistic_regression, nearest_neighbours
from socodet.probing.datasets import ProbeDatasets
from socodet.probing.features import ObjectFeatures, object_features, reestimate_on
from socodet.probing.retrieval import mean_cosines, recall_of_rows
from socodet.probing.samples import ObjectCounts, ProbeDataset, batch_bytes, probed_objects
from socodet.probing.settings import ProbeSettings
from socodet.runtime.progress import progress_bar
from socodet.training.devices import workers_for
from socodet.views.rendering import warm_up
from socodet.views.settings import SampleSettings


@dataclass(frozen=True)
class ProbeScores:
    """The results of a probe. Everything except counts and sizes is a share or a cosine, at most 1."""

    knn: float
    """Accuracy of predicting a validation object's class from its nearest training objects."""
    knn_balanced: float
    """The same, averaged over classes."""
    linear: float
    """Accuracy of logistic regression on the validation objects."""
    linear_balanced: float
    """The same, averaged over classes."""
    largest_class: float
    """Accuracy of always predicting the most frequent class of the training objects."""
    recall_at_1: float | None
    """Share of objects found again in another view; None if these views show none."""
    recall_objects: int
    """Number of objects searched for; each is searched among all of them."""
    scale_cosine: float
    """Mean cosine of an object's features at full and at half size."""
    others_cosine: float | None
    """The same for pairs of different objects, as a reference; None if there is only one object."""
    size: int
    """Side of the images in pixels."""
    train: ObjectCounts
    val: ObjectCounts

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """The scores for a line of a run's log."""
        names = ("knn", "knn_balanced", "linear", "linear_balanced", "recall_at_1", "scale_cosine", "others_cosine")
        values = {f"probe_{name}": getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def probe_encoder(
    encoder: ObjectEncoder,
    sets: ProbeDatasets,
    sample: SampleSettings,
    settings: ProbeSettings,
    *,
    fresh_statistics: bool = False,
    workers: int | None = 0,
    show_progress: bool = False,
    stop: Sequence[str] = (),
) -> ProbeScores:
    """All scores of an encoder, computed on its device; `sample` gives the pyramid-level rule and the default size.

    workers: processes that read images; None for the default (`workers_for`).
    fresh_statistics: first estimate batch-norm statistics on the training images, as an untrained network needs.
    Raises InputError when a dataset has no object to probe, and StoppedEarlyError once the list `stop` has an element.
    """
    size = settings.size or sample.views[0].size
    warm_up()
    datasets, counts = [], []
    for dataset, all_views in ((sets.train, False), (sets.val, True)):
        objects, counted = probed_objects(dataset)
        datasets.append(ProbeDataset(dataset, objects, size, sample, all_views=all_views, seed=settings.seed))
        counts.append(counted)
    device = next(encoder.parameters()).device
    workers = workers_for(workers, device, batch_bytes(size), show_note=show_progress)
    passes = [datasets[0]] * fresh_statistics + datasets
    with progress_bar("probe", sum(map(len, passes)), show=show_progress) as progress:
        if fresh_statistics:
            reestimate_on(encoder, datasets[0], workers, progress)
        training, validation = (object_features(encoder, dataset, workers, progress, stop) for dataset in datasets)
    left = _readable(counts[0], training), _readable(counts[1], validation)
    return _scores(training, validation, size, *left, stop)


def _readable(counts: ObjectCounts, features: ObjectFeatures) -> ObjectCounts:
    """The counts after reading the images. Raises InputError when no object is left."""
    if not len(features.labels):
        raise InputError(
            f"{counts.name}: has no object to probe (left out: {counts.crowd} crowd regions, {counts.difficult} "
            f"difficult, {counts.small} small; {features.unreadable} images unreadable); give another dataset"
        )
    return replace(counts, objects=len(features.labels), unreadable=features.unreadable)


def _scores(
    training: ObjectFeatures,
    validation: ObjectFeatures,
    size: int,
    train: ObjectCounts,
    val: ObjectCounts,
    stop: Sequence[str],
) -> ProbeScores:
    labels = validation.labels
    knn, knn_balanced = accuracies(nearest_neighbours(training.plain, training.labels, validation.plain), labels)
    classifier = logistic_regression(training.plain, training.labels, stop=stop)
    linear, linear_balanced = accuracies(classifier.predict(validation.plain), labels)
    commonest = torch.full_like(labels, int(training.labels.bincount().argmax()))
    queries, gallery = validation.plain[validation.in_other][validation.once], validation.other[validation.once]
    same, others = mean_cosines(validation.plain, validation.half)
    return ProbeScores(
        knn=knn,
        knn_balanced=knn_balanced,
        linear=linear,
        linear_balanced=linear_balanced,
        largest_class=accuracies(commonest, labels)[0],
        recall_at_1=recall_of_rows(queries, gallery) if len(queries) else None,
        recall_objects=len(queries),
        scale_cosine=same,
        others_cosine=others,
        size=size,
        train=train,
        val=val,
    )
