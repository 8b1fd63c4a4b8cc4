"""Datasets of every format converted to COCO: reading them back gives the same data and the same problems."""

import json

import numpy as np
import pytest
from test_layouts_of_tools import TOOLS
from tool_files import image, text

import socodet
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.finetuning.labelled_sets import images_trained_on
from socodet.finetuning.settings import FinetuneSettings


def rows(data):
    """Everything that training takes from a dataset."""
    return [
        (
            image.file.resolve(),
            image.boxes.tolist(),
            [data.categories[label - 1].name for label in image.labels],
            image.crowd.tolist(),
            image.difficult.tolist(),
            image.areas.tolist(),
            None if image.masks is None else [np.concatenate(mask).tolist() for mask in image.masks],
        )
        for image in data.images
    ]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_converted_dataset_is_the_same_dataset(tmp_path, tool):
    sets = tool(tmp_path / "set")
    for part, data in zip(("train", "val"), sets, strict=False):
        made = socodet.convert(tmp_path / "set", tmp_path / "out" / f"{part}.json", split=part)
        again = open_detection_set(made.file)
        assert rows(again) == rows(data)
        assert again.style == data.style
        assert [one.name for one in again.categories] == [one.name for one in data.categories]
        written = json.loads(made.file.read_text())
        assert written["info"]["problems"] == data.problems.as_json()
        assert not any(entry["file_name"].startswith("/") for entry in written["images"])


