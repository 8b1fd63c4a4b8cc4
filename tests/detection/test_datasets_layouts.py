import json
import os
import shutil
from pathlib import Path

import pytest

from socodet.detection.datasets.folder_listing import FolderListings
from socodet.detection.datasets.layouts import layout_at, open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.splits import split_in_name
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.images.source import open_images


def write(file, folder, names=("cat",)):
    """Writes a COCO file of one image, which is put into `folder`."""
    for place in (file.parent, folder):
        place.mkdir(parents=True, exist_ok=True)
    shutil.copy(photographs() / "chelsea.jpg", folder)
    content = {
        "images": [{"id": 1, "file_name": "chelsea.jpg", "width": 400, "height": 266}],
        "annotations": [],
        "categories": [{"id": k, "name": name} for k, name in enumerate(names, 1)],
    }
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/instances_train.json", "images"),
        ("train.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("annotations/instances_train2014.json", "train2014"),
        ("train/annotations/instances.json", "train/images"),
        ("annotations/instances.json", "images"),
        ("result_coco.json", "images"),
    ],
)
def test_coco_layouts(tmp_path, file, folder):
    write(tmp_path / file, tmp_path / folder)
    read = open_detection_set(tmp_path, split="train")
    assert read.images[0].file == tmp_path / folder / "chelsea.jpg"
    assert open_detection_set(tmp_path / file).images[0].file == read.images[0].file


@pytest.mark.parametrize(
    ("name", "split"),
    [("custom_train.json", "train"), ("Validation-2.csv", "val"), ("train_test.csv", None), ("trains.json", None)],
)
def test_split_is_a_word_of_the_name(name, split):
    assert split_in_name(Path(name)) == split


def test_val_images_are_not_mistaken_for_train_images(tmp_path):
    for split in ("train2017", "val2017"):
        write(tmp_path / "annotations" / f"instances_{split}.json", tmp_path / split)
    assert open_detection_set(tmp_path, split="val").images[0].file.parent.name == "val2017"
    assert open_detection_set(tmp_path, split="train2017").images[0].file.parent.name == "train2017"


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_roboflows_coco_folders(tmp_path, val):
    for part in ("train", val, "test"):
        write(tmp_path / part / "_annotations.coco.json", tmp_path / part, (part,))
    for split, part in (("train", "train"), ("val", val), ("test", "test")):
        read = open_detection_set(tmp_path, split=split)
        assert [category.name for category in read.categories] == [part]
        assert read.images[0].file == tmp_path / part / "chelsea.jpg"


@pytest.mark.parametrize(
    ("file", "split", "of_folder", "of_file"),
    [
        ("train.json", "train", "cards train", "cards train"),
        ("annotations/instances_val2017.json", "val", "cards val", "cards val"),
        ("valid/_annotations.coco.json", "val", "cards val", "cards val"),
        ("_annotations.coco.json", "all", "cards", "cards"),
        ("extra.json", "extra", "cards extra", "extra"),
    ],
)
def test_dataset_is_named_by_its_folder_and_split(tmp_path, monkeypatch, file, split, of_folder, of_file):
    """Runs on the train.json of several datasets can be told apart; no folder above the dataset is in its name."""
    cards = tmp_path / "cards"
    write(cards / file, (cards / file).parent)
    assert open_detection_set(cards, split=split).name == of_folder
    assert open_detection_set(cards / file).name == of_file
    monkeypatch.chdir(cards)
    assert open_detection_set(".", split=split).name == of_folder
    assert open_detection_set(file).name == of_file


def test_files_in_an_unknown_layout_are_named(tmp_path):
    write(tmp_path / "notes" / "result.json", tmp_path / "images")
    with pytest.raises(InputError, match=r"no known layout.*notes/result\.json"):
        open_detection_set(tmp_path, split="val")


