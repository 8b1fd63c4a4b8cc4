"""`--images` with a validation set at another path, which uses its own images if it has any, else that folder."""

import json
import shutil

import pytest
from test_datasets_huggingface import save
from tool_files import image, text

from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.finetuning.labelled_sets import open_labelled_sets
from socodet.probing.datasets import open_probe_datasets
from socodet.probing.settings import ProbeData

OBJECT = (
    "<object><name>cat</name><bndbox><xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax></bndbox></object>"
)
XML = f"<annotation><size><width>400</width><height>266</height></size>{OBJECT}</annotation>"


def coco(file):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 400, "height": 266}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    text(file, json.dumps(content))


def coco_folder(folder):
    coco(folder / "annotations" / "instances_val2017.json")
    image("chelsea", folder / "annotations" / "panoptic_val2017" / "a.png")  # not one of the dataset's images
    image("chelsea", folder / "val2017" / "a.jpg")


def voc_folder(folder):
    image("chelsea", folder / "JPEGImages" / "a.jpg")
    image("chelsea", folder / "SegmentationClass" / "a.png")
    text(folder / "Annotations" / "a.xml", XML)
    text(folder / "ImageSets" / "Main" / "val.txt", "a")


def xml_folder(folder):
    image("chelsea", folder / "images" / "a.jpg")
    text(folder / "annotations" / "a.xml", XML)


def via_folder(folder):
    rect = {"name": "rect", "x": 10, "y": 10, "width": 50, "height": 50}
    region = {"shape_attributes": rect, "region_attributes": {"kind": "cat"}}
    entry = {"filename": "a.jpg", "size": 1, "regions": [region], "file_attributes": {}}
    text(folder / "val.json", json.dumps({"a.jpg1": entry}))
    image("chelsea", folder / "images" / "a.jpg")


def cvat_folder(folder):
    box = '<box label="cat" xtl="10" ytl="10" xbr="60" ybr="60"></box>'
    entry = f'<image id="0" name="a.jpg" width="400" height="266">{box}</image>'
    text(folder / "val" / "annotations.xml", f"<annotations><version>1.1</version>{entry}</annotations>")
    image("chelsea", folder / "val" / "images" / "a.jpg")


def label_studio_folder(folder):
    value = {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["cat"]}
    result = {"value": value, "from_name": "label", "to_name": "image", "type": "rectanglelabels"}
    task = {"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": [result]}]}
    text(folder / "val.json", json.dumps([task]))
    image("chelsea", folder / "images" / "a.jpg")


def folder_of_tables(folder):
    text(folder / "val.csv", "a.jpg,10,10,60,60,cat")
    image("chelsea", folder / "images" / "a.jpg")


def yolo_folder(folder):
    image("chelsea", folder / "images" / "a.jpg")
    text(folder / "labels" / "a.txt", "0 0.5 0.5 0.25 0.25")
    text(folder / "classes.txt", "cat")


def described_folder(folder):
    yolo_folder(folder)
    text(folder / "data.yaml", "train: images", "val: images", "names: [cat]")


FOLDERS = {
    "coco": (coco_folder, "val2017", ""),
    "voc": (voc_folder, "JPEGImages", ""),
    "a list of voc": (voc_folder, "JPEGImages", "ImageSets/Main/val.txt"),
    "xml": (xml_folder, "images", ""),
    "via": (via_folder, "images", ""),
    "cvat": (cvat_folder, "val/images", ""),
    "a file of cvat": (cvat_folder, "", "val/annotations.xml"),
    "label studio": (label_studio_folder, "images", ""),
    "tables": (folder_of_tables, "images", ""),
    "yolo": (yolo_folder, "images", ""),
    "data.yaml": (described_folder, "images", "data.yaml"),
    "its folder": (described_folder, "images", ""),
    "saved": (save, "", ""),
}


LACKING_IMAGES = ("coco", "voc", "a list of voc", "xml", "via", "cvat", "label studio", "tables", "yolo")


@pytest.fixture
def train(tmp_path):
    coco(tmp_path / "train.json")
    image("chelsea", tmp_path / "photos" / "a.jpg")
    return tmp_path / "train.json"


@pytest.mark.parametrize("layout", FOLDERS)
def test_validation_set_reads_its_own_images(train, tmp_path, layout):
    make, inside, given = FOLDERS[layout]
    make(tmp_path / "val")
    photos = tmp_path / "photos"
    sets = open_probe_datasets(ProbeData(train, val=tmp_path / "val" / given, images=photos))
    for training, validation in (
        open_labelled_sets(train, str(tmp_path / "val" / given), photos),
        (sets.train, sets.val),
    ):
        assert [one.file for one in training.images] == [photos / "a.jpg"]
        assert training.images[0].boxes.tolist() == [[1, 1, 10, 10]]
        if inside:
            assert [one.file for one in validation.images] == [tmp_path / "val" / inside / "a.jpg"]
        assert len(validation.images[0]) > 0


@pytest.mark.parametrize("layout", LACKING_IMAGES)
def test_validation_set_without_images_reads_the_given_folder(train, tmp_path, layout):
    make, inside, given = FOLDERS[layout]
    make(tmp_path / "val")
    shutil.rmtree(tmp_path / "val" / inside)
    _, validation = open_labelled_sets(train, tmp_path / "val" / given, tmp_path / "photos")
    assert [one.file for one in validation.images] == [tmp_path / "photos" / "a.jpg"]


def test_same_dataset_and_coco_files_read_the_given_folder(tmp_path):
    voc_folder(tmp_path / "set")
    image("chelsea", tmp_path / "photos" / "a.jpg")
    list_of_val = tmp_path / "set" / "ImageSets" / "Main" / "val.txt"
    coco(tmp_path / "set" / "other.json")
    for val in (tmp_path / "set", tmp_path / "set" / ".." / "set", list_of_val, tmp_path / "set" / "other.json"):
        for one in open_labelled_sets(list_of_val, val, tmp_path / "photos"):
            assert [found.file for found in one.images] == [tmp_path / "photos" / "a.jpg"]


def test_missing_validation_set_is_one_line(train, tmp_path):
    with pytest.raises(InputError, match="no such file") as error:
        open_labelled_sets(train, tmp_path / "none", tmp_path / "photos", ReadingSettings())
    assert "\n" not in str(error.value)