def test_dropped_annotations_are_reported(tmp_path, capsys):
    from socodet.cli import main

    image("chelsea", tmp_path / "set" / "images" / "a.jpg")
    image("coffee", tmp_path / "set" / "images" / "b.jpg")
    text(tmp_path / "set" / "labels" / "a.txt", "0 .5 .5 .2 .2", "9 .5 .5 .2 .2", "0 .5 .5 .2", "0 .5 .5 .2 -0.2")
    text(tmp_path / "set" / "classes.txt", "cat")
    main(["convert", str(tmp_path / "set"), "--check"])
    report = capsys.readouterr().out
    assert "2 images, 1 objects, 1 of 1 classes" in report
    for what in ("without a label file", "neither a class and a box", "unknown category", "without area"):
        assert what in report
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "set")])
    main(["convert", str(tmp_path / "set"), "--output", str(tmp_path / "a.json")])
    (note,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    # a fifth of 400x266 pixels around the centre
    assert note["bbox"] == pytest.approx([160, 106.4, 80, 53.2], abs=1e-4)


def test_classes_are_listed_and_images_with_only_unusable_annotations_are_left_out(tmp_path):
    """c.jpg has no valid line and the box of d.jpg has no area: both may show objects, unlike b.jpg."""
    for name in "abcd":
        image("chelsea", tmp_path / "set" / "images" / f"{name}.jpg")
    labels = tmp_path / "set" / "labels"
    text(labels / "a.txt", "1 .5 .5 .2 .2", "0 .5 .5 .3 .3", "1 .6 .5 .2 .2")
    text(labels / "b.txt")
    text(labels / "c.txt", "0 .5 .5 .2")
    text(labels / "d.txt", "0 .5 .5 .2 0")
    text(tmp_path / "set" / "classes.txt", "king", "nine", "ace")
    found = socodet.convert(tmp_path / "set", tmp_path / "set.json")
    report = str(found)
    assert "nine 2, king 1; none of ace" in report
    assert "1 images without an object; 2 with annotations of which none can be used" in report
    written = open_detection_set(tmp_path / "set.json")
    assert [one.file.stem for one in written.images] == ["a", "b"]
    kept = images_trained_on(open_detection_set(tmp_path / "set", split="all"), FinetuneSettings(keep_empty=True))
    assert [one.file.stem for one in kept.images] == ["a", "b"]


def coco_without_class(root):
    listed = [{"id": k, "file_name": f"images/{name}.jpg", "width": 400, "height": 266} for k, name in enumerate("ab")]
    marked = [{"id": k, "image_id": k, "category_id": k, "bbox": [10, 10, 50, 50]} for k in range(2)]
    content = {"images": listed, "annotations": marked, "categories": [{"id": 0, "name": "cat"}]}
    text(root / "annotations.json", json.dumps(content))


def yolo_without_class(root):
    for number, name in enumerate("ab"):
        text(root / "labels" / f"{name}.txt", f"{number} .5 .5 .2 .2")
    text(root / "classes.txt", "cat")


def xml_without_class(root):
    box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>"
    for name, of_class in (("a", "cat"), ("b", "")):
        found = f"<object><name>{of_class}</name>{box}</object>"
        text(root / "annotations" / f"{name}.xml", f"<annotation>{found}</annotation>")


def labelme_without_class(root):
    for name, label in (("a", "cat"), ("b", "")):
        drawn = {"label": label, "points": [[10, 10], [60, 60]], "shape_type": "rectangle"}
        text(root / "annotations" / f"{name}.json", json.dumps({"shapes": [drawn]}))


@pytest.mark.parametrize(
    "write",
    [coco_without_class, yolo_without_class, xml_without_class, labelme_without_class],
    ids=lambda one: one.__name__,
)
def test_image_with_only_objects_of_no_class_is_not_background(tmp_path, write):
    for name in "ab":
        image("chelsea", tmp_path / "images" / f"{name}.jpg")
    write(tmp_path)
    data = open_detection_set(tmp_path, split="all")
    assert [(one.file.stem, len(one), one.unusable) for one in data.images] == [("a", 1, False), ("b", 0, True)]
    trained_on = images_trained_on(data, FinetuneSettings(keep_empty=True))
    assert [one.file.stem for one in trained_on.images] == ["a"]


@pytest.mark.parametrize(("box", "unusable"), [([10, 10, 0, 5], True), ([10, 10, 5, 5], False)])
def test_image_with_only_broken_boxes_is_not_background(tmp_path, box, unusable):
    image("chelsea", tmp_path / "a.jpg")
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box}
    images = [{"id": 1, "file_name": "a.jpg", "width": 400, "height": 266}]
    content = {"images": images, "annotations": [entry], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    assert open_detection_set(tmp_path / "set.json").images[0].unusable == unusable
    if unusable:  # the converted file would hold nothing readable
        with pytest.raises(InputError, match="none of its images"):
            socodet.convert(tmp_path / "set.json", tmp_path / "converted.json")
    assert not (tmp_path / "converted.json").exists()


def test_images_all_of_another_size_are_an_error(tmp_path):
    for part in ("train", "valid"):
        image("chelsea", tmp_path / part / f"{part}.jpg")
        sides = {"width": 200, "height": 133} if part == "valid" else {}  # it has 400 by 266 pixels
        content = {"images": [{"id": 1, "file_name": f"{part}.jpg", **sides}], "categories": [{"id": 1, "name": "cat"}]}
        content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 50, 50]}]
        text(tmp_path / part / "_annotations.coco.json", json.dumps(content))
    assert len(socodet.convert(tmp_path, split="train").parts["train"]) == 1
    with pytest.raises(InputError, match=r"val: none of its images.*400x266, annotated as 200x133"):
        socodet.convert(tmp_path)


def test_splits_and_held_back_shares(tmp_path):
    for part in ("train", "valid"):
        image("chelsea", tmp_path / part / "images" / f"{part}.jpg")
        text(tmp_path / part / "labels" / f"{part}.txt", "0 .5 .5 .2 .2")
    text(tmp_path / "data.yaml", "train: train/images", "val: valid/images", "names: [cat]")
    found = socodet.convert(tmp_path)
    assert set(found.parts) == {"train", "val"}
    assert str(found).startswith("YOLO layout\ntrain: 1 images")
    with pytest.raises(InputError, match="choose one with split"):
        socodet.convert(tmp_path, tmp_path / "a.json")
    with pytest.raises(InputError, match="of its own"):
        socodet.convert(tmp_path, split="train", reading=ReadingSettings(val_share=0.5))
    text(tmp_path / "data.yaml", "train: [train/images, valid/images]", "names: [cat]")
    assert [len(data) for data in socodet.convert(tmp_path, reading=ReadingSettings(val_share=0.5)).parts.values()] == [
        1,
        1,
    ]
