"""Tables of boxes, against hand-written values."""

import pytest
from tool_files import image, text

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
CAT, DOG = "a.jpg,400,266,cat,10,20,60,50", "a.jpg,400,266,dog,0,0,400,266"
READ = [("cat", 10, 20, 60, 50), ("dog", 0, 0, 400, 266)]


def boxes(data, index=0):
    found = data.images[index]
    return [(data.categories[k - 1].name, *b) for k, b in zip(found.labels.tolist(), found.boxes.tolist(), strict=True)]


def read(root, split="all", **how):
    return open_detection_set(root, split=split, check_images=True, **how)


def one_table(root, *lines, name="boxes.csv"):
    image("chelsea", root / "a.jpg")
    text(root / name, *lines)
    return root / name


def test_roboflow_export_has_splits_and_classes_of_all(tmp_path):
    for part, line in (("train", CAT), ("valid", DOG)):
        image("chelsea", tmp_path / part / "a.jpg")
        text(tmp_path / part / "_annotations.csv", HEADER, line)
    train, val = read(tmp_path, "train"), read(tmp_path, "val")
    assert boxes(train) == READ[:1]
    assert boxes(val) == READ[1:]
    assert [category.name for category in train.categories] == ["cat", "dog"] == [one.name for one in val.categories]
    assert (train.name, train.images[0].width, train.has_masks) == (f"{tmp_path.name} train", 400, False)
    assert not train.problems
    for split in ("test", None):
        with pytest.raises(InputError, match=r"'?train'?, '?val'?.*--split"):
            read(tmp_path, split)


@pytest.mark.parametrize("place", ["images", "data", "", "annotations"])
def test_tables_of_tensorflows_tutorials(tmp_path, place):
    for part, line in (("train", CAT), ("test", DOG)):
        image("chelsea", tmp_path / "images" / part / "a.jpg")
        text(tmp_path / place / f"{part}_labels.csv", HEADER, line)
    assert boxes(read(tmp_path, "train")) == READ[:1]
    image("chelsea", tmp_path / place / "beside.jpg")  # the table's images are elsewhere
    test = read(tmp_path, "test")
    assert (test.images[0].file.parent.name, test.problems.counts) == ("test", {})


@pytest.mark.parametrize(
    "lines",
    [
        (HEADER, CAT, DOG),
        ("\ufeff" + HEADER, CAT, DOG),
        (HEADER.replace(",", ";"), CAT.replace(",", ";"), DOG.replace(",", ";")),
        ("", "Image_Name, X_Min, Y_Min, X_Max, Y_Max, Class_Name", "a.jpg, 10,20,60,50,cat", '"a.jpg",0,0,400,266,dog'),
        ("\tfilename\tclass\txmin\tymin\txmax\tymax", "0\ta.jpg\tcat\t10\t20\t60\t50", "1\ta.jpg\tdog\t0\t0\t400\t266"),
        ("a.jpg,10,20,60,50,cat", "a.jpg,0,0,400,266,dog"),
        ("a.jpg,10,20,60,50,cat,400,266", "a.jpg,0,0,400,266,dog,400,266"),
        (HEADER + ",w,h", CAT + ",50,30", DOG + ",400,266"),
    ],
    ids=["tensorflow", "byte order mark", "semicolons", "other names", "tabs", "keras-retinanet", "sku-110k", "sides"],
)  # fmt: skip
def test_forms_of_tables(tmp_path, lines):
    file = one_table(tmp_path, *lines)
    for given in (tmp_path, file):
        data = read(given)
        assert boxes(data) == READ
        assert not data.problems


@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_line_ends_and_encodings(tmp_path, line_end, encoding):
    file = one_table(tmp_path)
    file.write_bytes(line_end.join([HEADER, CAT, DOG, ""]).encode(encoding))
    assert boxes(read(tmp_path)) == READ


