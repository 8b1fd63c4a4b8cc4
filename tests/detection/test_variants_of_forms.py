"""Files in slightly unusual forms: read as intended, or refused in one line that says where."""

import json

import numpy as np
import pytest
from tool_files import image, text

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.errors import InputError
from socodet.images.source import open_images

LINE = "0 0.5 0.5 0.25 0.25"
BOX = [150, 99.75, 250, 166.25]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:662788\nsize 87"
"""The box of that line in an image of 400 by 266."""
OBJECT = "<object><name>{}</name>{}</object>"
BNDBOX = "<bndbox><xmin>{}</xmin><ymin>20</ymin><xmax>60</xmax><ymax>50</ymax></bndbox>"
PLAIN = f"<annotation>{OBJECT.format('cat', BNDBOX.format(10))}</annotation>"


def coco(root, annotations=None, file="train.json", name="a.jpg", written=None):
    """A COCO file of the image `name`, which it calls `written`."""
    image("chelsea", root / name)
    usual = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 50, 30]}]
    content = {
        "images": [{"id": 1, "file_name": written or name, "width": 400, "height": 266}],
        "annotations": usual if annotations is None else annotations,
        "categories": [{"id": 1, "name": "cat"}],
    }
    text(root / file, json.dumps(content))
    return root / file


def yolo(root, *lines, end="\n"):
    for part in ("train", "val"):
        image("chelsea", root / "images" / part / "a.jpg")
        text(root / "labels" / part / "a.txt")
        (root / "labels" / part / "a.txt").write_bytes(end.join([*lines, ""]).encode())
    return root


def boxes(data):
    return [[round(float(side), 2) for side in box] for one in data.images for box in one.boxes]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_endings(tmp_path, end):
    """Extra empty lines would renumber the classes; messages name label lines by number."""
    yolo(tmp_path, LINE, "1 0.5 0.5 0.25 0.25", "x", end=end)
    (tmp_path / "classes.txt").write_bytes(end.join(["cat", "dog", "", ""]).encode())
    data = open_detection_set(tmp_path, split="train")
    assert [category.name for category in data.categories] == ["cat", "dog"]
    assert boxes(data) == [BOX, BOX]
    assert "line 3" in data.problems.first[Problem.BROKEN_LINE]


@pytest.mark.parametrize(
    "line",
    ["0,0.5,0.5,0.25,0.25", "cat 0.5 0.5 0.25 0.25", "0 0.5 0.5 0.25 0.25 0.9", "Car 0 0 1 9 9 60 60 1 1 3 1 2 5 1"],
)
def test_malformed_lines_are_named(tmp_path, line):
    with pytest.raises(InputError, match=r"hardly any line is a label.*train/a.txt line 1: (0|cat|Car)"):
        open_detection_set(yolo(tmp_path, line), split="train")


@pytest.mark.parametrize("values", [2, 3])
def test_boxes_with_keypoints_are_not_read_as_outlines(tmp_path, values):
    """Unless a data.yaml declares them; outlines that all have the same number of points stay outlines."""
    random = np.random.default_rng(0)
    poses, outlines = [], []
    for _ in range(20):
        x, y = random.uniform(0.2, 0.8, 2)
        w, h = random.uniform(0.05, 0.2, 2)
        points = np.c_[random.uniform(x - w / 2, x + w / 2, 6), random.uniform(y - h / 2, y + h / 2, 6), np.full(6, 0)]
        poses.append([0, x, y, w, h, *points[:, :values].reshape(-1)])
        angles = np.linspace(0, 2 * np.pi, 9 if values == 3 else 6, endpoint=False)
        ellipse = np.c_[x + w / 2 * np.cos(angles), y + h / 2 * np.sin(angles)]
        outlines.append([0, *ellipse.reshape(-1)])
    lines = [[" ".join(f"{one:.6f}" for one in line) for line in kind] for kind in (poses, outlines)]
    yolo(tmp_path / "poses", *lines[0])
    with pytest.raises(InputError, match=rf"kpt_shape: .6, {values}."):
        open_detection_set(tmp_path / "poses", split="train")
    shape = ["train: images/train", "val: images/val", "names: [cat]", f"kpt_shape: [6, {values}]"]
    text(tmp_path / "poses" / "data.yaml", *shape)
    read = open_detection_set(tmp_path / "poses", split="train").images[0].boxes
    centre = np.array([[x * 400, y * 266] for _, x, y, *_ in poses])
    assert np.allclose((read[:, :2] + read[:, 2:]) / 2, centre, atol=0.01)
    assert open_detection_set(yolo(tmp_path / "outlines", *lines[1]), split="train").has_masks


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("images/my cat.jpg", "images/my%20cat.jpg"),
        ("a.jpg", "https://bucket.example/data/a.jpg?signature=b/c"),
        ("images/ö.jpg", "http://example.org:8080/up/images/%C3%B6.jpg"),
        ("50%20.jpg", "50%20.jpg"),
    ],
)
def test_image_names_may_be_urls(tmp_path, name, written):
    file = coco(tmp_path, name=name, written=written)
    data = open_detection_set(file)
    assert (data.images[0].file.name, boxes(data)) == (name.split("/")[-1], [[10, 20, 60, 50]])
    assert (Problem.NAME_FROM_ELSEWHERE in data.problems.counts) == (name != written)
    assert len(open_images(file)) == 1


