"""Small hand-made datasets and detections, for the tests of the scores."""

from pathlib import Path

import numpy as np

from socodet.detection.datasets.annotations import Category, DetectionDataset, ImageAnnotations
from socodet.detection.datasets.problems import AnnotationProblems
from socodet.detection.scores import Detections


def made_image(image_id, objects, *, size=(100, 100), absent=(), incomplete=(), masks=None):
    """`objects` are (x1, y1, x2, y2, label) or (…, label, "crowd" or "difficult")."""
    boxes = np.array([row[:4] for row in objects], np.float32).reshape(-1, 4)
    marks = [row[5] if len(row) > 5 else "" for row in objects]
    return ImageAnnotations(
        image_id,
        Path(f"/nowhere/{image_id}.jpg"),
        *size,
        boxes,
        np.array([row[4] for row in objects], np.int64),
        np.array([mark == "crowd" for mark in marks], bool),
        np.array([mark == "difficult" for mark in marks], bool),
        (boxes[:, 2:] - boxes[:, :2]).prod(1),
        masks,
        frozenset(absent),
        frozenset(incomplete),
    )


def made_set(images, style, *, classes=1, frequencies=None):
    frequencies = frequencies or [None] * classes
    categories = tuple(Category(10 * k, f"kind {k}", f) for k, f in enumerate(frequencies, 1))
    has_masks = all(image.masks is not None for image in images)
    return DetectionDataset("by hand", categories, images, has_masks, style, AnnotationProblems())


def found(rows, masks=None):
    """Rows of (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64), masks
    )


def random_boxes(generator, count, size=100):
    """(count, 4) xyxy in whole pixels, covering COCO's three size ranges if the image is large enough."""
    corner = generator.integers(0, size - 8, (count, 2))
    sides = generator.integers(4, size // 2, (count, 2))
    return np.concatenate([corner, np.minimum(corner + sides, size)], 1).astype(np.float64)


def near(generator, boxes, spread=4.0):
    """The boxes with their corners moved at random; none becomes empty."""
    moved = boxes + generator.normal(0, spread, boxes.shape)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    return moved


def random_case(generator, *, style, images=12, classes=3, size=100, marks=("", "", "", "crowd"), frequencies=None):
    """Random objects, and detections: some near an object, some of the wrong class, some anywhere."""
    entries, predictions = [], {}
    for image_id in range(1, images + 1):
        boxes = random_boxes(generator, int(generator.integers(0, 7)), size)
        labels = generator.integers(1, classes + 1, len(boxes))
        objects = [(*box, label, generator.choice(marks)) for box, label in zip(boxes, labels, strict=True)]
        others = [label for label in range(1, classes + 1) if label not in labels]
        absent = [label for label in others if generator.random() < 0.5]
        incomplete = [label for label in range(1, classes + 1) if generator.random() < 0.3]
        entries.append(
            made_image(image_id, objects, size=(size, size), absent=absent, incomplete=incomplete)
            if style == "lvis"
            else made_image(image_id, objects, size=(size, size))
        )
        guesses = np.concatenate([near(generator, np.repeat(boxes, 2, 0)), random_boxes(generator, 4, size)])
        kinds = np.concatenate([np.repeat(labels, 2), generator.integers(1, classes + 1, 4)])
        wrong = generator.random(len(kinds)) < 0.15
        kinds[wrong] = generator.integers(1, classes + 1, int(wrong.sum()))
        scores = generator.permutation(1000)[: len(kinds)] / 1000  # all different
        predictions[image_id] = found(np.c_[guesses, scores, kinds])
    return made_set(entries, style, classes=classes, frequencies=frequencies), predictions
