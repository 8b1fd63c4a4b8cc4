"""Detections, in memory and as a file in COCO's result format, and their scores by name."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.box_forms import WrittenBoxes, check_box_form
from socodet.detection.datasets.masks import RLE, usable_segmentation
from socodet.detection.datasets.problems import FEWEST
from socodet.detection.datasets.values import as_id, matching_id
from socodet.errors import InputError
from socodet.runtime.files import JsonList, atomic_file, parse_json


@dataclass(frozen=True)
class Detections:
    """The N detections of one image, in any order."""

    boxes: NDArray[np.float32]
    """(N, 4) xyxy in pixels of the original image, 0-based; right and bottom are exclusive."""
    scores: NDArray[np.float32]
    """(N,) confidence."""
    labels: NDArray[np.int64]
    """(N,) 1..C, as in the dataset."""
    masks: list[RLE] | None = None
    """N masks as made by `datasets.masks.encode_masks`; None from a detector that predicts boxes only."""

    @classmethod
    def none(cls) -> "Detections":
        """No detections."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), [])

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, indices: NDArray[np.int64]) -> "Detections":
        """A selection of the detections, in the order of `indices`."""
        masks = None if self.masks is None else [self.masks[index] for index in indices]
        return Detections(self.boxes[indices], self.scores[indices], self.labels[indices], masks)

    def entries(self, named: Callable[[int], Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Each detection in COCO's result format, without its image; `named` gives the fields for a label."""
        for index, label in enumerate(self.labels.tolist()):
            x1, y1, x2, y2 = self.boxes[index].tolist()
            entry = {**named(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(self.scores[index])}
            yield entry if self.masks is None else {**entry, "segmentation": self.masks[index]}

    def best(self, count: int) -> "Detections":
        """Up to `count` detections with the highest scores, in descending order."""
        return self.take(np.argsort(-self.scores, kind="stable")[:count])


class Scores(dict[str, float]):
    """Scores of a dataset in percent by name, such as `box_AP`; nan where there is nothing to score."""

    def __init__(self) -> None:
        super().__init__()
        self.of_classes: dict[str, dict[str, float]] = {}
        """By class name: `objects`, the number that count, and the class's AP and AP50 under the same names."""


def empty_scores(dataset: DetectionDataset) -> Scores:
    """Scores with only the number of objects of each class.

    Crowd regions and difficult objects do not count. If two classes share a name, the second has its id appended.
    """
    scores = Scores()
    counts = dataset.object_counts()
    for category, count in zip(dataset.categories, counts, strict=True):
        name = f"{category.name} ({category.id})" if category.name in scores.of_classes else category.name
        scores.of_classes[name] = {"objects": count}
    return scores


Predictions = Mapping[int | str, Detections]
"""Detections by image id; an image without detections may be missing."""


def detections_by_image(dataset: DetectionDataset, predictions: Predictions) -> list[Detections]:
    """The detections of each image of the dataset. InputError for detections of images that it lacks."""
    ids = [image.image_id for image in dataset.images]
    strange = predictions.keys() - set(ids)
    if strange:
        raise InputError(
            f"{dataset.name}: lacks {len(strange)} of the images that have detections, such as "
            f"{min(strange, key=str)}; give the dataset that they were made on"
        )
    nothing = Detections.none()
    return [predictions.get(image_id, nothing) for image_id in ids]


def write_detections(dataset: DetectionDataset, predictions: Predictions, file: Path) -> None:
    """Writes [{image_id, category_id, category, bbox [x, y, w, h], score, segmentation?}, …], with the dataset's ids.

    `category` is the class name; COCO's tools accept it. InputError for detections of images that the dataset lacks.
    """
    detections = detections_by_image(dataset, predictions)
    with atomic_file(file) as written:
        entries = JsonList(written)
        for image, found in zip(dataset.images, detections, strict=True):
            named = found.entries(lambda label: dataset.categories[label - 1].in_results())
            entries.write([{"image_id": image.image_id, **one} for one in named])
        entries.end()


@dataclass(frozen=True)
class LeftOutCounts:
    """Counts of the detections that `read_detections` left out."""

    images: Counter[int | str] = field(default_factory=Counter)
    """Detections of images that the dataset lacks, by image id."""
    classes: Counter[str] = field(default_factory=Counter)
    """Detections of classes that the dataset lacks, by name."""


def read_detections(
    dataset: DetectionDataset, file: Path, *, left_out: LeftOutCounts | None = None
) -> dict[int | str, Detections]:
    """Reads what `write_detections`, `predict` or another program wrote in COCO's result format.

    `file_name` and `category` in an entry take precedence over its numbers, because `predict` numbers the images of a
    folder itself, and numbers classes as in the detector's training set. InputError, which names the entry, for
    anything that is not a detection of an image and a class of the dataset, and if the boxes fit only another form.
    With `left_out`, detections of images and of named classes that the dataset lacks are counted there instead.
    """
    try:
        written_there = file.read_bytes()  # works with a pipe, too
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give a file of detections") from None
    entries = parse_json(file, written_there, "make it again")
    if not isinstance(entries, list):
        raise InputError(f"{file}: is not a list of detections; give one in COCO's result format")
    classes = _Classes(dataset)
    sizes = {image.image_id: (image.height, image.width) for image in dataset.images}
    named = NamedImages(dataset)
    rows: dict[int | str, list[_Row]] = {}
    for place, entry in enumerate(entries):
        try:
            written = as_id(entry["image_id"])
            if written is None:
                raise ValueError("image_id is no id")
            image_id, label = matching_id(written, sizes), classes.label(entry["category_id"], entry.get("category"))
            if isinstance(entry.get("file_name"), str):
                image_id = named.image(entry["file_name"], image_id)
            x, y, w, h = (float(side) for side in entry["bbox"])
            box, score, mask = [x, y, x + w, y + h], float(entry["score"]), entry.get("segmentation")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{file}: entry {place} is no detection of {dataset.name} ({error!r})") from None
        if label is None:
            named_so = isinstance(entry.get("category"), str)
            if left_out is None or not named_so:
                which = f"class {entry['category']}" if named_so else f"category {entry['category_id']}"
                raise InputError(f"{file}: entry {place} is of {which}, which {dataset.name} lacks; {_FIX}")
            left_out.classes[entry["category"]] += 1
            continue
        if image_id is None:
            if left_out is None:
                raise InputError(f"{file}: entry {place} is of image {written}, which {dataset.name} lacks; {_FIX}")
            left_out.images[written] += 1
            continue
        if not np.isfinite([*box, score]).all():
            raise InputError(f"{file}: entry {place} holds what is no finite number; leave it out")
        if mask is not None:
            height, width = sizes[image_id]
            mask = usable_segmentation(mask, height, width) if isinstance(mask, dict) else None
            if mask is None:
                raise InputError(f"{file}: entry {place} has a mask that is no run lengths of a {width}x{height} image")
        rows.setdefault(image_id, []).append((box, score, label, cast(RLE | None, mask)))
    _check_form(file, [(one, *sizes[one], [box for box, *_ in found]) for one, found in rows.items()])
    return {image_id: _stacked(file, image_id, found) for image_id, found in rows.items()}


def _check_form(file: Path, found: list[tuple[int | str, int, int, list[list[float]]]]) -> None:
    """InputError if the boxes hardly fit COCO's form; found: image, its height and width, and xyxy as read."""
    written = []
    for image_id, height, width, boxes in found:
        numbers = np.array(boxes, np.float64)
        numbers[:, 2:] -= numbers[:, :2]
        written.append(WrittenBoxes(numbers, width, height, f"image {image_id}"))
    if sum(len(one.numbers) for one in written) >= FEWEST:
        check_box_form(file, "xywh", written)


class _Classes:
    """The classes of a dataset by id and name."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self._of_id = {category.id: label for label, category in enumerate(dataset.categories, 1)}
        self._of_name: dict[str, list[int]] = {}
        for label, category in enumerate(dataset.categories, 1):
            self._of_name.setdefault(category.name, []).append(label)

    def label(self, written: Any, name: Any) -> int | None:
        """The label of the class with this name; without a name, or if several share it, of the one with this id."""
        known = matching_id(written, self._of_id)
        numbered = None if known is None else self._of_id[cast(int, known)]
        if not isinstance(name, str):
            return numbered
        named = self._of_name.get(name, [])
        if len(named) == 1:
            return named[0]
        return numbered if numbered in named else None


class NamedImages:
    """The images of a dataset by file name."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self._file_of = {image.image_id: image.file for image in dataset.images}
        self._ids: dict[str, list[int | str]] = {}
        for image_id, file in self._file_of.items():
            for end in (file.name, f"{file.parent.name}/{file.name}"):
                self._ids.setdefault(end, []).append(image_id)
        self._known: dict[str, tuple[str, list[int | str]]] = {}

    def image(self, name: str, numbered: int | str | None) -> int | str | None:
        """The image whose path ends in `name`; if there are none or several, `numbered` if its file has that name."""
        if name not in self._known:
            self._known[name] = self._ending_in(name)
        stem, found = self._known[name]
        if len(found) == 1:
            return found[0]
        return numbered if numbered is not None and self._file_of[numbered].stem.casefold() == stem else None

    def _ending_in(self, name: str) -> tuple[str, list[int | str]]:
        """A name's stem, for comparison, and the images whose paths end in the name."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        end = "/" + "/".join(parts)
        alike = self._ids.get("/".join(parts[-2:]), [])
        found = [one for one in alike if len(parts) < 3 or self._file_of[one].as_posix().endswith(end)]
        return PurePosixPath(end).stem.casefold(), found


_FIX = "give the dataset that they were made on"
_Row = tuple[list[float], float, int, RLE | None]
"""xyxy, score, label, mask."""


def _stacked(file: Path, image_id: int | str, rows: list[_Row]) -> Detections:
    boxes, scores, labels, masks = zip(*rows, strict=True)
    missing = sum(mask is None for mask in masks)
    if 0 < missing < len(rows):
        raise InputError(
            f"{file}: {missing} of the {len(rows)} detections of image {image_id} have no mask; give all or none"
        )
    return Detections(
        np.array(boxes, np.float32),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        None if missing else list(masks),
    )
