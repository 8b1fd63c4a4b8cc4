import shutil

import pytest
import tool_files

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.images.photographs import photographs


def object_xml(name, box, **more):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    rest = "".join(f"<{k}>{v}</{k}>" for k, v in more.items())
    return f"<object><name>{name}</name>{rest}<bndbox>{corners}</bndbox></object>"


def write(root, annotations, **lists):
    """`annotations`: image name → objects, or the whole text of its file."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for name, objects in annotations.items():
        shutil.copy(photographs() / "chelsea.jpg", root / "JPEGImages" / f"{name}.jpg")
        size = "<size><width>400</width><height>266</height><depth>3</depth></size>"
        text = f"<annotation>{size}{''.join(objects)}</annotation>" if isinstance(objects, list) else objects
        (root / "Annotations" / f"{name}.xml").write_text(text)
    for name, ids in lists.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{one}\n" for one in ids))


CAT = object_xml("cat", (1, 1, 400, 266))


def test_corners_and_difficult_objects_are_read(tmp_path):
    dog = object_xml("dog", (11, 21, 30, 50), difficult=1, truncated=1)
    write(tmp_path / "VOC2007", {"000001": [CAT, dog], "000002": []}, trainval=["000001", "000002"])
    read = open_detection_set(tmp_path, split="trainval07")
    assert (read.style, read.has_masks, len(read.categories)) == ("voc", False, 20)
    assert not read.problems
    first, second = read.images
    # all 400 columns and 266 rows; columns 11 to 30 are 20 columns
    assert first.boxes.tolist() == [[0, 0, 400, 266], [10, 20, 30, 50]]
    assert [read.categories[label - 1].name for label in first.labels] == ["cat", "dog"]
    assert first.difficult.tolist() == [False, True]
    assert first.areas.tolist() == [400 * 266, 600]
    assert (first.image_id, len(second)) == ("000001", 0)
    assert read.target(0)["boxes"].shape == (2, 4)  # difficult ones are trained on
    assert read.pixels(0).shape == (266, 400, 3)


@pytest.mark.parametrize(
    ("folder", "database", "box"),
    [
        ("mine", "The VOC2012 Database", [0, 0, 60, 50]),
        ("mine", "Unknown", [1, 1, 60, 50]),
        ("VOC2012_mine", "", [1, 1, 60, 50]),  # not one of VOC's own
    ],
)
def test_corners_are_vocs_only_in_its_own_files(tmp_path, folder, database, box):
    outline = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((9, 9), (90, 9), (90, 90)))
    cup = object_xml("cup", (1, 1, 60, 50), polygon=outline)  # the box counts
    write(tmp_path / folder, {"a": [f"<source><database>{database}</database></source>", cup]}, train=["a"])
    read = open_detection_set(tmp_path / folder, split="train")
    assert [one.name for one in read.categories] == ["cup"]
    assert read.images[0].boxes.tolist() == [box]


def test_splits_of_one_and_two_years(tmp_path):
    write(
        tmp_path / "VOC2007", {"1": [CAT], "2": [CAT], "3": [CAT]}, trainval=["1"], test=["2", "3"], cat_test=["2 -1"]
    )
    write(tmp_path / "VOC2012", {"2012_1": [CAT]}, trainval=["2012_1"])
    ids = {
        split: [image.image_id for image in open_detection_set(tmp_path, split=split).images]
        for split in ("train", "val", "trainval07+12", "trainval12", "test07", "cat_test07")
    }
    assert ids == {
        "train": ["1", "2012_1"],
        "val": ["2", "3"],
        "trainval07+12": ["1", "2012_1"],
        "trainval12": ["2012_1"],
        "test07": ["2", "3"],
        "cat_test07": ["2"],
    }
    assert len(open_detection_set(tmp_path / "VOC2007", split="val")) == 2
    assert len(open_detection_set(tmp_path / "VOC2007", split="test")) == 2
    assert len(open_detection_set(tmp_path / "VOC2007" / "ImageSets" / "Main" / "test.txt")) == 2
    for split, complaint in (
        ("test10", "years 07, 12"),
        ("x07", "cannot be read"),
    ):
        with pytest.raises(InputError, match=complaint):
            open_detection_set(tmp_path, split=split)


def test_faults_in_voc_xml_are_counted(tmp_path):
    annotations = {
        "1": [
            CAT,
            object_xml("unicorn", (1, 1, 5, 5)),
            object_xml("cat", (9, 9, 3, 3)),
            object_xml("cat", ("x", 1, 2, 3)),
            "<object><name>cat</name></object>",
            object_xml("cat", (401, 1, 500, 9)),
            object_xml("dog", (390, 1, 500, 9), difficult=1),
        ],
        "2": "<annotation><object>",
        "3": "<annotation><size><width>0</width></size></annotation>",
    }
    write(tmp_path / "VOC2007", annotations, trainval=["1", "2", "3", "4", "1"])
    read = open_detection_set(tmp_path, split="train")
    assert read.problems.counts == {
        Problem.UNKNOWN_CATEGORY: 1,
        Problem.EMPTY_BOX: 1,
        Problem.BROKEN_BOX: 2,
        Problem.OUTSIDE: 1,
        Problem.CLIPPED: 1,
        Problem.BROKEN_ANNOTATION_FILE: 1,
        Problem.SIZE_FROM_FILE: 1,
        Problem.MISSING_IMAGE: 1,
        Problem.REPEATED_IMAGE: 1,
    }
    assert "unicorn" in read.problems.first[Problem.UNKNOWN_CATEGORY]
    assert read.images[0].boxes.tolist() == [[0, 0, 400, 266], [389, 0, 400, 9]]
    assert [read.categories[label - 1].name for label in read.images[0].labels] == ["cat", "dog"]
    assert read.images[0].difficult.tolist() == [False, True]
    write(tmp_path / "VOC2007", {}, trainval=["2", "4"])
    with pytest.raises(InputError, match="none of its images can be used"):
        open_detection_set(tmp_path, split="train")


def test_dataset_in_vocs_layout_has_its_own_classes(tmp_path):
    write(
        tmp_path,
        {"a": [object_xml("zebra", (1, 1, 9, 9))], "b": [object_xml("ant", (1, 1, 9, 9))]},
        train=["a"],
        test=["b"],
    )
    train, val = (open_detection_set(tmp_path, split=split) for split in ("train", "val"))
    assert [category.name for category in train.categories] == ["ant", "zebra"]
    assert train.categories == val.categories
    assert (train.images[0].labels.tolist(), val.images[0].labels.tolist()) == ([2], [1])


def test_classes_of_objects_in_folders(tmp_path):
    """As CVAT exports images in folders; XML files that no list names, such as old versions, add no class."""
    write(tmp_path, {"a": [object_xml("zebra", (1, 1, 9, 9))]}, default=["a", "sub/b"])
    for folder in ("sub", "old"):
        tool_files.text(tmp_path / "Annotations" / folder / "b.xml", f"<annotation>{object_xml(folder, (1, 1, 9, 9))}")
        with (tmp_path / "Annotations" / folder / "b.xml").open("a") as file:
            file.write("</annotation>")
    tool_files.image("chelsea", tmp_path / "JPEGImages" / "sub" / "b.jpg")
    for given in (tmp_path, tmp_path / "ImageSets" / "Main" / "default.txt"):
        read = open_detection_set(given, split="all")
        assert [category.name for category in read.categories] == ["sub", "zebra"]
        assert [image.labels.tolist() for image in read.images] == [[2], [1]]


def ids(read):
    return [image.image_id for image in read.images]


def test_lists_may_have_spaces_flags_and_suffixes(tmp_path):
    names = ["cat", "cat (2)", "my image", "b 1", "c", "größe"]
    write(tmp_path, {name: [CAT] for name in names})
    lists = tmp_path / "ImageSets" / "Main"
    for text, expected in (
        ("\n".join(names), names),
        ("\ufeffcat\r\ncat (2)\r\n\r\n", ["cat", "cat (2)"]),
        ("  cat  \nmy image 1\ncat (2)  -1\nb 1\nb 1 0\n", ["cat", "my image", "cat (2)", "b 1"]),
        ("cat.jpg\nmy image.jpg 1\n", ["cat", "my image"]),
    ):
        (lists / "train.txt").write_bytes(text.encode())
        assert ids(open_detection_set(lists / "train.txt")) == list(dict.fromkeys(expected))
        (lists / "train.txt").write_bytes(text.removeprefix("\ufeff").encode("utf-16"))
        assert ids(open_detection_set(lists / "train.txt")) == list(dict.fromkeys(expected))


def test_image_suffixes_of_any_spelling(tmp_path):
    write(tmp_path, {name: [CAT] for name in "abc"}, train=["a", "b", "c"])
    for name, suffix in (("a", ".JPEG"), ("b", ".jfif"), ("c", ".Png")):
        (tmp_path / "JPEGImages" / f"{name}.jpg").rename(tmp_path / "JPEGImages" / f"{name}{suffix}")
    read = open_detection_set(tmp_path, split="train")
    assert [image.file.name for image in read.images] == ["a.JPEG", "b.jfif", "c.Png"]


def test_list_may_spell_suffixes_differently(tmp_path):
    write(tmp_path, {name: [CAT] for name in "abc"}, train=["a.jpg", "JPEGImages\\b.JPG 1", "c.jpg", "d.jpg"])
    for name, suffix in (("a", ".JPG"), ("b", ".jpeg")):
        (tmp_path / "JPEGImages" / f"{name}.jpg").rename(tmp_path / "JPEGImages" / f"{name}{suffix}")
    read = open_detection_set(tmp_path, split="train")
    assert [(image.image_id, image.file.name) for image in read.images] == [
        ("a", "a.JPG"),
        ("b", "b.jpeg"),
        ("c", "c.jpg"),
    ]
    assert read.problems.counts == {Problem.OTHER_SUFFIX: 2, Problem.MISSING_IMAGE: 1}
    assert read.problems.first[Problem.MISSING_IMAGE].endswith("/d.jpg")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "gbk", "shift_jis", "windows-1251"])
def test_xml_is_read_in_its_declared_encoding(tmp_path, encoding):
    name = {"latin-1": "größe", "utf-8": "größe", "utf-16": "größe", "gbk": "猫", "shift_jis": "猫"}.get(
        encoding, "кот"
    )
    write(tmp_path, {"a": [object_xml(name, (1, 1, 9, 9))]}, train=["a"])
    file = tmp_path / "Annotations" / "a.xml"
    text = file.read_text("utf-8")
    file.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>\n{text}'.encode(encoding))
    assert [category.name for category in open_detection_set(tmp_path, split="train").categories] == [name]


def test_unparsable_xml_is_counted(tmp_path):
    broken = ['<?xml version="1.0" encoding="klingon"?><annotation/>', "<annotation>", "", "\xff"]
    write(tmp_path, {"a": [CAT], **{str(number): text for number, text in enumerate(broken)}}, train=["a", *"0123"])
    read = open_detection_set(tmp_path, split="train")
    assert ids(read) == ["a"]
    assert read.problems.counts == {Problem.BROKEN_ANNOTATION_FILE: 4}


def test_difficult_may_be_a_word(tmp_path):
    marks = ["0", "1", "true", "False", "", "Unspecified"]
    write(tmp_path, {"a": [object_xml("cat", (1, 1, 99, 99), difficult=mark) for mark in marks]}, train=["a"])
    read = open_detection_set(tmp_path, split="train")
    assert read.images[0].difficult.tolist() == [False, True, True, False, False, False]
    assert read.problems.counts == {Problem.UNCLEAR_FLAG: 1}
    assert "'Unspecified'" in read.problems.first[Problem.UNCLEAR_FLAG]


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>-1</height></size>"])
def test_missing_size_in_xml_is_read_from_the_image(tmp_path, size):
    write(tmp_path, {"a": f"<annotation>{size}{CAT}</annotation>"}, train=["a"])
    (image,) = open_detection_set(tmp_path, split="train").images
    assert (image.width, image.height) == (400, 266)
    assert image.boxes.tolist() == [[1, 1, 400, 266]]


def test_boxes_in_another_form_and_foreign_classes_are_refused(tmp_path):
    def write_boxes(form):
        boxes = [form(x, y, 60, 50) for x in (1, 100, 200, 330) for y in (1, 100, 210)]
        write(tmp_path / "set", {"a": [object_xml("cat", box) for box in boxes]}, train=["a"])

    write_boxes(lambda x, y, w, h: (x / 400, y / 266, (x + w) / 400, (y + h) / 266))
    with pytest.raises(InputError, match="fractions of the image"):
        open_detection_set(tmp_path / "set", split="train")
    write_boxes(lambda x, y, w, h: (x, y, w, h))
    with pytest.raises(InputError, match=r"x, y, width, height .*first: .*a\.xml"):
        open_detection_set(tmp_path / "set", split="train")
    write(tmp_path / "VOC2007", {"a": [object_xml("unicorn", (1, 1, 9, 9))]}, trainval=["a"])
    with pytest.raises(InputError, match=r"none of its 1 objects is of a known class .*unicorn"):
        open_detection_set(tmp_path, split="train")


@pytest.mark.parametrize(
    "line",
    [
        "JPEGImages/a.jpg",
        "JPEGImages\\a.jpg",
        "C:\\VOC\\JPEGImages\\a.jpg",
        "/home/me/VOC/JPEGImages/a.jpg 1",
        "./a",
        "../JPEGImages/a",
    ],
)
def test_list_may_hold_paths(tmp_path, line):
    """Paths in this dataset, or on another machine."""
    tool_files.image("chelsea", tmp_path / "JPEGImages" / "a.jpg")
    corners = "<xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax>"
    xml = f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
    tool_files.text(tmp_path / "Annotations" / "a.xml", xml)
    tool_files.text(tmp_path / "ImageSets" / "Main" / "train.txt", line)
    assert [one.image_id for one in open_detection_set(tmp_path, split="train").images] == ["a"]


def check_splits(root, train, val, share):
    """Checks the images of each split; `val` None: there is no validation split and a share can be held back."""
    assert ids(open_detection_set(root, split="train")) == list(train)
    if val is None:
        reading = ReadingSettings(val_share=share)
        assert len(open_detection_set(root, split="val", reading=reading)) == 1
    else:
        assert ids(open_detection_set(root, split="val")) == list(val)


@pytest.mark.parametrize(
    ("lists", "train", "val"),
    [
        ({"trainval": "ab", "train": "a", "val": "b"}, "a", "b"),  # VOC2012
        ({"trainval": "ab", "train": "a", "val": "b", "test": "x"}, "a", "b"),  # x has no XML file
        ({"trainval": "ab", "train": "a", "val": "b", "test": ""}, "a", "b"),  # some scripts leave an empty list
        ({"trainval": "ab", "train": "a", "val": "b", "test": "c"}, "ab", "c"),  # VOC2007
        ({"train": "ab"}, "ab", None),
    ],
)
def test_voc_splits_share_no_image(tmp_path, lists, train, val):
    root = tmp_path / "VOC2012"
    write(root, {name: [CAT] for name in "abc"}, **lists)
    tool_files.image("chelsea", root / "JPEGImages" / "x.jpg")
    check_splits(tmp_path, train, val, share=0.5)


@pytest.mark.parametrize(
    ("lists", "train", "val"),
    [
        ({"trainval": "ab", "train": "a", "val": "b"}, "a", "b"),
        ({"trainval": "ab", "train": "a", "val": "b", "test": "c"}, "a", "b"),
        ({"trainval": "ab", "train": "a", "val": "b", "test": ""}, "a", "b"),
        ({"trainval": "ab", "train": "ab", "val": "", "test": "c"}, "ab", "c"),
        ({"trainval": "ab", "train": "a", "test": "c"}, "ab", "c"),
        ({"trainval": "abc", "train": "abc", "val": "", "test": ""}, "abc", None),
    ],
)
def test_splits_in_vocs_layout_share_no_image(tmp_path, lists, train, val):
    write(tmp_path, {name: [CAT] for name in "abc"}, **lists)
    check_splits(tmp_path, train, val, share=0.3)


def test_missing_image_does_not_change_the_datasets_name(tmp_path):
    write(tmp_path / "set", {"a": [CAT]}, train=["a", "gone"])
    assert open_detection_set(tmp_path / "set", split="train").name == "set train"


def test_unrelated_xml_is_not_an_image_without_objects(tmp_path):
    """Cameras write XML beside their images. VOC's XML with a namespace still counts."""
    texts = {"a": [CAT], "b": "<metadata><make>x</make></metadata>"}
    texts["c"] = f'<annotation xmlns="http://example.org">{CAT}</annotation>'
    write(tmp_path, texts, train="abc")
    (tmp_path / "beside").mkdir()
    for name in "abc":
        shutil.copy(tmp_path / "Annotations" / f"{name}.xml", tmp_path / "beside")
        shutil.copy(tmp_path / "JPEGImages" / f"{name}.jpg", tmp_path / "beside")
    for given, split in ((tmp_path, "train"), (tmp_path / "beside", "all")):
        read = open_detection_set(given, split=split)
        assert [(image.image_id, len(image)) for image in read.images] == [("a", 1), ("c", 1)]
        assert read.problems.counts[Problem.BROKEN_ANNOTATION_FILE] == 1


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_utf_8_declared_as_utf_16_is_read(tmp_path, mark):
    """.NET declares UTF-16 in text that may then be saved in another encoding."""
    xml = f'{mark}<?xml version="1.0" encoding="utf-16"?>\n<annotation>{object_xml("größe", (1, 1, 9, 9))}</annotation>'
    write(tmp_path, {"a": xml}, train="a")
    assert [category.name for category in open_detection_set(tmp_path, split="train").categories] == ["größe"]
