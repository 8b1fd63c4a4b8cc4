"""Files of the VGG Image Annotator, against hand-worked values."""

import json

import numpy as np
import pytest
from tool_files import image, text

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.errors import InputError


def shape(kind, **sides):
    return {"name": kind} | sides


def region(drawn, **attributes):
    return {"shape_attributes": drawn, "region_attributes": attributes}


RECT = shape("rect", x=10, y=20, width=50, height=30)
TRIANGLE = shape("polygon", all_points_x=[100, 140, 100], all_points_y=[100, 100, 160])


def write(file, *regions, name="a", **more):
    """Writes an image and a VIA file, which names it, beside it; `more`: the regions of other images by their names."""
    entries = {name: list(regions)} | more
    for one in entries:
        image("chelsea", file.parent / f"{one}.jpg")
    listed = {
        f"{one}.jpg123": {"filename": f"{one}.jpg", "size": 123, "regions": found, "file_attributes": {}}
        for one, found in entries.items()
    }
    text(file, json.dumps(listed))
    return listed


def read(root, split="all", **how):
    return open_detection_set(root, split=split, check_images=True, **how)


def boxes(data, index=0):
    found = data.images[index]
    return [(data.categories[k - 1].name, *b) for k, b in zip(found.labels.tolist(), found.boxes.tolist(), strict=True)]


def test_every_shape_is_an_object(tmp_path):
    drawn = [
        RECT,
        TRIANGLE,
        shape("circle", cx=200, cy=100, r=5),
        shape("ellipse", cx=300, cy=100, rx=40, ry=10, theta=np.pi / 2),
        shape("polyline", all_points_x=[10, 60, 60, 10, 10], all_points_y=[100, 100, 200, 200, 108]),
    ]
    write(tmp_path / "via_region_data.json", *(region(one, kind=f"k{k}") for k, one in enumerate(drawn)))
    data = read(tmp_path)
    assert [category.name for category in data.categories] == ["k0", "k1", "k2", "k3", "k4"]
    expected = [(10, 20, 60, 50), (100, 100, 140, 160), (195, 95, 205, 105), (290, 60, 310, 140), (10, 100, 60, 200)]
    assert np.allclose(data.images[0].boxes, expected, atol=0.01)
    # half of 40 by 60; pi times the radii
    assert np.allclose(data.images[0].areas, [1500, 1200, np.pi * 25, np.pi * 400, 5000], rtol=0.01)
    assert data.has_masks
    assert data.problems.counts == {Problem.BROKEN_MASK: 1}  # the rectangle, for which nobody drew an outline
    rows, columns = np.mgrid[:266, :400] + 0.5
    ellipse = ((columns - 300) / 10) ** 2 + ((rows - 100) / 40) ** 2 < 1
    mask = data.target(0)["masks"].numpy()[3].astype(bool)
    assert (mask & ellipse).sum() / (mask | ellipse).sum() > 0.95


@pytest.mark.parametrize("form", ["export", "project", "version 1"])
@pytest.mark.parametrize("name", ["via_region_data.json", "cats.json"])
def test_forms_of_files(tmp_path, form, name):
    listed = write(tmp_path / name, region(RECT, animal="cat"), b=[])
    if form == "project":
        listed = {"_via_settings": {}, "_via_img_metadata": listed, "_via_attributes": {}}
    if form == "version 1":
        for entry in listed.values():
            entry["regions"] = {str(k): one for k, one in enumerate(entry["regions"])}
    text(tmp_path / name, json.dumps(listed))
    for given in (tmp_path, tmp_path / name):
        data = read(given)
        assert (boxes(data), len(data.images[1])) == ([("cat", 10, 20, 60, 50)], 0)
        assert not data.problems


def test_file_is_recognised_whose_first_image_has_many_regions(tmp_path):
    outline = shape("polygon", all_points_x=[10, 60, 60] * 500, all_points_y=[20, 20, 50] * 500)
    listed = write(tmp_path / "set.json", *(region(outline, animal="cat") for _ in range(9)))
    assert json.dumps(listed).index('"file_attributes"') > 70_000
    assert boxes(read(tmp_path)) == [("cat", 10, 20, 60, 50)] * 9


