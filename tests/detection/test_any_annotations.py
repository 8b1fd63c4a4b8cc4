"""Any value in any field of an annotation file: a problem that is counted or an InputError, never a traceback."""

import copy
import json
import shutil

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socodet.detection.datasets import open_detection_set
from socodet.detection.scores import evaluate
from socodet.errors import InputError
from socodet.images.photographs import photographs

CALM = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MASK = [[10, 10, 60, 10, 60, 60, 10, 60]]
COCO = {
    "images": [{"id": 1, "file_name": "chelsea.jpg", "width": 400, "height": 266}],
    "annotations": [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 10, 50, 50],
            "area": 2500,
            "iscrowd": 0,
            "segmentation": mask,
        }
        for number, mask in enumerate([MASK, {"size": [266, 400], "counts": [100, 50, 266 * 400 - 150]}])
    ],
    "categories": [{"id": 1, "name": "cat"}],
}
LVIS = COCO | {
    "images": [COCO["images"][0] | {"neg_category_ids": [], "not_exhaustive_category_ids": []}],
    "categories": [COCO["categories"][0] | {"frequency": "r"}],
}
ODD = ["1", "-1", "1.5", "a/../b.jpg", "..", "a\nb", "\0", "/", "\ud800", 10**30, "1e999"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(ODD),
    lambda one: st.lists(one, max_size=5) | st.dictionaries(st.sampled_from(["size", "counts", "id", "x"]), one),
    max_leaves=8,
)


def paths(value, path=()):
    """Of every value in a JSON value, the keys and indices that lead to it."""
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
    """The set is read and can be trained on and scored, or is refused."""
    try:
        read = open_detection_set(file, **how)
    except InputError:
        return
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
                assert target["masks"].flatten(1).any(1).all()
    evaluate(read, {})


@CALM
@given(st.data())
def test_any_value_in_any_field_of_a_coco_or_lvis_file(tmp_path, data):
    content = data.draw(st.sampled_from([COCO, LVIS]))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(paths(content))))
        content = replaced(content, path, data.draw(VALUES))
    (tmp_path / "images").mkdir(exist_ok=True)
    shutil.copy(photographs() / "chelsea.jpg", tmp_path / "images")
    (tmp_path / "set.json").write_text(json.dumps(content))
    check(tmp_path / "set.json")


XML = (
    "<annotation><size><width>{}</width><height>{}</height></size><object><name>{}</name><difficult>{}</difficult>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"
)
FIELDS = ("400", "266", "cat", "0", "10", "10", "60", "60")
TEXTS = (
    st.text(max_size=6) | st.integers().map(str) | st.floats().map(str) | st.sampled_from(["<x/>", "</name>", "&amp;"])
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