def test_image_names_of_label_studios_local_storage(tmp_path):
    """The name is in a URL's query, with or without a host and folders; `%20` is a space."""
    for name in ("my cat", "b", "x/b"):
        image("chelsea", tmp_path / "images" / f"{name}.jpg")
    for before in ("/data/local-files/?d=", "http://localhost:8080/data/local-files/?d=images/"):
        coco(tmp_path, name="images/b.jpg")
        content = json.loads((tmp_path / "train.json").read_text())
        names = [f"{before}{name}.jpg" for name in ("b", "my%20cat", "x/b")]
        content["images"] = [content["images"][0] | {"id": n, "file_name": name} for n, name in enumerate(names)]
        text(tmp_path / "train.json", json.dumps(content))
        data = open_detection_set(tmp_path / "train.json")
        read = [one.file.relative_to(tmp_path / "images").as_posix() for one in data.images]
        assert read == ["b.jpg", "my cat.jpg", "x/b.jpg"]
        assert Problem.MISSING_IMAGE not in data.problems.counts
        assert [open_images(tmp_path / "train.json").path(place) for place in range(3)] == [
            one.file for one in data.images
        ]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", ["{}.jpg", "C:\\data\\{}.jpg"])
def test_dataset_with_most_images_missing(tmp_path, name, given, capsys):
    """For example a part of a large dataset that was copied."""
    file = coco(tmp_path, name="images/99.jpg")
    content = json.loads(file.read_text())
    content["images"] = [content["images"][0] | {"id": n, "file_name": name.format(n)} for n in range(1, 101)]
    text(file, json.dumps(content))
    data = open_detection_set(file, images=tmp_path / "images" if given else None)
    assert [one.file.name for one in data.images] == ["99.jpg"]
    assert data.problems.counts[Problem.MISSING_IMAGE] == 99
    assert given or f"those in {tmp_path / 'images'} are read" in capsys.readouterr().err


@pytest.mark.parametrize("other", ['{"0": "cat"}', '["cat"]', ' {"a.jpg1": {"regions": []}}'])
def test_unrelated_json_files_are_skipped(tmp_path, other):
    """Unrelated JSON files with a COCO file's name are skipped, damaged ones refused."""
    for name in ("labels.json", "annotations.json", "train.json"):
        yolo(tmp_path, LINE)
        text(tmp_path / name, other)
        assert boxes(open_detection_set(tmp_path, split="train")) == [BOX]
        text(tmp_path / name, '{"images": [')
        with pytest.raises(InputError, match=f"{name}: is not valid JSON"):
            open_detection_set(tmp_path, split="train" if name == "train.json" else "all")
        (tmp_path / name).unlink()


def test_folders_beside_the_splits_are_reported(tmp_path, capsys):
    yolo(tmp_path, LINE)
    open_detection_set(tmp_path, split="train")
    assert "read, but not" not in capsys.readouterr().err
    image("chelsea", tmp_path / "images" / "more" / "b.jpg")
    image("chelsea", tmp_path / "images" / "c.jpg")
    assert len(open_detection_set(tmp_path, split="train")) == 1
    assert "train and val are read, but not more and 1 more" in capsys.readouterr().err


def test_class_names_that_differ_only_in_spelling_are_reported(tmp_path, capsys):
    for number, names in enumerate((["cat", "dog"], ["hot dog", "Hot_Dog"], ["cat", "Cat "])):
        root = yolo(tmp_path / str(number), LINE)
        text(root / "classes.txt", *names)
        open_detection_set(root, split="train")
        assert ("read as two classes" in capsys.readouterr().err) == (number > 0)


