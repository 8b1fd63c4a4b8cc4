"""Datasets of many images or folders: folders are not listed for every image; files are opened concurrently."""

import json
import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hand_made_sets import made_image, made_set
from tool_files import image, text

from socodet.detection.datasets import splits
from socodet.detection.datasets.annotations import ImageAnnotations
from socodet.detection.datasets.headers import sizes_of, unusable_images
from socodet.detection.datasets.layouts import open_detection_set
from socodet.finetuning.labelled_sets import open_labelled_sets
from socodet.images.reading import PixelSettings, read_images_as
from socodet.runtime import files as reading
from socodet.runtime import notices
from socodet.runtime.threads import TOGETHER

LINE = "0 0.5 0.5 0.25 0.25"


@pytest.fixture
def listed(monkeypatch):
    """How often each folder is listed."""
    counts = Counter()
    scandir, listdir = os.scandir, os.listdir
    monkeypatch.setattr(os, "scandir", lambda path=".": counts.update([os.fspath(path)]) or scandir(path))
    monkeypatch.setattr(os, "listdir", lambda path=".": counts.update([os.fspath(path)]) or listdir(path))
    return counts


@pytest.fixture
def searched(monkeypatch):
    """How often each folder is searched for images."""
    counts = Counter()
    plain = splits.open_folder
    monkeypatch.setattr(splits, "open_folder", lambda root: counts.update([str(root)]) or plain(root))
    return counts


def test_images_of_two_splits_are_searched_once_for_all_layouts(tmp_path, searched):
    for part in ("train", "val"):
        image("chelsea", tmp_path / "images" / part / "a.jpg")
        text(tmp_path / "labels" / part / "a.txt", LINE)
    train, val = open_labelled_sets(tmp_path, None)
    assert (len(train), len(val)) == (1, 1)
    assert searched == {str(tmp_path / "images" / part): 1 for part in ("train", "val")}
    text(tmp_path / "labels" / "train" / "b.txt", LINE)
    image("chelsea", tmp_path / "images" / "train" / "b.jpg")
    assert len(open_detection_set(tmp_path, split="train")) == 2  # the new image is seen


def test_parent_folder_is_not_listed_for_every_subfolder(tmp_path, listed):
    for k in range(30):
        image("chelsea", tmp_path / "images" / f"day{k}" / f"{k}.jpg")
        text(tmp_path / "labels" / f"day{k}" / f"{k}.txt", LINE)
    assert len(open_detection_set(tmp_path, split="all")) == 30
    assert max(listed[str(folder)] for folder in (tmp_path, tmp_path / "images", tmp_path / "labels")) < 15


def test_image_files_are_opened_concurrently_and_their_sizes_stay_in_order():
    together = threading.Barrier(3, timeout=10)

    def size(number):
        if number % TOGETHER == 0:
            together.wait()
        if number == 70:
            raise OSError("gone")
        return number, 2

    found = list(sizes_of(range(3 * TOGETHER), size))
    assert isinstance(found.pop(70), OSError)
    assert found == [(number, 2) for number in range(3 * TOGETHER) if number != 70]
    assert list(sizes_of([], size)) == []


def test_threads_use_the_commands_pixel_settings(tmp_path):
    image("chelsea", tmp_path / "a.jpg")
    many = made_set([replace(made_image(k, [], size=(400, 266)), file=tmp_path / "a.jpg") for k in range(70)], "coco")
    assert not unusable_images(many)
    with read_images_as(PixelSettings(max_pixels=100)):
        (count,) = unusable_images(many).counts.values()
    assert count == 70


def yolo(root, name):
    text(root / "labels" / f"{name}.txt", LINE)
    return root / "labels" / f"{name}.txt"


def xml(root, name):
    box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>"
    text(
        root / "annotations" / f"{name}.xml", f"<annotation><object><name>cat {name}</name>{box}</object></annotation>"
    )
    return root / "annotations" / f"{name}.xml"


def labelme(root, name):
    shape = {"label": f"cat {name}", "points": [[10, 10], [60, 60]], "shape_type": "rectangle"}
    text(root / "annotations" / f"{name}.json", json.dumps({"shapes": [shape]}))
    return root / "annotations" / f"{name}.json"


@pytest.mark.parametrize("annotate", [yolo, xml, labelme])
def test_annotation_files_are_opened_concurrently_and_stay_with_their_images(tmp_path, monkeypatch, annotate):
    names = [f"{k:03}" for k in range(2 * TOGETHER + 6)]
    for name in names:
        image("chelsea", tmp_path / "images" / f"{name}.jpg")
    files = [annotate(tmp_path, name) for name in names if name != "005"]
    files[3].write_bytes(b"\0\xff")  # not text
    opened = Counter()
    plain = reading.open_file

    def noted(path):
        opened[Path(path)] += threading.current_thread() is not threading.main_thread()
        return plain(path)

    monkeypatch.setattr(reading, "open_file", noted)
    data = open_detection_set(tmp_path, split="all")
    kept = [name for name in names if name not in ("003", "005" if annotate is not yolo else "003")]
    assert [one.file.stem for one in data.images] == kept
    assert [len(one) for one in data.images] == [int(name != "005") for name in kept]
    if annotate is not yolo:
        assert [data.categories[one.labels[0] - 1].name for one in data.images] == [f"cat {name}" for name in kept]
    assert all(opened[file] for file in files)


def test_xml_files_are_read_once_for_the_classes(tmp_path, monkeypatch):
    for part in ("train", "val"):
        image("chelsea", tmp_path / part / f"{part}.jpg")
        xml(tmp_path / part, part).rename(tmp_path / part / f"{part}.xml")
    opened = Counter()
    plain = reading.open_file
    monkeypatch.setattr(reading, "open_file", lambda path: opened.update([Path(path).name]) or plain(path))
    train, val = open_labelled_sets(tmp_path, None)
    assert [one.name for one in train.categories] == [one.name for one in val.categories] == ["cat train", "cat val"]
    assert opened["val.xml"] <= 4  # two for the layout, one for the classes, one for the objects


def test_long_check_of_image_files_shows_progress(tmp_path, monkeypatch, capsys):
    image("chelsea", tmp_path / "a.jpg")
    plain = ImageAnnotations.size_by_header
    monkeypatch.setattr(ImageAnnotations, "size_by_header", lambda self: time.sleep(0.1) or plain(self))
    monkeypatch.setattr(notices, "QUIET", 0.02)
    few = made_set([replace(made_image(1, [], size=(400, 266)), file=tmp_path / "a.jpg")], "coco")
    for show in (False, True):
        assert not unusable_images(few, show_progress=show)
        assert ("checking its images" in capsys.readouterr().err) == show
