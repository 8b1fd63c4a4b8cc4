"""The images that `predict` was run on: its folder lists them beside its detections, with one line of JSON for each."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.scores.detections import NamedImages

LINES, JSON = "found.jsonl", "predictions.json"


def images_predicted(dataset: DetectionDataset, predictions: Path) -> set[int | str] | None:
    """Ids of the images of `dataset` that `predict` ran on, for its file of detections; None for any other file.

    Images that it could not read are left out, and so are names that several images of the dataset match.
    """
    lines = predictions.with_name(LINES)
    if predictions.name != JSON or not lines.is_file():
        return None
    named = NamedImages(dataset)
    found = (named.image(line["file_name"], None) for _, line in whole_lines(lines) if "unreadable" not in line)
    return {image_id for image_id in found if image_id is not None}


def whole_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The offset and content of each line, up to the first that is not a complete line of an image."""
    start = 0
    with file.open("rb") as stream:
        for text in stream:
            line: Any = None
            with suppress(ValueError, RecursionError):
                line = json.loads(text)
            if not isinstance(line, dict) or not isinstance(line.get("file_name"), str) or text[-1:] != b"\n":
                return
            yield start, line
            start += len(text)