def test_class_names_in_files_of_other_names(tmp_path, capsys):
    """Darknet's has any name; labelImg's classes.txt among the labels does not override data.yaml."""
    root = yolo(tmp_path, LINE)
    text(root / "mine.names", "cat")
    assert [one.name for one in open_detection_set(root, split="train").categories] == ["cat"]
    text(root / "data.yaml", "train: images/train", "names: [cat, dog]")
    text(root / "labels" / "train" / "classes.txt", "cat", "dog")
    open_detection_set(root, split="train")
    assert "other classes" not in capsys.readouterr().err
    text(root / "labels" / "train" / "classes.txt", "dog", "cat")
    assert [one.name for one in open_detection_set(root, split="train").categories] == ["cat", "dog"]
    assert "classes.txt: names other classes than" in capsys.readouterr().err


def test_macos_metadata_files_are_ignored(tmp_path):
    for end in (".jpg", ".txt"):
        text(yolo(tmp_path / "yolo", LINE) / "images" / "train" / f"._a{end}", "\0")
    text(tmp_path / "yolo" / "labels" / "train" / "._a.txt", "\0")
    image("chelsea", tmp_path / "xml" / "a.jpg")
    text(
        tmp_path / "xml" / "a.xml",
        PLAIN.replace("<object>", "<size><width>400</width><height>266</height></size><object>"),
    )
    text(tmp_path / "xml" / "._a.xml", "\0")
    for name, part in (("yolo", "train"), ("xml", "all")):
        data = open_detection_set(tmp_path / name, split=part)
        assert (len(data), data.problems.counts) == (1, {})


def test_url_names_cannot_lead_out_of_the_dataset(tmp_path):
    image("chelsea", tmp_path / "secret" / "a.jpg")
    image("chelsea", tmp_path / "one" / "two" / "set" / "b.jpg")
    coco(tmp_path / "one" / "two" / "set", name="b.jpg", written="%2e%2e/%2e%2e/%2e%2e/secret/a.jpg")
    with pytest.raises(InputError):
        open_detection_set(tmp_path / "one" / "two" / "set" / "train.json")


def test_fiftyones_folders_are_read(tmp_path):
    coco(tmp_path / "whole", file="labels.json", name="data/a.jpg")
    for part in ("train", "validation"):
        coco(tmp_path / "parts", file=f"{part}/labels.json", name=f"{part}/data/a.jpg")
    for root, part in (("whole", "all"), ("parts", "train"), ("parts", "val")):
        data = open_detection_set(tmp_path / root, split=part)
        assert (boxes(data), data.problems.counts) == ([[10, 20, 60, 50]], {})


@pytest.mark.parametrize(
    "changed",
    [{"image_id": "a.jpg"}, {"category_id": "cat"}, {"bbox": {"x": 1, "y": 2, "w": 3, "h": 4}}, {"bbox": None}],
)
def test_file_with_only_unusable_annotations_is_refused(tmp_path, changed):
    usual = {"image_id": 1, "category_id": 1, "bbox": [10, 20, 50, 30]}
    file = coco(tmp_path, [{"id": number} | usual | changed for number in range(3)])
    with pytest.raises(InputError, match=r"train.json: none of its .*left out \(first"):
        open_detection_set(file)
    several = [{"id": number} | usual | changed for number in range(3)] + [{"id": 9} | usual]
    assert len(open_detection_set(coco(tmp_path, several)).images[0]) == 1


@pytest.mark.parametrize("outline", ["0.5 0.{} 0.2 0.2", "0.2 0.{} 0.7 0.2 0.7 0.9 0.2 0.9"])
@pytest.mark.parametrize("end", ["0.91 {}", "0.91 1"])
def test_tracked_detections_are_not_read_as_outlines(tmp_path, outline, end):
    """Ultralytics appends a confidence and a track id to each line."""
    lines = [f"0 {outline.format(number)} {end.format(number)}" for number in range(2, 8)]
    if end == "0.91 1" and "0.9" in outline:  # may be outlines whose last point is on the lower border
        assert len(open_detection_set(yolo(tmp_path, *lines), split="train").images[0]) == 6
        return
    with pytest.raises(InputError, match="a track id"):
        open_detection_set(yolo(tmp_path, *lines), split="train")
    triangles = [f"0 0.5 0.{number} 0.2 0.2 0.7 0.{number}5" for number in range(2, 8)]
    assert open_detection_set(yolo(tmp_path, *triangles, LINE), split="train").has_masks


