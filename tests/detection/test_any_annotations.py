"""Any value in any field of an annotation file is a counted problem or an InputError, never a traceback."""

import base64
import copy
import io
import json
import os
import shutil

import numpy as np
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import LEAST_SIDE
from socodet.detection.datasets.values import LARGEST
from socodet.detection.scores import evaluate
from socodet.errors import InputError
from socodet.images.photographs import photographs

MANY = os.environ.get("SOCODET_EXAMPLES")
"""How many examples to try; if set, they differ from run to run."""
CALM = settings(
    max_examples=int(MANY or 150),
    deadline=None,
    derandomize=MANY is None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FEWER = settings(CALM, max_examples=CALM.max_examples // 3)
ODD = ["1", "-1", "1.5", "a/../b.jpg", "..", "a\nb", "\0", "/", "\ud800", 10**30, "1e999"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(ODD),
    lambda one: st.lists(one, max_size=5) | st.dictionaries(st.sampled_from(["size", "counts", "id", "x"]), one),
    max_leaves=8,
)


def paths(value, path=()):
    """The path of keys and indices to every value nested in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def replaced(content, path, value):
    content = copy.deepcopy(content)
    if not path:
        return value
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


def check(file, **how):
    """The dataset is either refused, or can be read, trained on and scored."""
    try:
        read = open_detection_set(file, **how)
    except InputError:
        return None
    assert all(len(line.splitlines()) == 1 for line in read.problems.lines())
    json.dumps(read.problems.as_json())
    for index, image in enumerate(read.images):
        assert np.isfinite(image.boxes).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= 0).all()
        assert (image.boxes <= [image.width, image.height] * 2).all()
        assert ((image.labels >= 1) & (image.labels <= len(read.categories))).all()
        if image.width * image.height < 10**6:
            target = read.target(index)
            assert len(target["boxes"]) == len(target["labels"]) == (~image.crowd).sum()
            if read.has_masks:
                thin = (target["boxes"][:, 2:] - target["boxes"][:, :2] < 1).any(1)  # may cover no pixel centre
                assert (target["masks"].flatten(1).any(1) | thin).all()
    evaluate(read, {})
    return read


XML = (
    "<annotation><size><width>{}</width><height>{}</height></size><object><name>{}</name><difficult>{}</difficult>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"
)
FIELDS = ("400", "266", "cat", "0", "10", "10", "60", "60")
TEXTS = (
    st.text(max_size=6)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["<x/>", "</name>", "&amp;", "<bndbox/>", "</bndbox></object><object><bndbox>"])
    | VALUES.map(json.dumps)
)


@CALM
@given(st.data())
def test_any_text_in_any_field_of_a_voc_set(tmp_path, data):
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
    fields = list(FIELDS)
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(TEXTS)
    names = ["a", data.draw(st.text(max_size=6))]
    shutil.copy(photographs() / "chelsea.jpg", tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "Annotations" / "a.xml").write_text(XML.format(*fields), "utf-8", errors="surrogatepass")
    lists = tmp_path / "ImageSets" / "Main" / "train.txt"
    lists.write_text("\n".join(names), "utf-8", errors="surrogatepass")
    check(lists)


def yolo_boxes(fields, size=(400, 266)):
    """A line of a YOLO file as YOLO defines it: class and clipped xyxy, or None if it is invalid."""
    try:
        numbers = [float(one) for one in fields]
    except ValueError:
        return None
    if len(numbers) not in (5, 9, 11) or not (np.abs(numbers) < LARGEST).all() or numbers[0] not in (0, 1):
        return None
    values = np.array(numbers[1:]) * np.resize(size, len(numbers) - 1)
    if len(values) == 4:
        low, high = values[:2] - values[2:] / 2, values[:2] + values[2:] / 2
    else:
        low, high = values.reshape(-1, 2).min(0), values.reshape(-1, 2).max(0)
    box = np.float32(np.concatenate([np.maximum(low, 0), np.minimum(high, size)]))
    large = (np.minimum(high - low, box[2:] - box[:2]) >= LEAST_SIDE).all()
    return (int(numbers[0]), box) if large and np.isfinite(box).all() else None


LINE = ["0", "0.5", "0.5", "0.25", "0.25"]
OUTLINE = ["1", "0.1", "0.1", "0.6", "0.1", "0.6", "0.6", "0.1", "0.6"]
WORDS = (
    st.text(max_size=6)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["2", "1.0", "0.75", "-0.1"])
    | VALUES.map(json.dumps)
)


@CALM
@given(st.data())
def test_any_text_in_any_field_of_a_yolo_set(tmp_path, data):
    """A line is read as YOLO defines it, or skipped and counted; the file's other lines are unaffected."""
    fields = list(data.draw(st.sampled_from([LINE, OUTLINE])))
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(WORDS)
    changed = " ".join(fields)
    for part in ("images", "labels"):
        (tmp_path / part).mkdir(exist_ok=True)
    shutil.copy(photographs() / "chelsea.jpg", tmp_path / "images" / "a.jpg")
    usual = [LINE, OUTLINE, ["1", "0.3", "0.3", "0.2", "0.2"]]
    lines = [" ".join(one) for one in usual] + [changed]
    (tmp_path / "labels" / "a.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    read = check(tmp_path, split="train")
    if read is None:
        return
    written = [line.split() for line in "\n".join(lines).replace("\r", "\n").split("\n") if line.strip()]
    labels = [line for line in written if yolo_boxes(line)]
    distinct = {tuple(map(float, line)): line for line in reversed(labels)}  # repeated lines are one object
    expected = [yolo_boxes(line) for line in labels if distinct[tuple(map(float, line))] is line]
    found = [(label - 1, box) for image in read.images for label, box in zip(image.labels, image.boxes, strict=True)]
    if read.images:
        assert [label for label, _ in found] == [label for label, _ in expected]
        assert np.allclose([box for _, box in found], [box for _, box in expected], atol=1e-3)
    assert read.problems or (read.images and len(expected) == len(written))


YAML = {"path": "set", "train": "images", "val": ["images"], "nc": 1, "names": {0: "cat"}, "kpt_shape": [2, 3]}


@CALM
@given(st.data())
def test_any_value_in_any_field_of_a_data_yaml(tmp_path, data):
    content = replaced(YAML, data.draw(st.sampled_from(list(paths(YAML)))), data.draw(VALUES))
    for part in ("images", "labels"):
        (tmp_path / part).mkdir(exist_ok=True)
    shutil.copy(photographs() / "chelsea.jpg", tmp_path / "images" / "a.jpg")
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.25 0.25")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
    check(tmp_path / "data.yaml", split="train")
    check(tmp_path, split="val")


@CALM
@given(st.data())
def test_any_text_in_any_field_of_xml_files_beside_images(tmp_path, data):
    """The changed file is read or counted; classes and boxes of the other files are unaffected."""
    fields = list(FIELDS)
    place = data.draw(st.integers(0, len(fields) - 1))
    fields[place] = data.draw(TEXTS)
    for name in "ab":
        shutil.copy(photographs() / "chelsea.jpg", tmp_path / f"{name}.jpg")
    (tmp_path / "a.xml").write_text(XML.format(*FIELDS), "utf-8")
    (tmp_path / "b.xml").write_text(XML.format(*fields), "utf-8", errors="surrogatepass")
    read = check(tmp_path, split="all")
    if read is None:
        return
    first = next(image for image in read.images if image.image_id == "a")
    assert first.boxes.tolist() == [[10, 10, 60, 60]]
    assert read.categories[first.labels[0] - 1].name == "cat"
    if place >= 4:
        objects = [box for image in read.images if image.image_id == "b" for box in image.boxes.tolist()]
        try:
            corners = [float(one) for one in fields[4:]]
        except ValueError:
            corners = [np.nan] * 4
        box = [max(corners[0], 0), max(corners[1], 0), min(corners[2], 400), min(corners[3], 266)]
        usable = bool((np.abs(corners) < LARGEST).all() and box[2] > box[0] and box[3] > box[1])
        assert len(objects) == usable or (not objects and read.problems)
        assert np.allclose(objects, [box] * len(objects), atol=1e-3)


def png(pixels):
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


SHAPES = [
    {"label": "cat", "points": [[60, 60], [10, 10]], "shape_type": "rectangle", "group_id": None},
    {"label": "dog", "points": [[10, 10], [60, 10], [10, 60]], "group_id": 1},
    {"label": "dog", "points": [[20, 20], [20, 30]], "shape_type": "circle", "group_id": 1},
    {"label": "cat", "points": [[20, 20], [49, 39]], "shape_type": "mask", "mask": png(np.ones((20, 30), np.uint8))},
]
LABELME = {"shapes": SHAPES, "imagePath": "b.jpg", "imageHeight": 266, "imageWidth": 400, "flags": {"dark": False}}


@CALM
@given(st.data())
def test_any_value_in_any_field_of_a_labelme_file(tmp_path, data):
    """The changed file is read or counted; objects of the other file are unaffected."""
    for name in "ab":
        shutil.copy(photographs() / "chelsea.jpg", tmp_path / f"{name}.jpg")
    place = data.draw(st.sampled_from(list(paths(LABELME))))
    (tmp_path / "a.json").write_text(json.dumps(LABELME))
    (tmp_path / "b.json").write_text(json.dumps(replaced(LABELME, place, data.draw(VALUES))))
    read = check(tmp_path, split="all")
    if read is None:
        return
    first = next(image for image in read.images if image.image_id == "a")
    names = [read.categories[label - 1].name for label in first.labels]
    assert names == ["cat", "dog", "cat"]
    assert first.boxes.tolist() == [[10, 10, 60, 60], [10, 10, 60, 60], [20, 20, 50, 40]]
    other = [image for image in read.images if image.image_id == "b"]
    assert read.problems or place[:1] == ("shapes",) or (len(other) == 1 and len(other[0]) == 3)
