"""Scores by name, and those of each class."""

from socodet.detection.datasets.annotations import DetectionDataset


class Scores(dict[str, float]):
    """Scores of a whole set in percent by name, such as `box_AP`; nan where there is nothing to score."""

    def __init__(self) -> None:
        super().__init__()
        self.of_classes: dict[str, dict[str, float]] = {}
        """By class name: `objects`, those that count, then the class's AP and AP50 by the same names."""


def begin_scores(dataset: DetectionDataset) -> Scores:
    """Scores in which every class has its number of objects and nothing else yet.

    Crowd regions and difficult objects do not count. Of classes that share a name, the second gets its id beside it.
    """
    scores = Scores()
    counts = dataset.object_counts()
    for category, count in zip(dataset.categories, counts, strict=True):
        name = f"{category.name} ({category.id})" if category.name in scores.of_classes else category.name
        scores.of_classes[name] = {"objects": count}
    return scores