def test_class_numbers_off_by_one_are_reported(tmp_path, capsys):
    """Numbers that are all off by one give every object the next class."""
    names = ["train: images/train", "val: images/val", "names: [cat, dog, cow]"]
    for number, numbers in enumerate(("123", "012", "12", "0123", "02")):
        root = yolo(tmp_path / numbers, *(f"{one} 0.5 0.5 0.25 0.25" for one in numbers))
        text(root / "data.yaml", *names)
        open_detection_set(root, split="train")
        assert ("class 3, which" in capsys.readouterr().err) == (number == 0)
    for first in (0, 1):
        notes = [{"image_id": 1, "category_id": first + one, "bbox": [10, 20, 50, 30]} for one in range(3)]
        file = coco(tmp_path / f"coco {first}", notes)
        content = json.loads(file.read_text())
        content["categories"] = [{"id": one, "name": f"class {one}"} for one in (1, 2, 3)]
        text(file, json.dumps(content))
        open_detection_set(file)
        assert ("class 0, which" in capsys.readouterr().err) == (first == 0)


def test_label_file_belongs_to_one_image(tmp_path):
    """Likewise an XML file: it describes the photograph, not a mask or copy of that name in another format."""
    yolo(tmp_path, LINE)
    (tmp_path / "images" / "train" / "a.png").write_bytes((tmp_path / "images" / "train" / "a.jpg").read_bytes())
    data = open_detection_set(tmp_path, split="train")
    assert [one.file.name for one in data.images] == ["a.jpg"]
    assert data.problems.counts == {Problem.NO_ANNOTATION_FILE: 1}


@pytest.mark.parametrize(("times", "reported"), [(1, False), (2, True)])
def test_repeated_objects_are_reported(tmp_path, times, reported, capsys):
    """A conversion that appends and was run twice repeats them; one box may have two classes."""
    note = {"image_id": 1, "category_id": 1}
    file = coco(tmp_path / "coco", [note | {"bbox": [n, 20, 50, 30]} for n in range(4)] * times)
    objects = [OBJECT.format(name, BNDBOX.format(n)) for n in range(4) for name in ("cat", "dog")] * times
    image("chelsea", tmp_path / "voc" / "a.jpg")
    size = "<size><width>400</width><height>266</height></size>"
    text(tmp_path / "voc" / "a.xml", f"<annotation>{size}{''.join(objects)}</annotation>")
    for given, count in ((file, 4), (tmp_path / "voc", 8)):
        assert len(open_detection_set(given, split="all").images[0]) == count * times
        assert ("as if they were written twice" in capsys.readouterr().err) == reported


def test_outlines_in_xml_files_of_web_labelme(tmp_path):
    """CVAT writes them too, as "LabelMe 3.0"."""
    outline = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((10, 35), (35.5, 20), (60, 50)))
    template = "<object><name>cat</name><deleted>{}</deleted><polygon>" + outline + "</polygon></object>"
    image("chelsea", tmp_path / "default" / "a.jpg")
    size = "<imagesize><nrows>266</nrows><ncols>400</ncols></imagesize>"
    text(tmp_path / "default" / "a.xml", f"<annotation>{template.format(0)}{template.format(1)}{size}</annotation>")
    data = open_detection_set(tmp_path, split="all")
    assert boxes(data) == [[10, 20, 60, 50]]
    counts = {Problem.OUTLINE_AS_BOX: 1, Problem.IGNORED: 1, Problem.SIZE_FROM_FILE: 1}
    assert data.problems.counts == counts


def test_rotated_and_second_boxes_in_xml_files(tmp_path):
    """A dataset of roLabelImg's rotated boxes only is refused; an object's second box is counted."""
    rotated = "<robndbox><cx>50</cx><cy>50</cy><w>10</w><h>20</h><angle>0.5</angle></robndbox>"
    image("chelsea", tmp_path / "a.jpg")
    text(tmp_path / "a.xml", f"<annotation>{OBJECT.format('cat', rotated) * 3}</annotation>")
    with pytest.raises(InputError, match="none of its 3 objects can be used"):
        open_detection_set(tmp_path, split="all")
    two = OBJECT.format("cat", BNDBOX.format(10) + BNDBOX.format(30))
    text(tmp_path / "a.xml", f"<annotation><size><width>400</width><height>266</height></size>{two}</annotation>")
    data = open_detection_set(tmp_path, split="all")
    assert (boxes(data), data.problems.counts) == ([[10, 20, 60, 50]], {Problem.FURTHER_BOX: 1})


