"""The lines of finished images, kept on disk, and the results written from them."""

import csv
import json
import tracemalloc
from contextlib import closing

import pytest

from socodet.detection.scores.predicted import LINES
from socodet.images.source import open_images, version_of
from socodet.prediction.detection_lines import DetectionLines

IMAGES = 40


@pytest.fixture
def source(tmp_path):
    for k in range(IMAGES):
        path = tmp_path / "images" / f"{k:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"never read")
    return open_images(tmp_path / "images")


def line_of(source, index, objects):
    made = [
        {
            "category_id": 3 + k % 2,
            "category": ("cat", "dog")[k % 2],
            "bbox": [1.5, 2.0, 3.25, 4.0],
            "score": (index + k / 1000) / 50,
        }
        for k in range(objects)
    ]
    about = {"file_name": source.key(index), "version": version_of(source, index)}
    return about | ({"unreadable": "torn"} if index == 7 else {"objects": made})


def add(folder, source, indices, objects=3):
    lines = DetectionLines.of_earlier_calls(folder, source)
    with closing(lines.begin()) as file:
        for index in indices:
            lines.add(file, index, line_of(source, index, objects))
    return lines


def test_results_are_in_image_order_whatever_the_order_of_prediction(source, tmp_path):
    add(tmp_path, source, range(20, 30))
    lines = add(tmp_path, source, [*range(10), *range(IMAGES - 1, 29, -1)])
    assert (lines.left, lines.done) == (list(range(10, 20)), IMAGES - 10)
    lines = add(tmp_path, source, lines.left)
    assert lines.left == [7]  # it was unreadable and may be readable now
    lines = add(tmp_path, source, lines.left)
    assert lines.left == []
    assert lines.unreadable == ((source.key(7), "torn"),)
    for known in (lines, DetectionLines.of_earlier_calls(tmp_path, source)):
        assert known.detections == 3 * (IMAGES - 1)
        assert known.of_classes == {"cat": 2 * (IMAGES - 1), "dog": IMAGES - 1}
        assert known.highest_scoring == [source.key(IMAGES - k) for k in (1, 2, 3)]
        assert known.highest_score == (IMAGES - 1 + 0.002) / 50
    ids = range(100, 100 + IMAGES)
    lines.write_results(ids)
    expected = [
        {"image_id": 100 + k, "file_name": source.key(k), **one}
        for k in range(IMAGES)
        for one in line_of(source, k, 3).get("objects", ())
    ]
    assert (tmp_path / "predictions.json").read_text() == json.dumps(expected) + "\n"
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [one["file_name"] for one in expected]
    assert [rows[0][side] for side in ("x1", "y1", "x2", "y2")] == ["1.50", "2.00", "4.75", "6.00"]
    assert (rows[1]["label"], rows[1]["score"]) == ("dog", "0.0000")
    assert (rows[-1]["label"], rows[-1]["score"]) == ("cat", "0.7800")


def test_lines_of_earlier_calls_are_kept_if_their_images_are_unchanged(source, tmp_path):
    """One was changed, one is gone and cannot be compared, and one has two lines."""
    add(tmp_path, source, range(IMAGES))
    (tmp_path / "images" / "03.jpg").write_bytes(b"another image")
    (tmp_path / "images" / "05.jpg").unlink()
    lines = (tmp_path / LINES).read_text().splitlines()
    (tmp_path / LINES).write_text("\n".join([*lines[:7], *lines[6:], ""]))
    known = DetectionLines.of_earlier_calls(tmp_path, source)
    assert (known.left, known.detections) == ([3, 7], 3 * (IMAGES - 2))
    add(tmp_path, source, known.left).write_results(range(IMAGES))
    found = [one["image_id"] for one in json.loads((tmp_path / "predictions.json").read_text())]
    assert found == [k for k in range(IMAGES) for _ in range(3) if k != 7]


def test_results_are_empty_without_detections(source, tmp_path):
    add(tmp_path, source, range(IMAGES), objects=0).write_results(range(IMAGES))
    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1


def test_memory_does_not_grow_with_detections(source, tmp_path):
    """The detections of a million images would take tens of gigabytes."""
    tracemalloc.start()
    try:
        add(tmp_path, source, range(IMAGES), objects=300)
        add(tmp_path, source, [7]).write_results(range(IMAGES))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < (tmp_path / "found.jsonl").stat().st_size / 2