def test_images_of_a_coco_file_elsewhere(tmp_path):
    write(tmp_path / "here" / "train.json", tmp_path / "far" / "away" / "photos")
    with pytest.raises(InputError, match="none of its images, such as"):
        open_detection_set(tmp_path / "here" / "train.json")
    read = open_detection_set(tmp_path / "here" / "train.json", images=tmp_path / "far" / "away" / "photos")
    assert len(read) == 1
    with pytest.raises(InputError, match="name their folder"):
        open_detection_set(tmp_path / "here" / "train.json", images=tmp_path)


def test_other_files_and_folders_are_refused(tmp_path):
    for split in (None, "train"):
        with pytest.raises(InputError, match="no known layout"):
            open_detection_set(tmp_path, split=split)
    with pytest.raises(InputError, match="no such file or folder"):
        open_detection_set(tmp_path / "gone.json")
    (tmp_path / "export.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack it"):
        open_detection_set(tmp_path / "export.zip")
    for name in ("text.txt", "photo.jpg"):
        (tmp_path / name).write_text("1")
        with pytest.raises(InputError, match="not a detection dataset"):
            open_detection_set(tmp_path / name)


@pytest.mark.parametrize(("named", "there"), [("a.jpg", "a.JPG"), ("A.JPEG", "A.jpg"), ("b/a.png", "b/a.PNG")])
def test_suffix_of_a_listed_image_may_be_spelled_differently(tmp_path, named, there):
    write(tmp_path / "set.json", tmp_path)
    (tmp_path / there).parent.mkdir(exist_ok=True)
    shutil.move(tmp_path / "chelsea.jpg", tmp_path / there)
    content = json.loads((tmp_path / "set.json").read_text())
    content["images"][0]["file_name"] = named
    (tmp_path / "set.json").write_text(json.dumps(content))
    read = open_detection_set(tmp_path / "set.json")
    assert read.images[0].file == tmp_path / there
    assert read.problems.counts == {Problem.OTHER_SUFFIX: 1}
    assert open_images(tmp_path / "set.json").read(0) == (tmp_path / there).read_bytes()
    shutil.move(tmp_path / there, (tmp_path / there).with_suffix(".bmp"))  # a .bmp may be anything, such as a mask
    with pytest.raises(InputError, match="none of its images, such as"):
        open_detection_set(tmp_path / "set.json")


@pytest.mark.usefixtures("any_bytes_in_names")
def test_file_names_in_a_coco_file_need_not_be_utf_8(tmp_path):
    """As old systems write them, both in the file and on disk."""
    write(tmp_path / "set.json", tmp_path)
    name = os.fsdecode(b"caf\xe9.jpg")
    shutil.move(tmp_path / "chelsea.jpg", tmp_path / name)
    (tmp_path / "set.json").write_bytes((tmp_path / "set.json").read_bytes().replace(b"chelsea", b"caf\xe9"))
    assert open_detection_set(tmp_path / "set.json").images[0].file.name == name
    assert open_images(tmp_path / "set.json").key(0) == name


def test_finding_a_layout_does_not_stat_every_file(tmp_path, monkeypatch):
    """For a large dataset on a network drive that would take minutes."""
    for name in "abc":
        for folder, suffix in (("images", ".jpg"), ("labels", ".txt")):
            file = tmp_path / folder / "train" / f"{name}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("0 0.5 0.5 0.1 0.1")
    asked, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(str(path)) or stat(path, **options))
    assert layout_at(tmp_path).splits == ("train",)
    assert str(tmp_path / "images") in {os.path.dirname(path) for path in asked}
    assert not [path for path in asked if os.path.splitext(os.path.basename(path))[0] in "abc"]


