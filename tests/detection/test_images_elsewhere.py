"""`--images` names the folder of a dataset's images that are elsewhere; layouts that do not need it refuse it."""

import json
import unicodedata

import pytest
from tool_files import image, text

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.images.source import open_images

LINE = "0 0.5 0.5 0.25 0.25"
XML = (
    "<annotation><size><width>400</width><height>266</height></size><object><name>cat</name><bndbox><xmin>10</xmin>"
    "<ymin>10</ymin><xmax>60</xmax><ymax>60</ymax></bndbox></object></annotation>"
)


def files(data):
    return {one.image_id: (one.file, len(one)) for one in data.images}


@pytest.mark.parametrize("labels", ["labels", "."])
@pytest.mark.parametrize("part", ["train", ""])
def test_label_files_without_their_images(tmp_path, labels, part):
    far, labelled = tmp_path / "far", tmp_path / "set"
    for number, name in enumerate("ab"):
        image("chelsea", far / part / f"{name}.jpg")
        text(labelled / labels / part / f"{name}.txt", *(f"{one}{LINE[1:]}" for one in range(number + 1)))
    image("coffee", labelled / "images" / part / "a.jpg")  # a different image
    text(labelled / "classes.txt", "cat", "dog")
    data = open_detection_set(labelled, split=part or "all", images=far)
    assert files(data) == {
        f"{part}/{name}.jpg".lstrip("/"): (far / part / f"{name}.jpg", number) for name, number in (("a", 1), ("b", 2))
    }
    assert data.images[0].height == 266  # the different image's is 267
    assert not data.problems


def test_label_files_in_one_folder_for_images_in_several(tmp_path):
    far, labelled = tmp_path / "far", tmp_path / "set"
    for place in ("x/a", "y/a", "y/b"):
        image("chelsea", far / f"{place}.jpg")
    for name in "ab":
        text(labelled / "labels" / f"{name}.txt", LINE)
    data = open_detection_set(labelled, split="all", images=far)
    assert list(files(data)) == ["y/b.jpg"]
    assert data.problems.counts == {Problem.SHARED_ANNOTATION_FILE: 2}


def test_lists_of_images_elsewhere(tmp_path):
    far, labelled = tmp_path / "far", tmp_path / "set"
    for name in "abc":
        image("chelsea", far / f"{name}.jpg")
        text(labelled / "labels" / f"{name}.txt", LINE)
    text(labelled / "train.txt", "data/a.jpg", "data/b.jpg")
    text(labelled / "val.txt", "data/c.jpg")
    for part, names in (("train", "ab"), ("val", "c")):
        data = open_detection_set(labelled, split=part, images=far)
        assert files(data) == {f"{name}.jpg": (far / f"{name}.jpg", 1) for name in names}


def test_images_of_other_names_are_refused_and_the_folder_named(tmp_path):
    image("chelsea", tmp_path / "far" / "b.jpg")
    text(tmp_path / "set" / "labels" / "a.txt", LINE)
    with pytest.raises(InputError, match=str(tmp_path / "far")):
        open_detection_set(tmp_path / "set", split="all", images=tmp_path / "far")


def test_xml_files_in_a_subfolder(tmp_path):
    far, labelled = tmp_path / "far", tmp_path / "set"
    for name in "ab":
        image("chelsea", far / f"{name}.jpg")
        text(labelled / "annotations" / f"{name}.xml", XML)
    data = open_detection_set(labelled, split="all", images=far)
    assert files(data) == {name: (far / f"{name}.jpg", 1) for name in "ab"}


def test_voc_folders_and_lists(tmp_path, monkeypatch):
    far, labelled = tmp_path / "far", tmp_path / "set"
    image("chelsea", far / "a.jpg")
    image("coffee", labelled / "JPEGImages" / "a.jpg")
    text(labelled / "Annotations" / "a.xml", XML)
    text(labelled / "ImageSets" / "Main" / "train.txt", "a")
    monkeypatch.chdir(tmp_path)
    for given, images in ((labelled, far), (labelled / "ImageSets" / "Main" / "train.txt", "far")):
        assert files(open_detection_set(given, split="train", images=images)) == {"a": (far / "a.jpg", 1)}
    with pytest.raises(InputError, match=r"missing.*nowhere/a\.jpg"):
        open_detection_set(labelled, split="train", images=tmp_path / "nowhere")


def test_images_option_is_refused_by_datasets_that_name_their_images(tmp_path):
    image("chelsea", tmp_path / "yolo" / "images" / "a.jpg")
    text(tmp_path / "yolo" / "labels" / "a.txt", LINE)
    text(tmp_path / "yolo" / "data.yaml", "train: images", "names: [cat]")
    for given in (tmp_path / "yolo", tmp_path / "yolo" / "data.yaml"):
        with pytest.raises(InputError, match="--images") as error:
            open_detection_set(given, split="train", images=tmp_path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("named", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_composed_or_decomposed(tmp_path, named, there):
    """In file names macOS writes `é` as two characters, labelling tools and archives often as one."""
    name, file = (unicodedata.normalize(form, "caf\u00e9") for form in (named, there))
    image("chelsea", tmp_path / "images" / f"{file}.jpg")
    text(tmp_path / "labels" / f"{name}.txt", LINE)
    text(tmp_path / "classes.txt", "cat")
    (read,) = open_detection_set(tmp_path, split="all").images
    assert (read.file, len(read)) == (tmp_path / "images" / f"{file}.jpg", 1)
    image("chelsea", tmp_path / "xml" / "images" / f"{file}.jpg")
    text(tmp_path / "xml" / "annotations" / f"{name}.xml", XML)
    assert [len(one) for one in open_detection_set(tmp_path / "xml", split="all").images] == [1]
    text(tmp_path / "list.txt", f"images/{name}.jpg")
    assert open_images(tmp_path / "list.txt").read(0) == (tmp_path / "images" / f"{file}.jpg").read_bytes()
    content = {
        "images": [{"id": 1, "file_name": f"{name}.jpg", "width": 400, "height": 266}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    text(tmp_path / "set.json", json.dumps(content))
    read = open_detection_set(tmp_path / "set.json")
    assert files(read) == {1: (tmp_path / "images" / f"{file}.jpg", 1)}
    assert read.problems.counts == {Problem.OTHER_SUFFIX: 1}


def test_box_form_option_is_refused_where_the_form_is_known(tmp_path):
    image("chelsea", tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", LINE)
    text(tmp_path / "data.yaml", "train: images", "names: [cat]")
    with pytest.raises(InputError, match="--box-form"):
        open_detection_set(tmp_path / "data.yaml", split="train", reading=ReadingSettings(box_form="xyxy"))