@pytest.mark.parametrize(
    ("files", "part", "found"),
    [
        ("JPEGImages/a.jpg Annotations/a.xml test/b.jpg", "all", ["JPEGImages/a"]),
        ("a.jpg a.xml test/b.jpg", "all", ["a"]),
        ("images/a.jpg labels/a.txt test/b.jpg", "all", ["images/a.jpg"]),
        ("images/train2017/a.jpg labels/train2017/a.txt images/val2017/a.jpg", "train", ["images/train2017/a.jpg"]),
        ("img/a.jpg ann/a.xml", "all", ["img/a"]),
    ],
)
def test_images_are_found_for_their_annotations(tmp_path, files, part, found):
    """Also beside a folder of unannotated images, and in splits with a year in their names."""
    for file in files.split():
        if file.endswith(".jpg"):
            image("chelsea", tmp_path / file)
        else:
            text(tmp_path / file, PLAIN if file.endswith(".xml") else LINE)
    assert [one.image_id for one in open_detection_set(tmp_path, split=part).images] == found


def test_boxes_rotated_in_cvat(tmp_path):
    """CVAT stores the unrotated box, and as an attribute the clockwise angle about its centre."""
    angles = [0, 90, 45, 180, "30.0", None, -30]
    corners = np.array([[-20, -10], [20, -10], [20, 10], [-20, 10]])  # of a box of 40 by 20 centred on (200, 100)
    expected = []
    for angle in (0, 90, 45, 180, 30, 0, -30):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turned = corners @ [[c, s], [-s, c]] + [200, 100]
        expected.append([*turned.min(0), *turned.max(0)])
    note = {"image_id": 1, "category_id": 1, "bbox": [180, 90, 40, 20], "segmentation": []}
    notes = [note | {"id": n, "attributes": {"occluded": False, "rotation": one}} for n, one in enumerate(angles)]
    data = open_detection_set(coco(tmp_path / "coco", notes))
    assert np.allclose(data.images[0].boxes, expected, atol=1e-3)
    assert data.problems.counts == {Problem.ROTATED: 4}
    outline = [{**notes[2], "segmentation": [[180, 90, 220, 90, 220, 110]]}]  # its box already encloses it
    data = open_detection_set(coco(tmp_path / "outline", outline))
    assert (boxes(data), data.problems.counts) == ([[180, 90, 220, 110]], {})
    box = "<bndbox><xmin>180</xmin><ymin>90</ymin><xmax>220</xmax><ymax>110</ymax></bndbox><attributes><attribute>"
    objects = [
        OBJECT.format("cat", f"{box}<name>rotation</name><value>{a}</value></attribute></attributes>") for a in angles
    ]
    image("chelsea", tmp_path / "voc" / "a.jpg")
    size = "<size><width>400</width><height>266</height></size>"
    text(tmp_path / "voc" / "a.xml", f"<annotation>{size}{''.join(objects)}</annotation>")
    data = open_detection_set(tmp_path / "voc", split="all")
    assert np.allclose(data.images[0].boxes, expected, atol=1e-3)
    assert data.problems.counts == {Problem.ROTATED: 4}


@pytest.mark.parametrize("file", ["val.txt", "imagesets/main/val.txt", "ImageSets/Segmentation/val.txt"])
def test_ignored_lists_are_named(tmp_path, file, capsys):
    for name in "ab":
        image("chelsea", tmp_path / "images" / f"{name}.jpg")
        text(tmp_path / "annotations" / f"{name}.xml", PLAIN)
    text(tmp_path / file, "b")
    assert len(open_detection_set(tmp_path, split="train")) == 2
    assert f"{file}: is ignored" in capsys.readouterr().err


def test_empty_lists_are_not_named(tmp_path, capsys):
    """Scripts that split a dataset leave them behind; they hold nothing that could be ignored."""
    image("chelsea", tmp_path / "JPEGImages" / "a.jpg")
    text(tmp_path / "Annotations" / "a.xml", PLAIN)
    for name in ("train", "val"):
        text(tmp_path / "ImageSets" / "Main" / f"{name}.txt")
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").write_bytes(b"")
    assert len(open_detection_set(tmp_path, split="train")) == 1
    assert "ignored" not in capsys.readouterr().err


