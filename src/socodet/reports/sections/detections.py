"""Results of fine-tuned detectors on an annotated dataset: precision and recall, each class, the worst images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.classes import match_classes
from socodet.detection.inference import detect
from socodet.detection.scores import Detections
from socodet.detection.scores.outcomes import IOU, Outcome, PrecisionRecall, outcome, precision_recall, threshold_text
from socodet.finetuning.detector import load_detector
from socodet.finetuning.run import trained_categories
from socodet.reports.charts import LETTERS, chart, light_and_dark
from socodet.reports.drawing import panel_image
from socodet.reports.outcome_panels import MEANING, truth_and_detections
from socodet.reports.page import Gallery, PageImage, Section, Table
from socodet.reports.runs import RunRecord
from socodet.reports.theme import LIGHT, Theme, legend_above

SEARCHED = 200
"""Maximum number of images that the detectors run on, chosen at random."""
CLASSES = 5
"""Number of classes with their own curve: those with the most objects."""
WORST = 4
"""Number of images shown: those with the most errors."""
OPEN = 30
"""Tables with more classes are folded."""
NOTHING = "–"


@dataclass(frozen=True)
class Found:
    """What one detector found on these images."""

    name: str
    data: DetectionDataset
    """The dataset with the classes of the detector's training set."""
    found: Sequence[Detections]
    outcomes: Sequence[Outcome]
    limit: float
    """The score threshold with the highest F1; 0 without a true positive."""
    unreadable: frozenset[int]
    """Indices of images that could not be read."""

    def curve(self, label: int | None = None) -> PrecisionRecall:
        """The curve of one class, or of all together."""
        return precision_recall(self.data.images, self.found, self.outcomes, label)

    def errors(self, index: int) -> int:
        """The number of missed objects and false positives on an image at that threshold."""
        of, shown = self.outcomes[index], self.found[index].scores >= self.limit
        missed = int((of.counts & (of.found_at < self.limit)).sum())
        return missed + int((~of.true_positive & ~of.ignored & shown).sum())


def detection_sections(
    records: Sequence[RunRecord], data: DetectionDataset, device: str, *, show_progress: bool
) -> list[Section]:
    """Sections on fine-tuning runs with checkpoints, all on the same images of one annotated dataset."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(data))[:SEARCHED])
    part = replace(data, images=[data.images[index] for index in chosen])
    every = [_search(record, part, device, show_progress) for record in records]
    some = f"{len(part):,} of " if len(part) < len(data) else ""
    seen = f"{some}{len(data):,} images of {data.name}"
    return [
        _precision_section(every, seen),
        *(section for one in every if (section := _worst_section(one, several=len(every) > 1))),
    ]


def _search(record: RunRecord, data: DetectionDataset, device: str, show_progress: bool) -> Found:
    detector = load_detector(record.path, device=device)  # type: ignore[arg-type]
    data = match_classes(trained_categories(record.folder), data)
    by_image, unusable = detect(detector.network, data, precision=detector.precision, show_progress=show_progress)
    found = [by_image.get(image.image_id, Detections.none()) for image in data.images]
    outcomes = [outcome(image, one, data.style) for image, one in zip(data.images, found, strict=True)]
    best = precision_recall(data.images, found, outcomes).best
    files = {file for file, _ in unusable}
    unreadable = frozenset(index for index, image in enumerate(data.images) if str(image.file) in files)
    return Found(record.name, data, found, outcomes, 0.0 if best is None else best[0], unreadable)


def _precision_section(every: Sequence[Found], seen: str) -> Section:
    curves = [(f"{one.name}, all classes", one.curve()) for one in every]
    tables = [_class_table(one, several=len(every) > 1) for one in every]
    if len(every) == 1:
        (one,) = every
        curves = [("all classes", one.curve())]
        counts = {label: one.curve(label) for label in range(1, len(one.data.categories) + 1)}
        largest = sorted((label for label in counts if counts[label].objects), key=lambda k: -counts[k].objects)
        if len(largest) > 1:
            curves += [(one.data.categories[label - 1].name, counts[label]) for label in largest[:CLASSES]]
    return Section(
        "Precision and recall",
        f"On {seen}, by each detector's best checkpoint if it kept one. A detection finds an object of its class if "
        f"their IoU is at least {IOU:g}. Lowering the score threshold moves to the right along a curve. A good "
        "detector's curve stays near the top and reaches far to the right; where it ends, all detections have been "
        "counted.\n\n"
        "Precision and recall in the table are at the score threshold with the highest F1 over all classes.",
        [Gallery(precision_charts(curves), size="large"), *tables],
    )


def precision_charts(curves: Sequence[tuple[str, PrecisionRecall]]) -> list[PageImage]:
    """Precision over recall, one line per curve, for light and for dark pages."""
    ends = "; ".join(f"{name} reaches {_last(curve):.0%}" for name, curve in curves)
    return light_and_dark(partial(_figure, curves), "Precision over recall", "", f"Precision over recall: {ends}")


def _last(curve: PrecisionRecall) -> float:
    return float(curve.recall[-1]) if len(curve.recall) else 0.0


def _figure(curves: Sequence[tuple[str, PrecisionRecall]], *, theme: Theme = LIGHT) -> Figure:
    figure, (axes,) = chart(theme, "recall")
    named = []
    for place, (name, curve) in enumerate(curves):
        first = curve.precision[:1]
        recall, precision = np.append(0, curve.recall), np.append(first if len(first) else 0, curve.precision)
        width = 2.4 if place == 0 else 1.4
        line = axes.step(recall, precision, where="pre", linewidth=width, **theme.line(place))
        named += [(one, name) for one in line]
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_ylabel("precision", color=theme.muted, size=LETTERS)
    if len(curves) > 1:
        legend_above(figure, theme, LETTERS, named)
    return figure


def _class_table(one: Found, *, several: bool) -> Table:
    rows = []
    for label, category in enumerate((None, *one.data.categories)):
        curve = one.curve(label or None)
        shown, true_positives = curve.at(one.limit)
        ap = None if category is None else curve.average_precision
        rows.append(
            (
                "all" if category is None else category.name,
                f"{curve.objects:,}",
                f"{true_positives:,}",
                f"{shown - true_positives:,}",
                f"{true_positives / shown:.1%}" if shown else NOTHING,
                f"{true_positives / curve.objects:.1%}" if curve.objects else NOTHING,
                NOTHING if ap is None else f"{ap:.1f}",
            )
        )
    whose = f"{one.name}, from" if several else "From"
    caption = f"{whose} a score of {threshold_text(one.limit)} up; AP50, in percent, counts all scores"
    header = ("Class", "Objects", "Found", "False positives", "Precision", "Recall", "AP50")
    folded = f"{len(rows) - 1} classes" if len(rows) > OPEN else ""
    return Table(header, rows, caption, marked=frozenset({0}), folded=folded)


def _worst_section(one: Found, *, several: bool) -> Section | None:
    errors = [one.errors(index) for index in range(len(one.data))]
    galleries: list[Gallery] = []
    for index in np.argsort(-np.array(errors), kind="stable").tolist():
        if not errors[index] or len(galleries) == WORST:
            break
        if index not in one.unreadable:
            panels = truth_and_detections(one.data, index, one.found[index], one.outcomes[index], one.limit)
            galleries.append(Gallery([panel_image(panel, height=340) for panel in panels]))
    if not galleries:
        return None
    return Section(
        f"The images with the most errors{f' of {one.name}' if several else ''}",
        f"Missed objects and false positives at a score threshold of {threshold_text(one.limit)}. {MEANING}",
        galleries,
    )