def test_folder_is_listed_once_for_all_case_insensitive_lookups(tmp_path):
    """Some seventy names are looked for, and a folder may hold a million files."""

    class Counted(FolderListings):
        asked = 0

        def names(self, folder):
            self.asked += 1
            return super().names(folder)

    for name in ("Train.JSON", "TRAIN.json", "Labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "Labels" / "One.txt").touch()
    there = Counted()
    assert there.find_ignoring_case(tmp_path, "train.json") == tmp_path / "TRAIN.json"  # the first by name
    assert there.find_ignoring_case(tmp_path, "labels/one.TXT") == tmp_path / "Labels" / "One.txt"
    assert [there.find_ignoring_case(tmp_path, f"{k}.json") for k in range(30)] == [None] * 30
    assert there.asked == 2


@pytest.mark.parametrize("place", ["", "annotations"])
def test_coco_files_are_found_by_the_name_of_their_split(tmp_path, place):
    for part in ("train", "val"):
        write(tmp_path / place / f"custom_{part}.json", tmp_path / part, [part])
        (tmp_path / place / f"{part}_found.json").write_text('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]')  # detections
    for part in ("train", "val"):
        data = open_detection_set(tmp_path, split=part)
        assert (data.images[0].file.parent.name, data.categories[0].name) == (part, part)
        assert data.name == f"{tmp_path.name} {part}"
    (tmp_path / place / "train_settings.json").write_text('{"images": "train/"}')
    assert open_detection_set(tmp_path, split="train").categories[0].name == "train"
    write(tmp_path / place / "other_train.json", tmp_path / "train")
    with pytest.raises(InputError, match=r"custom_train\.json.*other_train\.json"):
        open_detection_set(tmp_path, split="train")


def test_coco_file_of_any_name_may_have_a_class_called_as_labelmes_list(tmp_path):
    write(tmp_path / "custom_train.json", tmp_path / "train", ["shapes"])
    assert open_detection_set(tmp_path, split="train").categories[0].name == "shapes"


def test_labelmes_files_of_images_called_train_are_no_coco_files(tmp_path):
    for k in range(2):
        shutil.copy(photographs() / "chelsea.jpg", tmp_path / f"train_{k}.jpg")
        shape = {"label": "train", "points": [[1, 2], [30, 40]], "shape_type": "rectangle"}
        (tmp_path / f"train_{k}.json").write_text(json.dumps({"shapes": [shape], "images": []}))
    assert layout_at(tmp_path).name == "images with LabelMe's JSON files"


def test_label_files_named_in_another_case_are_said_to_be_missing(tmp_path):
    for place, name in (("images", "Img_1.jpg"), ("labels", "IMG_1.txt"), ("labels", "IMG_2.txt")):
        (tmp_path / place).mkdir(exist_ok=True)
        shutil.copy(photographs() / "chelsea.jpg", tmp_path / place / name)
    with pytest.raises(InputError, match=r"YOLO layout [(]missing: label files of the images' names, in the same case"):
        open_detection_set(tmp_path, split="all")


@pytest.mark.parametrize(("folder", "is_said"), [("line a", True), ("Annotations", False)])
def test_images_of_a_neighbouring_dataset_are_not_read_silently(tmp_path, capsys, folder, is_said):
    write(tmp_path / folder / "all.json", tmp_path / "line b")
    assert open_detection_set(tmp_path / folder / "all.json").images[0].file.parent.name == "line b"
    assert (str(tmp_path / "line b") in capsys.readouterr().err) is is_said
    write(tmp_path / folder / "all.json", tmp_path / folder / "images")
    assert open_detection_set(tmp_path / folder / "all.json").images[0].file.parent.name == "images"
    assert capsys.readouterr().err == ""


def test_images_below_a_files_folder_are_not_said_to_be_elsewhere(tmp_path, capsys):
    """Nor if a link leads to them, or if their names begin with the folder's."""
    file = tmp_path / "set" / "all.json"
    write(file, tmp_path / "store")
    (tmp_path / "set" / "images").symlink_to(tmp_path / "store")
    assert open_detection_set(file).images[0].file.name == "chelsea.jpg"
    (tmp_path / "set" / "images").unlink()
    (tmp_path / "store" / "chelsea.jpg").rename(tmp_path / "set" / "chelsea.jpg")
    file.write_text(file.read_text().replace("chelsea", "set/chelsea"))
    assert open_detection_set(file).images[0].file == tmp_path / "set" / "chelsea.jpg"
    assert capsys.readouterr().err == ""
