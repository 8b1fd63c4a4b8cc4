"""File names that lead out of a dataset's folder: to images, which is allowed, or to other files, which is not."""

import json
import os
import shutil

import pytest
from test_datasets_huggingface import save
from tool_files import image, text

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.images.photographs import photographs

LINE = "0 0.5 0.5 0.25 0.25"


@pytest.fixture
def secrets(tmp_path):
    """Files outside the dataset, not images by their names; reading /dev/zero or the pipe would never end."""
    (tmp_path / "passwd").write_text("root:x:0:0")
    shutil.copy(photographs() / "chelsea.jpg", tmp_path / "private")
    os.mkfifo(tmp_path / "pipe")
    return [
        "../passwd",
        "../private",
        "../pipe",
        str(tmp_path / "private"),
        "/dev/zero",
        "../../../../../../../dev/zero",
    ]


def test_names_in_a_coco_file(tmp_path, secrets):
    image("chelsea", tmp_path / "set" / "a.jpg")
    image("chelsea", tmp_path / "other" / "b.jpg")
    os.mkfifo(tmp_path / "set" / "pipe.jpg")
    names = ["a.jpg", "../other/b.jpg", str(tmp_path / "other" / "b.jpg"), "pipe.jpg", *secrets]
    content = {
        "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
        "annotations": [{"id": k, "image_id": k, "category_id": 1, "bbox": [9, 9, 50, 50]} for k in range(len(names))],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "set" / "set.json").write_text(json.dumps(content))
    read = open_detection_set(tmp_path / "set" / "set.json")
    assert [one.file.name for one in read.images] == ["a.jpg", "b.jpg", "b.jpg"]
    assert read.problems.counts[Problem.NAME_ASTRAY] == len(secrets)
    assert read.problems.counts[Problem.BROKEN_IMAGE] == 1  # the pipe
    assert read.problems.first[Problem.NAME_ASTRAY] == "image 4, ../passwd"


@pytest.mark.parametrize("form", ["a list of YOLO's", "Darknet's"])
def test_names_in_a_yolo_list(tmp_path, secrets, form):
    for name in ("set/images/a", "other/images/b"):
        image("chelsea", tmp_path / f"{name}.jpg")
        text(tmp_path / f"{name.replace('images', 'labels')}.txt", LINE)
    os.mkfifo(tmp_path / "set" / "images" / "pipe.jpg")
    os.mkfifo(tmp_path / "set" / "labels" / "pipe.txt")
    image("chelsea", tmp_path / "set" / "images" / "c.jpg")
    os.mkfifo(tmp_path / "set" / "labels" / "c.txt")
    text(
        tmp_path / "set" / "train.txt",
        "images/a.jpg",
        "../other/images/b.jpg",
        "images/pipe.jpg",
        "images/c.jpg",
        *secrets,
    )
    if form == "Darknet's":
        text(tmp_path / "set" / "obj.names", "cat")
        text(tmp_path / "set" / "obj.data", "train = train.txt", "names = obj.names")
    else:
        text(tmp_path / "set" / "data.yaml", "train: train.txt", "names: [cat]")
    read = open_detection_set(tmp_path / "set", split="train")
    assert [one.file.name for one in read.images] == ["a.jpg", "b.jpg"]
    assert read.problems.counts[Problem.NAME_ASTRAY] == len(secrets)
    assert read.problems.counts[Problem.BROKEN_ANNOTATION_FILE] == 2


def test_names_in_a_saved_dataset(tmp_path, secrets):
    image("chelsea", tmp_path / "other" / "b.jpg")
    boxes = [[10.0 + 90 * k, 20 + 40 * k, 60, 50] for k in range(4)]
    save(
        tmp_path / "set",
        [("chelsea", boxes, [0] * 4)] * (len(secrets) + 3),
        paths={1: "../other/b.jpg"} | dict(enumerate([*secrets, "\0"], 2)),
    )
    read = open_detection_set(tmp_path / "set", split="all", reading=ReadingSettings(box_form="xywh"))
    assert [one.file.name for one in read.images] == ["00000000", "00000001"]
    assert read.problems.counts == {Problem.BROKEN_IMAGE: len(secrets) + 1}
    assert "row 2: ../passwd leads out of the dataset" in read.problems.first[Problem.BROKEN_IMAGE]


def test_names_in_a_voc_list(tmp_path, secrets):
    """Names may include folders, as ImageNet's do."""
    corners = "<xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax>"
    xml = f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
    for name in ("a", "sub/b"):
        image("chelsea", tmp_path / "set" / "JPEGImages" / f"{name}.JPEG")
        text(tmp_path / "set" / "Annotations" / f"{name}.xml", xml)
    image("chelsea", tmp_path / "set" / "JPEGImages" / "c.jpg")
    os.mkfifo(tmp_path / "set" / "Annotations" / "c.xml")
    shutil.copy(photographs() / "chelsea.jpg", tmp_path / "set" / "d.jpg")
    text(tmp_path / "set" / "d.xml", xml)
    text(tmp_path / "set" / "ImageSets" / "Main" / "train.txt", "a", "sub/b 1", "c", "../d", ".", *secrets)
    read = open_detection_set(tmp_path / "set", split="train")
    assert [one.image_id for one in read.images] == ["a", "sub/b"]
    assert read.problems.counts[Problem.MISSING_IMAGE] == len(secrets) + 2
    assert read.problems.counts[Problem.BROKEN_ANNOTATION_FILE] == 1


def test_pipes_and_devices_named_by_the_user_are_one_line(tmp_path, capsys):
    """The user's own list may hold any path; the command must not hang on one."""
    os.mkfifo(tmp_path / "pipe.jpg")
    image("chelsea", tmp_path / "a.jpg")
    text(tmp_path / "list.txt", "a.jpg", "pipe.jpg", "/dev/zero")
    main(["propose", str(tmp_path / "list.txt"), "--output", str(tmp_path / "p.parquet"), "--method", "grid"])
    printed = capsys.readouterr()
    assert "3 images" in printed.out
    assert "pipe.jpg" in printed.err
    with pytest.raises(InputError):
        open_detection_set(tmp_path / "pipe.jpg")
