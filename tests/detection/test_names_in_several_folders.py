"""Images of one name in several folders, with all labels in one folder: no image gets another's boxes."""

import re
import unicodedata

import pytest
from tool_files import image, text

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.errors import InputError

SHARED = re.escape(Problem.SHARED_ANNOTATION_FILE.value)
LINE = "0 0.5 0.5 0.25 0.25"
OBJECT = (
    "<object><name>cat</name><bndbox><xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax></bndbox></object>"
)


def days(root, label_folder, suffix, *lines, folders=("day1", "day2")):
    """Images 1 and 3 in one folder, 1 and 2 in another; annotation files for 1 and 2."""
    for folder, names in zip(folders, ("13", "12"), strict=True):
        for name in names:
            image("chelsea", root / "images" / folder / f"{name}.jpg")
    for name in "12":
        text(root / label_folder / f"{name}{suffix}", *lines)


def read(root, split="all"):
    data = open_detection_set(root, split=split)
    return {one.image_id: len(one) for one in data.images}, data.problems.counts


def test_label_file_that_fits_two_images(tmp_path):
    days(tmp_path, "labels", ".txt", LINE)
    found, counts = read(tmp_path)
    assert found == {"images/day1/3.jpg": 0, "images/day2/2.jpg": 1}
    assert counts == {Problem.SHARED_ANNOTATION_FILE: 2, Problem.NO_LABEL_FILE: 1}
    for name in ("1", "2"):  # in mirrored folders each has its own
        text(tmp_path / "labels" / "day2" / f"{name}.txt", LINE, f"1{LINE[1:]}")
    text(tmp_path / "labels" / "day1" / "1.txt", LINE)
    found, counts = read(tmp_path)
    assert found == {"images/day1/1.jpg": 1, "images/day1/3.jpg": 0, "images/day2/1.jpg": 2, "images/day2/2.jpg": 2}
    assert counts == {Problem.NO_LABEL_FILE: 1}


@pytest.mark.parametrize(
    ("label_folder", "suffix", "line"),
    [("labels", ".txt", LINE), ("annotations", ".xml", f"<annotation>{OBJECT}</annotation>")],
)
def test_names_that_differ_only_in_the_encoding_of_accents(tmp_path, label_folder, suffix, line):
    for folder, form in (("day1", "NFC"), ("day2", "NFD")):
        image("chelsea", tmp_path / "images" / folder / f"{unicodedata.normalize(form, 'café')}.jpg")
    image("chelsea", tmp_path / "images" / "day1" / "2.jpg")
    for name in ("café", "2"):
        text(tmp_path / label_folder / f"{name}{suffix}", line)
    found, counts = read(tmp_path)
    assert {name.split(".")[0]: count for name, count in found.items()} == {"images/day1/2": 1}
    assert counts[Problem.SHARED_ANNOTATION_FILE] == 2


def test_shared_names_without_a_label_file_are_harmless(tmp_path):
    days(tmp_path, "labels", ".txt", LINE)
    (tmp_path / "labels" / "1.txt").unlink()
    found, counts = read(tmp_path)
    assert found == dict.fromkeys((f"images/{one}.jpg" for one in ("day1/1", "day1/3", "day2/1")), 0) | {
        "images/day2/2.jpg": 1
    }
    assert counts == {Problem.NO_LABEL_FILE: 3}


def test_image_directly_in_images_shares_its_label_file(tmp_path):
    """Its label file is where it belongs, but may have been overwritten by the other image's."""
    days(tmp_path, "labels", ".txt", LINE, folders=("", "day2"))
    found, counts = read(tmp_path)
    assert found == {"images/3.jpg": 0, "images/day2/2.jpg": 1}
    assert counts[Problem.SHARED_ANNOTATION_FILE] == 2


def test_label_file_that_fits_two_splits(tmp_path):
    days(tmp_path, "labels", ".txt", LINE, folders=("train", "val"))
    with pytest.raises(InputError, match=SHARED):  # only an image without objects is left
        read(tmp_path, "train")
    image("chelsea", tmp_path / "images" / "train" / "5.jpg")
    text(tmp_path / "labels" / "5.txt", LINE)
    assert read(tmp_path, "train") == (
        {"images/train/3.jpg": 0, "images/train/5.jpg": 1},
        {Problem.SHARED_ANNOTATION_FILE: 1, Problem.NO_LABEL_FILE: 1},
    )
    assert read(tmp_path, "val") == ({"images/val/2.jpg": 1}, {Problem.SHARED_ANNOTATION_FILE: 1})


def test_image_in_two_splits_is_one_image(tmp_path):
    for name in "12":
        image("chelsea", tmp_path / "images" / "all" / f"{name}.jpg")
        text(tmp_path / "labels" / f"{name}.txt", LINE)
    text(tmp_path / "a.txt", "images/all/1.jpg", "images/all/2.jpg")
    text(tmp_path / "data.yaml", "train: a.txt", "val: images/../images/all", "names: [cat]")
    for part in ("train", "val"):
        found, counts = read(tmp_path, part)
        assert list(found.values()) == [1, 1]
        assert not counts


def test_dataset_of_ambiguous_images_only_is_refused_in_one_line(tmp_path):
    for root, label_folder, suffix, line in (
        (tmp_path / "yolo", "labels", ".txt", LINE),
        (tmp_path / "xml", "annotations", ".xml", f"<annotation>{OBJECT}</annotation>"),
    ):
        days(root, label_folder, suffix, line)
        (root / "images" / "day1" / "3.jpg").unlink()
        (root / "images" / "day2" / "2.jpg").unlink()
        with pytest.raises(InputError, match=SHARED) as error:
            read(root)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("named", "owner"), [("day1", "day1"), ("C:\\photos\\Day2", "day2"), ("", None), ("x", None)])
def test_xml_file_that_fits_two_images(tmp_path, named, owner):
    days(tmp_path, "annotations", ".xml", f"<annotation><folder>{named}</folder>{OBJECT}</annotation>")
    found, counts = read(tmp_path)
    assert found == {"images/day2/2": 1} | ({f"images/{owner}/1": 1} if owner else {})
    assert counts[Problem.NO_ANNOTATION_FILE] == (2 if owner else 1)
    assert counts.get(Problem.SHARED_ANNOTATION_FILE, 0) == (0 if owner else 2)


def test_xml_file_that_fits_two_splits(tmp_path):
    days(tmp_path, "annotations", ".xml", f"<annotation>{OBJECT}</annotation>", folders=("train", "val"))
    with pytest.raises(InputError, match=SHARED):
        read(tmp_path, "train")
    assert read(tmp_path, "val")[0] == {"images/val/2": 1}