def test_splits_have_the_classes_of_all(tmp_path):
    write(tmp_path / "train" / "via_region_data.json", region(RECT, animal="dog"))
    write(tmp_path / "train" / "other.json", region(RECT, animal="cow"))
    write(tmp_path / "val" / "via_region_data.json", region(RECT, animal="cat"))
    assert [boxes(read(tmp_path, split))[0][0] for split in ("train", "val")] == ["dog", "cat"]
    assert [category.name for category in read(tmp_path, "train").categories] == ["cat", "dog"]
    write(tmp_path / "train" / "via_region_data.json")
    (tmp_path / "train" / "via_region_data.json").rename(tmp_path / "train" / "another.json")
    with pytest.raises(InputError, match=r"Image Annotator.* give it itself"):
        read(tmp_path, "train")


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ([{"animal": "cat"}, {"animal": "dog "}], ["cat", "dog"]),
        ([{}, {}], ["object", "object"]),
        ([{"animal": {"cat": True}}, {"animal": {"dog": True, "cat": False}}], ["cat", "dog"]),
        ([{"colour": "red", "Name": "cat"}, {"colour": "blue", "Name": "dog"}], ["cat", "dog"]),
        ([{"colour": "", "animal": "cat"}, {"colour": "", "animal": "dog"}], ["cat", "dog"]),
        ([{"code": 1}, {"code": "2"}], ["1", "2"]),
    ],
)
def test_attribute_that_is_the_class(tmp_path, attributes, named):
    write(tmp_path / "a.json.json", *(region(RECT | {"x": k}, **one) for k, one in enumerate(attributes)))
    assert [one[0] for one in boxes(read(tmp_path))] == named


def test_unclear_class_is_refused(tmp_path):
    write(tmp_path / "set.json", region(RECT, colour="red", size="small"))
    with pytest.raises(InputError, match="attributes colour, size; call the one"):
        read(tmp_path)


def test_regions_without_area_or_class_are_left_out_and_their_images_are_no_background(tmp_path):
    line = shape("polyline", all_points_x=[10, 60, 100], all_points_y=[100, 100, 200])
    broken = [
        shape("point", cx=5, cy=5),
        line,
        shape("polyline", all_points_x=[10, 60, 100, 20], all_points_y=[100, 100, 200, 130]),
        shape("polygon", all_points_x=[1, 2], all_points_y=[1, 2]),
        shape("polygon", all_points_x=[1, 2, None], all_points_y=[1, 9, 9]),
        shape("polygon", all_points_x=[1, 2, 3], all_points_y=[1, 9]),
        shape("star"),
        None,
    ]
    lines = [region(one, animal="cat") for one in broken]
    unclear = [region(RECT), *(region(RECT, animal={"cat": one, "dog": one}) for one in (False, True))]
    write(tmp_path / "set.json", region(RECT, animal="cat"), *lines, b=lines, c=unclear, d=[])
    data = read(tmp_path)
    assert [(len(one), one.unusable) for one in data.images] == [(1, False), (0, True), (0, True), (0, False)]
    assert data.problems.counts == {Problem.NO_AREA: 2 * len(broken), Problem.UNKNOWN_CATEGORY: 3}


def test_images_elsewhere_and_missing(tmp_path):
    write(tmp_path / "photos" / "set.json", region(RECT, animal="cat"), gone=[])
    (tmp_path / "photos" / "gone.jpg").unlink()
    (tmp_path / "photos" / "set.json").rename(tmp_path / "set.json")
    data = read(tmp_path)
    assert boxes(data) == [("cat", 10, 20, 60, 50)]
    assert data.problems.counts == {Problem.MISSING_IMAGE: 1}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"_via_img_metadata": [1]}', "VIA"),
        ('{"_via_img_metadata": {"a": {"filename": "a.jpg"}}}', "regions"),
        ('{"_via_img_metadata": {}}', "no region"),
        ('{"_via_img_metadata": {"a": {"filename": "a.jpg", "regions": "x"}}}', "no region"),
        ('{"_via_img_metadata": ', "JSON"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, what):
    image("chelsea", tmp_path / "a.jpg")
    text(tmp_path / "set.json", content)
    with pytest.raises(InputError, match=what) as caught:
        read(tmp_path / "set.json")
    assert "\n" not in str(caught.value)


def test_fractions_are_refused(tmp_path):
    small = shape("polygon", all_points_x=[0.1, 0.5, 0.5], all_points_y=[0.1, 0.1, 0.5])
    write(tmp_path / "set.json", *(region(small, animal="cat") for _ in range(4)))
    with pytest.raises(InputError, match=r"fractions.*multiply"):
        read(tmp_path)


def test_convert_writes_the_same_objects(tmp_path):
    write(tmp_path / "set" / "set.json", region(RECT, animal="cat"), region(TRIANGLE, animal="dog"))
    main(["convert", str(tmp_path / "set"), "--output", str(tmp_path / "coco.json"), "--quiet"])
    data = read(tmp_path / "coco.json")
    assert boxes(data) == [("cat", 10, 20, 60, 50), ("dog", 100, 100, 140, 160)]
    assert np.allclose(data.images[0].masks[1], [[100, 100, 140, 100, 100, 160]])