def test_image_without_objects_and_unlisted_image(tmp_path):
    for name in ("b", "c"):
        image("chelsea", tmp_path / f"{name}.jpg")
    lines = {"a.jpg": "a.jpg,10,20,60,50,cat", "b.jpg": "b.jpg,,,,,"}
    for order in ("a.jpg", "b.jpg"), ("b.jpg", "a.jpg"):
        one_table(tmp_path, *(lines[name] for name in order))
        data = read(tmp_path)
        assert [(image.file.name, len(image), image.unusable) for image in data.images] == [
            (name, int(name == "a.jpg"), False) for name in order
        ]
        assert data.problems.counts == {Problem.UNLISTED_IMAGE: 1}
        assert data.problems.first[Problem.UNLISTED_IMAGE].endswith("c.jpg")


@pytest.mark.parametrize("empty", ["", "NaN", "null"])
def test_line_of_empty_cells_is_an_image_without_objects(tmp_path, empty):
    image("chelsea", tmp_path / "b.jpg")
    one_table(tmp_path, HEADER, CAT, ",".join(["b.jpg", "400", "266", *[empty] * 5]))
    data = read(tmp_path)
    assert [(len(image), image.unusable) for image in data.images] == [(1, False), (0, False)]
    assert [category.name for category in data.categories] == ["cat"]


def test_image_of_another_split_is_not_unlisted(tmp_path):
    for name in ("b", "c"):
        image("chelsea", tmp_path / f"{name}.jpg")
    one_table(tmp_path, HEADER, CAT, name="train.csv")
    text(tmp_path / "test.csv", HEADER, DOG.replace("a.jpg", "b.jpg"))
    for split, first in (("train", "a.jpg"), ("test", "b.jpg")):
        data = read(tmp_path, split)
        assert [one.file.name for one in data.images] == [first]
        assert data.problems.counts == {Problem.UNLISTED_IMAGE: 1}


def test_faulty_lines_are_counted(tmp_path):
    lines = [CAT, "a.jpg,400,266,,1,1,9,9", "a.jpg,400,266,cat,1,x,9,9", "a.jpg,400,266,cat,1", ",400,266,cat,1,1,9,9"]
    one_table(tmp_path, HEADER, *lines, "gone.jpg,400,266,cat,1,1,9,9")
    data = read(tmp_path)
    assert boxes(data) == READ[:1]
    assert data.problems.counts == {
        Problem.UNKNOWN_CATEGORY: 1,
        Problem.BROKEN_BOX: 2,
        Problem.BROKEN_IMAGE_ENTRY: 1,
        Problem.UNKNOWN_IMAGE: 1,
        Problem.MISSING_IMAGE: 1,
    }
    assert "line 3 " in data.problems.first[Problem.UNKNOWN_CATEGORY]


def test_image_of_another_size_is_left_out(tmp_path):
    image("coffee", tmp_path / "b.jpg")
    one_table(tmp_path, HEADER, CAT, "b.jpg,800,534,cat,1,1,9,9")  # it has 400 by 267 pixels
    data = read(tmp_path)
    assert [one.file.name for one in data.images] == ["a.jpg"]
    assert data.problems.counts == {Problem.BROKEN_IMAGE: 1}


def test_images_elsewhere(tmp_path):
    image("chelsea", tmp_path / "photos" / "deep" / "a.jpg")
    text(tmp_path / "set" / "boxes.csv", HEADER, CAT)
    with pytest.raises(InputError, match=r"none of its images, such as.*--images"):
        read(tmp_path / "set")
    for given in (tmp_path / "set", tmp_path / "set" / "boxes.csv"):
        assert boxes(read(given, images=tmp_path / "photos" / "deep")) == READ[:1]


