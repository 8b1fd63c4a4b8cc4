"""The images that a run recorded, and how many of them another dataset shares."""

import json
import os
import shutil
from dataclasses import replace

from photograph_sets import coco_file

from socodet.detection.convert import convert
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.shared_images import count_shared_images, note_on_shared, write_images
from socodet.images.photographs import photographs


def test_image_ids_are_written_unchanged(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "set.json"))
    write_images(data.select([2, 0], "part"), tmp_path / "images.json")
    written = json.loads((tmp_path / "images.json").read_text())
    ids = [data.images[2].image_id, data.images[0].image_id]
    assert {name: written[name] for name in ("name", "images", "image_ids")} == {
        "name": "part",
        "images": 2,
        "image_ids": ids,
    }


def test_shared_images_are_matched_by_content_not_by_id(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "set.json"))
    file = tmp_path / "images.json"
    assert count_shared_images(data, file) == 0
    write_images(data.select([0, 1], "trained"), file)
    assert count_shared_images(data, file) == 2
    renumbered = replace(data, images=[replace(one, image_id=place + 100) for place, one in enumerate(data.images)])
    assert count_shared_images(renumbered, file) == 2
    others = [replace(one, image_id=data.images[0].image_id) for one in data.images[2:]]
    assert count_shared_images(replace(data, images=others), file) == 0
    moved = replace(data.images[0], boxes=data.images[0].boxes + 1)
    renamed = replace(data.images[1], file=tmp_path / "another name.jpg")
    assert count_shared_images(replace(data, images=[moved, renamed]), file) == 0
    file.write_text('{"image_ids": [1, 2]}')  # written by an earlier version
    assert count_shared_images(data, file) == 0


def test_validation_set_with_training_images_is_reported(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "set.json"))
    assert note_on_shared(data.select([0, 1], "train"), data.select([2], "val")) is None
    note = note_on_shared(data.select([0, 1], "train"), data.select([1, 2], "val"))
    assert note is not None
    assert "val: 1 of its 2 images are also in train" in note
    copy = tmp_path / "elsewhere" / data.images[1].file.name
    copy.parent.mkdir()
    shutil.copy(data.images[1].file, copy)
    copied = replace(data, name="copy", images=[replace(data.images[1], file=copy)])
    assert "copy: 1 of its 1 images" in (note_on_shared(data, copied) or "")
    renamed = copy.rename(copy.with_name("another name.jpg"))
    other_boxes = replace(data.images[1], file=renamed, boxes=data.images[1].boxes[:0])
    note = note_on_shared(data, replace(data, name="renamed", images=[data.images[0], other_boxes])) or ""
    assert "renamed: 2 of its 2 images" in note
    note = note_on_shared(data.select([1, 2], "train"), replace(data, name="renamed", images=[other_boxes])) or ""
    assert f"{renamed} is {data.images[1].file}" in note
    renamed.rename(copy)
    copy.write_bytes(copy.read_bytes()[:-1] + b"?")  # a different image with the same name and boxes
    assert note_on_shared(data, copied) is None


def test_image_is_shared_whatever_its_annotations(tmp_path):
    """For example with some classes left out, or converted from another format."""
    data = open_detection_set(coco_file(tmp_path / "set.json"))
    moved = replace(data.images[0], boxes=data.images[0].boxes + 0.01)
    bare = replace(data.images[1], boxes=data.images[1].boxes[:0])
    note = note_on_shared(data.select([0, 1], "train"), replace(data, name="val", images=[moved, bare, data.images[2]]))
    assert note is not None
    assert "val: 2 of its 3 images" in note


def test_files_of_one_size_are_told_apart_by_their_contents(tmp_path):
    """As uncompressed images are; one that differs in its last byte only is no copy."""
    data = open_detection_set(coco_file(tmp_path / "set.json"))
    content = os.urandom(50_000)
    contents = {"a": content, "b": content[::-1], "c": content, "d": content[:-1] + b"?", "e": b"", "f": b""}
    for name, one in contents.items():
        (tmp_path / name).write_bytes(one)
    train, val = (
        replace(data, name=name, images=[replace(data.images[0], file=tmp_path / one) for one in files])
        for name, files in (("train", "abe"), ("val", "cdf"))
    )
    note = note_on_shared(train, val) or ""
    assert "val: 1 of its 3 images" in note
    assert f"{tmp_path / 'c'} is {tmp_path / 'a'}" in note


def test_check_of_a_dataset_says_that_splits_share_images(tmp_path, caplog):
    sources = sorted(photographs().glob("*.jpg"))
    for split, name, source in (("train", "a", 0), ("train", "b", 1), ("val", "c", 1), ("val", "d", 2)):
        for part, ending in (("images", ".jpg"), ("labels", ".txt")):
            (tmp_path / part / split).mkdir(parents=True, exist_ok=True)
            file = tmp_path / part / split / f"{name}{ending}"
            if part == "labels":
                file.write_text("0 0.5 0.5 0.2 0.2\n")
            else:
                shutil.copy(sources[source], file)
    (tmp_path / "classes.txt").write_text("thing\n")
    convert(tmp_path)
    assert "1 of its 2 images are also in" in caplog.text
    assert str(tmp_path / "images" / "train" / "b.jpg") in caplog.text