def test_xml_file_may_name_its_image_as_in_a_url(tmp_path):
    for name in ("my cat", "b"):
        image("chelsea", tmp_path / "images" / f"{name}.jpg")
    text(tmp_path / "annotations" / "b.xml", PLAIN)
    named = PLAIN.replace("<annotation>", "<annotation><filename>my%20cat.jpg</filename>")
    text(tmp_path / "annotations" / "1.xml", named)
    assert {one.image_id for one in open_detection_set(tmp_path, split="all").images} == {"images/b", "images/my cat"}


@pytest.mark.parametrize(
    ("file", "begins", "what"),
    [
        ("img/ann/a.jpg.json", '{"objects": [{"classTitle": "cat"}]}', "Supervisely"),
        ("via_region_data.json", '{"a.jpg123": {"regions": [{"shape_attributes": {}}]}}', "VGG"),
        ("task.json", '{"annotations": [{"result": [{"from_name": "label"}]}]}', "Label Studio"),
        ("old/tasks.json", '[{"image": "a.jpg", "label": [{"rectanglelabels": ["cat"]}]}]', "Label Studio"),
        ("old/annotations.xml", "<annotations>\n<version>1.1</version>", "CVAT"),
        ("a.json", '[{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}]', "CreateML"),
        ("label_2/a.txt", "Car 0.00 0 -1.57 9.00 9.00 60.00 60.00 1.5 1.6 3.7 -16 2 58 -1.5\n", "KITTI"),
        ("labelTxt/a.txt", "gsd:0.1\n10.0 10 60 12 58 60 9 58 large-vehicle 0\n", "DOTA"),
        ("_annotations.txt", "a.jpg 1,2,30,40,0 5,6,70,80,1\n", "list of boxes, _annotations.txt"),
        ("label_2/a.txt", POINTER, "git lfs pull"),
        ("a.xml", POINTER, "git lfs pull"),
        ("_annotations.csv", POINTER, "git lfs pull"),
        ("via_export_csv.csv", "filename,file_size,region_shape_attributes\n", "VGG Image Annotator.* as JSON"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "objects": {"bbox": []}}', "save_to_disk"),
        ("train.csv", "image,x,y,w,h\n", "table, train.csv, without a column for class:"),
        ("train.csv", "image,class,left,ymin,right,ymax\n", "without a column for xmin and xmax:"),
        ("set.json", "{}", "set.json: give it itself"),
    ],
)
def test_unsupported_formats_are_named(tmp_path, file, begins, what):
    image("chelsea", tmp_path / "img" / "a.jpg")
    text(tmp_path / file, begins)
    with pytest.raises(InputError, match=f"in no known layout.*{what}"):
        open_detection_set(tmp_path, split="train")


def test_pointers_of_git_lfs_are_named(tmp_path):
    """They lie in place of files that Git LFS has not downloaded."""
    image("chelsea", tmp_path / "set" / "a.jpg")
    for file in ("train.json", "_annotations.csv"):
        text(tmp_path / "set" / file, POINTER)
        with pytest.raises(InputError, match=f"{file}: is a pointer of Git LFS.*git lfs pull"):
            open_detection_set(tmp_path / "set" / file)
    text(tmp_path / "yolo" / "a.jpg", POINTER)
    text(tmp_path / "yolo" / "a.txt", "0 .5 .5 .2 .2")
    with pytest.raises(InputError, match=r"a\.jpg: a pointer of Git LFS; git lfs pull"):
        open_detection_set(tmp_path / "yolo", split="all")


def test_images_folder_given_instead_of_the_dataset_is_refused(tmp_path):
    image("chelsea", tmp_path / "set" / "images" / "a.jpg")
    text(tmp_path / "set" / "train.json", '{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(InputError, match=f"in no known layout.* give {tmp_path / 'set'};"):
        open_detection_set(tmp_path / "set" / "images", split="train")
    (tmp_path / "set" / "train.json").unlink()
    for file, begins in (
        ("annotations.xml", "<annotations><version>1.1</version></annotations>"),
        ("project-1.json", '[{"id": 1, "annotations": [{"result": [{"from_name": "label"}]}]}]'),
        ("boxes.csv", "filename,class,xmin,ymin,xmax,ymax"),
    ):
        text(tmp_path / "set" / file, begins)
        with pytest.raises(InputError, match=f"in no known layout.* give {tmp_path / 'set'};"):
            open_detection_set(tmp_path / "set" / "images", split="train")
        (tmp_path / "set" / file).unlink()
    with pytest.raises(InputError) as caught:
        open_detection_set(tmp_path / "set" / "images", split="train")
    assert f"give {tmp_path / 'set'};" not in str(caught.value)
