import hashlib

import pytest
from tool_files import image, text

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError, SettingError
from socodet.finetuning.labelled_sets import open_labelled_sets
from socodet.probing.datasets import open_probe_datasets
from socodet.probing.settings import ProbeData

XML = (
    "<annotation><filename>{}</filename><size><width>400</width><height>266</height></size><object><name>cat</name>"
    "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax></bndbox></object></annotation>"
)


@pytest.fixture
def bare(tmp_path):
    """Ten images in images/, and XML files of the first nine in annots/."""
    for name in range(10):
        image("chelsea", tmp_path / "bare" / "images" / f"{name}.jpg")
        if name < 9:
            text(tmp_path / "bare" / "annots" / f"{name}.xml", XML.format(f"{name}.jpg"))
    return tmp_path / "bare"


def ids(data):
    return [image.image_id for image in data.images]


def test_held_back_share_is_always_the_same(bare):
    train, val = open_labelled_sets(bare, None, reading=ReadingSettings(val_share=0.3))
    assert (len(train), len(val)) == (6, 3)
    assert sorted(ids(train) + ids(val)) == [f"images/{name}" for name in range(9)]
    assert train.problems.counts == {Problem.NO_ANNOTATION_FILE: 1}
    assert not val.problems
    again = open_detection_set(bare, split="val", reading=ReadingSettings(val_share=0.3))
    assert ids(again) == ids(val)  # the way `evaluate` reads it
    other = open_detection_set(bare, split="val", reading=ReadingSettings(val_share=0.3, val_seed=1))
    assert ids(other) != ids(val)
    larger = open_detection_set(bare, split="val", reading=ReadingSettings(val_share=0.6))
    assert set(ids(larger)) > set(ids(val))
    sets = open_probe_datasets(ProbeData(bare), reading=ReadingSettings(val_share=0.3))
    assert (ids(sets.train), ids(sets.val)) == (ids(train), ids(val))


def test_roboflows_copies_of_an_image_are_held_back_together(tmp_path):
    for origin in "abcdef":
        for copy in range(3):
            image("chelsea", tmp_path / "images" / f"{origin}_jpg.rf.{hash_of(origin, copy)}.jpg")
            text(tmp_path / "labels" / f"{origin}_jpg.rf.{hash_of(origin, copy)}.txt", "0 0.5 0.5 0.2 0.2")
    held = []
    for share in (0.1, 0.3, 0.5):
        settings = ReadingSettings(val_share=share)
        train, val = (open_detection_set(tmp_path, split=part, reading=settings) for part in ("train", "val"))
        assert len(train) + len(val) == 18
        assert len(val) == {0.1: 3, 0.3: 6, 0.5: 9}[share]
        of_val, of_train = ({one.file.name[0] for one in part.images} for part in (val, train))
        assert not of_val & of_train
        held.append(of_val)
    assert held[0] < held[1] < held[2]


def hash_of(origin, copy):
    return hashlib.md5(f"{origin}{copy}".encode()).hexdigest()


def test_dataset_without_splits_asks_for_a_share_or_another_dataset(bare, tmp_path):
    for reader in (lambda: open_labelled_sets(bare, None), lambda: open_probe_datasets(ProbeData(bare))):
        with pytest.raises(InputError, match=r"--val-share.*ReadingSettings\(val_share.*--val") as raised:
            reader()
        assert "--split" not in str(raised.value)  # a flag that these commands do not have
    with pytest.raises(InputError, match=r"no split 'val'.*'all'.*--val-share.*--split"):
        open_detection_set(bare, split="val")  # the way `evaluate` reads it
    with pytest.raises(InputError, match="--val-share"):
        open_detection_set(bare, split="all", reading=ReadingSettings(val_share=0.3))
    with pytest.raises(InputError, match="no split 'test'") as raised:
        open_detection_set(bare, split="test")
    assert "--val-share" not in str(raised.value)  # the option would not create that split
    assert len(open_detection_set(bare, split="all")) == 9  # both refer to this split
    assert len(open_detection_set(bare)) == 9
    train, val = open_labelled_sets(bare, None, reading=ReadingSettings(val_share=0))
    assert (len(train), val) == (9, None)
    train, val = open_labelled_sets(bare, bare)  # a validation set without splits is used whole
    assert len(train) == len(val) == 9
    with pytest.raises(InputError, match="give one of them"):
        open_labelled_sets(bare, bare, reading=ReadingSettings(val_share=0.5))
    with pytest.raises(InputError, match="already open"):
        open_labelled_sets(train, None, reading=ReadingSettings(val_share=0.5))
    with pytest.raises(InputError, match="none to score on"):
        open_labelled_sets(bare, None, reading=ReadingSettings(val_share=0.01))
    with pytest.raises(SettingError, match="val_share"):
        ReadingSettings(val_share=1.0)


def test_xml_files_find_their_images(tmp_path):
    """By their own name, else by the name inside; leftovers and files that name another image are counted."""
    image("chelsea", tmp_path / "a.JPG")
    image("chelsea", tmp_path / "b.jpg")
    image("coffee", tmp_path / "c.d.jpeg")
    text(tmp_path / "a.xml", XML.format("b.jpg"))
    text(tmp_path / "0001.xml", XML.format("D:\\set\\b.jpg"))
    text(tmp_path / "c.d.xml", XML.format("elsewhere.png"))
    text(tmp_path / "z.xml", XML.format("z.jpg"))
    read = open_detection_set(tmp_path, split="all")
    assert ids(read) == ["a", "b", "c.d"]
    assert read.problems.counts == {Problem.OTHER_FILE_NAME: 1, Problem.NO_IMAGE_FOR_LABELS: 1}


def test_dataset_without_a_usable_image_is_refused_in_every_process(bare):
    """If only the process that prints refused it, the others would wait for that process."""
    for file in (bare / "images").iterdir():
        file.write_bytes(b"no image")
    for says in (True, False):
        with pytest.raises(InputError, match="none of its 9 images"):
            open_labelled_sets(bare, None, reading=ReadingSettings(val_share=0), say_problems=says)


def test_suffixes_may_be_in_any_case(tmp_path):
    image("chelsea", tmp_path / "xml" / "a.JPG")
    text(tmp_path / "xml" / "a.XML", XML.format("a.JPG"))
    image("chelsea", tmp_path / "yolo" / "images" / "a.Jpeg")
    text(tmp_path / "yolo" / "labels" / "a.TXT", "0 .5 .5 .2 .2")
    for form in ("xml", "yolo"):
        assert len(open_detection_set(tmp_path / form, split="all").with_objects()) == 1


def test_xml_files_with_their_images_elsewhere(tmp_path):
    image("chelsea", tmp_path / "photos" / "a.jpg")
    text(tmp_path / "marks" / "a.xml", XML.format("a.jpg"))
    with pytest.raises(InputError, match="no known layout"):
        open_detection_set(tmp_path / "marks", split="all")
    assert len(open_detection_set(tmp_path / "marks", split="all", images=tmp_path / "photos")) == 1