def test_boxes_in_another_form_are_refused_or_read_as_asked(tmp_path):
    shares = [f"a.jpg,{x},0.2,{x + 0.1},0.5,cat" for x in (0.1, 0.2, 0.3, 0.4)]
    one_table(tmp_path, *shares)
    with pytest.raises(InputError, match=r"fractions.*--box-form"):
        read(tmp_path)
    asked = read(tmp_path, reading=ReadingSettings(box_form="xyxy-shares"))
    assert asked.images[0].boxes[0].tolist() == pytest.approx([40, 53.2, 80, 133])
    for form, corners in {"xywh": [40, 50, 60, 80], "cxcywh": [30, 35, 50, 65]}.items():
        text(tmp_path / "boxes.csv", "image,label,x,y,w,h", "a.jpg,cat,40,50,20,30")
        with pytest.raises(InputError, match=f"--box-form.* {form}"):
            read(tmp_path)
        asked = read(tmp_path, reading=ReadingSettings(box_form=form))
        assert asked.images[0].boxes.tolist() == [corners]
    sizes = [f"a.jpg,{x},200,50,60,cat" for x in (300, 310, 320, 330)]
    text(tmp_path / "boxes.csv", *sizes)
    with pytest.raises(InputError, match="x, y, width, height"):
        read(tmp_path)


def test_tables_that_cannot_be_told_apart_are_named(tmp_path):
    one_table(tmp_path, HEADER, CAT, name="train_a.csv")
    one_table(tmp_path, HEADER, CAT, name="train_b.csv")
    with pytest.raises(InputError, match=r"train_a\.csv and train_b\.csv: give one of them"):
        read(tmp_path, "train")


def test_table_of_all_beside_those_of_the_splits_is_not_read(tmp_path, capsys):
    one_table(tmp_path, HEADER, CAT, name="train_labels.csv")
    one_table(tmp_path, HEADER, CAT, DOG, name="labels.csv")
    assert boxes(read(tmp_path, "train")) == READ[:1]
    assert "labels.csv: is not read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ((HEADER,), "no line of a box"),
        (("a,b,c", "1,2,3"), "not a table of boxes.*filename, class, xmin"),
        (("a.jpg,10,20,60,50,cat,400",), "not a table of boxes.*filename, class, xmin"),
        ((HEADER, "a.jpg,400,266,,1,1,9,9"), "no line of a box and its class"),
        (("",), "no line of a box"),
        (("\0",), "not a text file"),
        ((HEADER, f'a.jpg,400,266,"{"x" * 200_000}",1,1,9,9'), "line 2.*correct it"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, lines, what):
    with pytest.raises(InputError, match=what) as caught:
        read(one_table(tmp_path, *lines))
    assert "\n" not in str(caught.value)


def test_xml_files_come_first(tmp_path):
    one_table(tmp_path, HEADER, CAT, DOG)
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    text(tmp_path / "a.xml", f"<annotation><object><name>cup</name>{box}</object></annotation>")
    assert boxes(read(tmp_path)) == [("cup", 1, 2, 30, 40)]


def test_convert_writes_the_same_boxes(tmp_path):
    one_table(tmp_path, HEADER, CAT, DOG)
    main(["convert", str(tmp_path), "--output", str(tmp_path / "coco" / "all.json"), "--quiet"])
    assert boxes(read(tmp_path / "coco" / "all.json")) == READ


@pytest.mark.parametrize("header", [("filename;class;xmin;ymin;xmax;ymax",), ()])
def test_decimal_commas_between_semicolons(tmp_path, header):
    """As spreadsheet programs write numbers in many countries; a comma in a class stays."""
    name, *box = "cat, 1,5" if header else "cat", "10,5", "20,25", "60", "50,75"
    line = ";".join(("a.jpg", name, *box) if header else ("a.jpg", *box, name))
    data = read(one_table(tmp_path, *header, line))
    assert boxes(data) == [(name, 10.5, 20.25, 60, 50.75)]
    assert not data.problems


def test_commas_in_numbers_between_commas_are_no_decimal_commas(tmp_path):
    """1,234 may be a thousand."""
    data = read(
        one_table(tmp_path, "filename,class,xmin,ymin,xmax,ymax", 'a.jpg,cat,"1,234",0,50,50', "a.jpg,cat,1,2,3,4")
    )
    assert boxes(data) == [("cat", 1, 2, 3, 4)]
    assert data.problems.counts == {Problem.BROKEN_BOX: 1}
