"""The measures of a probe: one encoder, a training and a validation set of annotated pictures."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import torch

from socodet.detection.datasets import DetectionDataset
from socodet.detection.datasets.layouts import require_same_categories
from socodet.detection.datasets.mini import mini_set
from socodet.errors import InputError
from socodet.models.encoders import ObjectEncoder
from socodet.probing.classify import accuracies, logistic_regression, mean_cosines, nearest_neighbours, recall_of_rows
from socodet.probing.features import ObjectFeatures, object_features, reestimate_on
from socodet.probing.pictures import Asked, ProbePictures, objects_asked_for
from socodet.runtime.progress import progress_bar
from socodet.runtime.settings import NonNegativeInt, PositiveInt, Range, Settings
from socodet.views import warm_up
from socodet.views.settings import SampleSettings


@dataclass(frozen=True)
class ProbeSettings(Settings):
    """What is looked at; the measures themselves are fixed (docs/probe.md)."""

    size: Annotated[int, Range(32)] | None = None
    """Side of the square a picture is made, pixels; by default that of the run's first view."""
    train_pictures: PositiveInt | None = 2000
    """Look at so many of the training pictures at most, chosen by the seed; None for all."""
    val_pictures: PositiveInt | None = 1000
    """The same of the validation pictures."""
    of: Literal["head", "backbone"] = "head"
    """Whose vector of an object: the box head's (h of Eq. 1), or that of the backbone alone, RoIAlign of its last
    stage averaged, by which runs with and without FPN and head can be compared."""
    seed: NonNegativeInt = 0
    """Of the choice of pictures and of the other views; not the run's, so that all runs are asked the same."""


@dataclass(frozen=True)
class ProbeScores:
    """What a probe found; all but counts and sides are shares or cosines, at most 1."""

    knn: float
    """Share of the validation objects whose kind the nearest training objects tell."""
    knn_balanced: float
    """The same as the mean over kinds."""
    linear: float
    """Share of them whose kind logistic regression tells."""
    linear_balanced: float
    """The same as the mean over kinds."""
    largest_kind: float
    """Accuracy of always naming the commonest kind of the training objects."""
    recall_at_1: float | None
    """Share of objects found again in another view; None where those views show none."""
    recall_objects: int
    """Asked for, and searched among."""
    scale_cosine: float
    """Mean cosine of an object at the side and at half of it."""
    others_cosine: float | None
    """The same of two different objects, to compare it with; None where there is one object only."""
    size: int
    """Side of the pictures."""
    train: Asked
    val: Asked

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def figures(self) -> dict[str, float]:
        """For a line of a run's log."""
        names = ("knn", "knn_balanced", "linear", "linear_balanced", "recall_at_1", "scale_cosine", "others_cosine")
        values = {f"probe_{name}": getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ProbeSets:
    """Training and validation pictures, and the objects that are asked for in them."""

    train: DetectionDataset
    val: DetectionDataset

    @classmethod
    def chosen(cls, train: DetectionDataset, val: DetectionDataset, settings: ProbeSettings) -> "ProbeSets":
        """As many pictures as the settings allow. InputError where a label means another kind in the other set."""
        require_same_categories(train, val)
        return cls(
            _some(train, settings.train_pictures, settings.seed), _some(val, settings.val_pictures, settings.seed)
        )


def _some(dataset: DetectionDataset, count: int | None, seed: int) -> DetectionDataset:
    if count is None or count >= len(dataset):
        return dataset
    return mini_set(dataset, count / len(dataset), seed)


def probe_encoder(
    encoder: ObjectEncoder,
    sets: ProbeSets,
    sample: SampleSettings,
    settings: ProbeSettings,
    *,
    fresh_statistics: bool = False,
    workers: int = 0,
    show_progress: bool = False,
) -> ProbeScores:
    """Every measure of an encoder that is on its device already; `sample` gives its level rule and side.

    fresh_statistics: its batch norms take theirs from the training pictures first, as a network that never trained
    must. InputError when a set has no object to ask for.
    """
    size = settings.size or sample.views[0].size
    warm_up()
    pictures, counts = [], []
    for dataset, all_views in ((sets.train, False), (sets.val, True)):
        objects, asked = objects_asked_for(dataset)
        pictures.append(ProbePictures(dataset, objects, size, sample, all_views=all_views, seed=settings.seed))
        counts.append(asked)
    passes = [pictures[0]] * fresh_statistics + pictures
    with progress_bar("probe", sum(map(len, passes)), show=show_progress) as progress:
        if fresh_statistics:
            reestimate_on(encoder, pictures[0], workers, progress)
        training, validation = (object_features(encoder, shown, workers, progress) for shown in pictures)
    return _scores(training, validation, size, _seen(counts[0], training), _seen(counts[1], validation))


def _seen(asked: Asked, found: ObjectFeatures) -> Asked:
    """The counts after reading. InputError when nothing is left."""
    if not len(found.labels):
        raise InputError(
            f"{asked.name}: has no object to ask for (left out: {asked.crowd} crowd regions, {asked.difficult} "
            f"difficult, {asked.small} small; {found.unreadable} pictures unreadable); give another set"
        )
    return replace(asked, objects=len(found.labels), unreadable=found.unreadable)


def _scores(training: ObjectFeatures, validation: ObjectFeatures, size: int, train: Asked, val: Asked) -> ProbeScores:
    right = validation.labels
    knn, knn_balanced = accuracies(nearest_neighbours(training.plain, training.labels, validation.plain), right)
    classifier = logistic_regression(training.plain, training.labels)
    linear, linear_balanced = accuracies(classifier.predict(validation.plain), right)
    commonest = torch.full_like(right, int(training.labels.bincount().argmax()))
    queries = validation.plain[validation.in_other]
    same, others = mean_cosines(validation.plain, validation.half)
    return ProbeScores(
        knn=knn,
        knn_balanced=knn_balanced,
        linear=linear,
        linear_balanced=linear_balanced,
        largest_kind=accuracies(commonest, right)[0],
        recall_at_1=recall_of_rows(queries, validation.other) if len(queries) else None,
        recall_objects=len(queries),
        scale_cosine=same,
        others_cosine=others,
        size=size,
        train=train,
        val=val,
    )
