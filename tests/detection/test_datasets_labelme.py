"""Folders of LabelMe's JSON files, against hand-worked values, other libraries and LabelMe's own rules."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as pycocotools
from tool_files import image, text

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError

SIZE = (400, 266)


def shape(label, kind, points, **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def write(folder, name, shapes, **more):
    """Writes an image and LabelMe's file beside it."""
    image("chelsea", folder / f"{name}.jpg")
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
    sides = {"imageHeight": SIZE[1], "imageWidth": SIZE[0]}
    (folder / f"{name}.json").write_text(json.dumps(content | sides | more))


def png(pixels):
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def read(root, split="all", **how):
    return open_detection_set(root, split=split, **how)


def boxes(data, index=0):
    found = data.images[index]
    return [(data.categories[k - 1].name, *b) for k, b in zip(found.labels.tolist(), found.boxes.tolist(), strict=True)]


CAT = shape("cat", "rectangle", [[60, 50], [10, 20]])


def test_every_shape_is_an_object(tmp_path):
    triangle = [[100, 100], [140, 100], [100, 160]]
    shapes = [
        CAT,
        shape("dog", "polygon", triangle),
        shape("ball", "circle", [[200, 100], [203, 104]]),
        shape("box", "oriented_rectangle", [[300, 100], [320, 110], [315, 120], [295, 110]]),
    ]
    write(tmp_path, "a", shapes)
    write(tmp_path, "b", [])
    data = read(tmp_path)
    assert [category.name for category in data.categories] == ["ball", "box", "cat", "dog"]
    assert boxes(data) == [
        ("cat", 10, 20, 60, 50),
        ("dog", 100, 100, 140, 160),
        ("ball", 195, 95, 205, 105),
        ("box", 295, 100, 320, 120),
    ]
    # half of 40 by 60; radius 5; sides (20, 10) and (-5, 10), whose cross product is 250
    assert np.allclose(data.images[0].areas, [50 * 30, 1200, np.pi * 25, 250], rtol=1e-5)
    assert data.has_masks
    assert data.problems.counts == {Problem.BROKEN_MASK: 1}  # the rectangle, for which nobody drew an outline
    assert (len(data.images[1]), data.style) == (0, "coco")
    masks = data.target(0)["masks"].numpy()
    drawn = pycocotools.decode(pycocotools.frPyObjects([[float(x) for p in triangle for x in p]], 266, 400))[..., 0]
    assert (masks[1] == drawn).all()
    rows, columns = np.mgrid[:266, :400] + 0.5
    distance = np.hypot(columns - 200, rows - 100)
    assert masks[2][distance < 4].all()
    assert not masks[2][distance > 6].any()


def test_rectangles_alone_are_a_dataset_without_masks(tmp_path):
    four = shape("dog", "rectangle", [[10, 20], [60, 20], [60, 50], [10, 50]])  # as X-AnyLabeling writes them
    write(tmp_path, "a", [CAT, four, shape("cat", "rectangle", [[0, 9], [399.5, 0]])])
    data = read(tmp_path)
    assert boxes(data) == [("cat", 10, 20, 60, 50), ("dog", 10, 20, 60, 50), ("cat", 0, 0, 399.5, 9)]
    assert not data.has_masks
    assert not data.problems


def test_shapes_without_area_are_counted(tmp_path):
    shapes = [
        CAT,
        shape("nose", "point", [[5, 5]]),
        shape("nose", "points", [[5, 5], [9, 9], [7, 5]]),
        shape("edge", "line", [[5, 5], [9, 9]]),
        shape("edge", "linestrip", [[5, 5], [9, 9], [20, 5]]),
        shape("cat", "polygon", [[5, 5], [9, 9]]),
        shape("cat", "polygon", [[5, 5], [9, 9], [13, 13]]),
        shape("cat", "rectangle", [[5, 5], [5, 50]]),
        shape("cat", "rectangle", [[5, 5]]),
        shape("cat", "circle", [[5, 5], [5, 5]]),
        shape("cat", "star", [[5, 5], [50, 50], [5, 50]]),
        shape("cat", "polygon", [[5, None], [50, 50], [5, 50]]),
        shape("cat", "rectangle", "here"),
        "no shape",
        shape("cat", "mask", [[5, 5], [9, 9]], mask=png(np.zeros((5, 5), np.uint8))),
    ]
    write(tmp_path, "a", shapes)
    data = read(tmp_path)
    assert data.problems.counts == {Problem.NO_AREA: len(shapes) - 1}
    assert [category.name for category in data.categories] == ["cat"]
    assert boxes(data) == [("cat", 10, 20, 60, 50)]


def test_ignored_labels_and_images(tmp_path):
    outline = [[5, 5], [50, 50], [5, 50]]
    ignored = [shape(name, "polygon", outline) for name in ("__ignore__", "_background_")]
    write(tmp_path, "a", [CAT, *ignored, shape(None, "polygon", outline), shape(" ", "polygon", outline)])
    write(tmp_path, "b", [CAT], flags={"__ignore__": True})
    write(tmp_path, "c", [CAT], flags={"__ignore__": False, "dark": True})
    data = read(tmp_path)
    assert [one.image_id for one in data.images] == ["a", "c"]
    assert data.problems.counts == {Problem.IGNORED: 3, Problem.UNKNOWN_CATEGORY: 2}
    assert boxes(data) == [("cat", 10, 20, 60, 50)]


def test_masks_are_placed_like_labelmes_converters_do(tmp_path):
    """A PNG's pixels go where LabelMe's own converters put them: mask[y1:y2 + 1, x1:x2 + 1] = PNG."""
    patch = np.random.default_rng(0).random((30, 20)) < 0.5
    patch[0] = patch[:, 0] = patch[-1] = False  # the box encloses the pixels, not the PNG
    patch[5:, 7] = patch[:9, 8] = True
    whole = np.zeros((266, 400), bool)
    whole[40:70, 100:120] = patch
    for kind in (np.uint8(1), np.uint8(255), np.bool_(True)):
        written = shape("cat", "mask", [[100, 40], [119, 69]], mask=png(patch * kind))
        write(tmp_path, "a", [written])
        data = read(tmp_path)
        assert not data.problems
        assert (data.target(0)["masks"][0].numpy() == whole).all()
        rows, columns = np.nonzero(whole)
        assert boxes(data) == [("cat", columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
        assert data.images[0].areas.tolist() == [whole.sum()]


@pytest.mark.parametrize("corner", [(-5, -8), (390, 250), (0, 0), (-5, 250)])
def test_masks_are_cut_at_the_image_border(tmp_path, corner):
    patch = np.ones((40, 30), bool)
    patch[10:20, 10:20] = False
    x, y = corner
    write(tmp_path, "a", [shape("cat", "mask", [[x, y], [x + 29, y + 39]], mask=png(patch))])
    canvas = np.zeros((266 + 100, 400 + 100), bool)
    canvas[y + 50 : y + 90, x + 50 : x + 80] = patch
    whole = canvas[50:-50, 50:-50]
    data = read(tmp_path)
    assert (data.target(0)["masks"][0].numpy() == whole).all()
    assert data.images[0].areas.tolist() == [whole.sum()]
    rows, columns = np.nonzero(whole)
    assert boxes(data) == [("cat", columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def test_mask_as_high_as_its_image(tmp_path):
    """One run of pixels then continues from column to column."""
    write(tmp_path, "a", [shape("cat", "mask", [[398, 0], [399, 265]], mask=png(np.ones((266, 2), bool)))])
    data = read(tmp_path)
    assert boxes(data) == [("cat", 398, 0, 400, 266)]
    assert data.target(0)["masks"][0].numpy()[:, 398:].all()
    assert data.target(0)["masks"][0].numpy().sum() == 2 * 266


def test_unreadable_masks_are_counted(tmp_path):
    points = [[10, 20], [59, 49]]
    good = png(np.ones((30, 50), np.uint8))
    others = [None, "", "AAAA", 7, good[:60], png(np.ones((266, 400), np.uint8)), png(np.ones((30, 50, 3), np.uint8))]
    write(tmp_path, "a", [shape("cat", "mask", points, mask=one) for one in (good, *others)])
    data = read(tmp_path)
    assert boxes(data) == [("cat", 10, 20, 60, 50)] * 8
    assert data.problems.counts == {Problem.BROKEN_MASK: len(others)}
    write(tmp_path, "a", [shape("cat", "mask", points, mask=None)])
    assert read(tmp_path).problems.counts == {Problem.BROKEN_OUTLINE: 1}


def test_fractional_mask_corners_are_rounded(tmp_path):
    """They are rounded as in LabelMe, whose two corners may give a box one pixel larger than the mask."""
    patch = np.ones((3, 4), np.uint8)
    write(tmp_path, "a", [shape("cat", "mask", [[10.4, 20.6], [13.6, 22.6]], mask=png(patch))])
    assert boxes(read(tmp_path)) == [("cat", 10, 21, 14, 24)]


def test_shapes_with_the_same_group_and_label_are_one_object(tmp_path):
    """As in labelme2coco.py: box and area are those of the shapes' union."""
    left, right = [[10, 10], [30, 10], [30, 30], [10, 30]], [[20, 20], [60, 20], [60, 40], [20, 40]]
    patch = np.ones((10, 10), bool)
    shapes = [
        shape("cat", "polygon", left, group_id=1),
        shape("dog", "polygon", left, group_id=1),
        shape("cat", "polygon", right, group_id=1),
        shape("cat", "polygon", right, group_id=2),
        shape("cat", "polygon", right),
        shape("cat", "polygon", right),
        shape("bus", "rectangle", [[100, 100], [120, 120]], group_id=0),
        shape("bus", "mask", [[200, 110], [209, 119]], mask=png(patch), group_id=0),
        shape("cat", "point", [[1, 1]], group_id=1),
    ]
    write(tmp_path, "a", shapes)
    data = read(tmp_path)
    assert boxes(data) == [
        ("cat", 10, 10, 60, 40),
        ("dog", 10, 10, 30, 30),
        *[("cat", 20, 20, 60, 40)] * 3,
        ("bus", 100, 100, 210, 120),
    ]
    assert data.images[0].areas.tolist() == [20 * 20 + 40 * 20 - 100, 400, 800, 800, 800, 400 + 100]
    masks = data.target(0)["masks"].numpy()
    drawn = Image.new("1", SIZE)
    for x1, y1, x2, y2 in ((10, 10, 30, 30), (20, 20, 60, 40)):
        ImageDraw.Draw(drawn).rectangle((x1, y1, x2 - 1, y2 - 1), fill=1)
    assert (masks[0] == np.array(drawn)).all()
    assert masks[5].sum() == 500
    assert masks[5][110:120, 200:210].all()


def test_groups_of_rectangles_have_no_masks(tmp_path):
    parts = [shape("cat", "rectangle", [[x, 10], [x + 5, 20]], group_id=3) for x in (30, 10, 50, 40)]
    write(tmp_path, "a", parts)
    data = read(tmp_path)
    assert (boxes(data), data.has_masks) == ([("cat", 10, 10, 55, 20)], False)


def test_files_of_old_versions_can_be_read(tmp_path, capsys):
    """Before version 3, shapes had no type and images no size; before 4, labels ended in numbers instead of groups."""
    old = {"line_color": None, "fill_color": None}
    outline = [[5, 5], [50, 5], [5, 50]]
    image("chelsea", tmp_path / "a.jpg")
    content = {
        "imageData": "AAAA",
        "shapes": [{"label": f"cat-{n}", "points": outline} | old for n in (1, 2)],
        "lineColor": [0, 255, 0, 128],
        "imagePath": "a.jpg",
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = read(tmp_path)
    assert boxes(data) == [("cat-1", 5, 5, 50, 50), ("cat-2", 5, 5, 50, 50)]
    assert data.has_masks
    assert data.problems.counts == {Problem.SIZE_FROM_FILE: 1}
    assert "cat-1 and cat-2 are read as two classes" in capsys.readouterr().err


def test_files_find_images_of_other_names(tmp_path):
    write(tmp_path, "a", [CAT])
    write(tmp_path, "b", [CAT], imagePath="a.jpg")  # read with its own b.jpg
    image("chelsea", tmp_path / "lonely.jpg")
    image("chelsea", tmp_path / "IMG 1.JPG")
    named = {"shapes": [CAT, CAT], "imagePath": "C:\\Users\\me\\set\\IMG 1.JPG", "imageHeight": 266, "imageWidth": 400}
    (tmp_path / "other.json").write_text("\ufeff" + json.dumps(named))
    (tmp_path / "gone.json").write_text(json.dumps(named | {"imagePath": "../gone.jpg"}))
    (tmp_path / "info.json").write_text("{}")
    image("chelsea", tmp_path / "broken.jpg")
    (tmp_path / "broken.json").write_text('{"shapes": [')
    data = read(tmp_path)
    assert {one.image_id: len(one) for one in data.images} == {"a": 1, "b": 1, "IMG 1": 2}
    assert data.problems.counts == {
        Problem.OTHER_FILE_NAME: 1,
        Problem.NO_ANNOTATION_FILE: 1,
        Problem.NO_IMAGE_FOR_LABELS: 2,
        Problem.BROKEN_ANNOTATION_FILE: 1,
    }


def test_images_of_another_size_than_labelled_are_left_out(tmp_path):
    write(tmp_path, "a", [CAT])
    write(tmp_path, "b", [CAT], imageHeight=400, imageWidth=266)
    write(tmp_path, "c", [CAT])
    (tmp_path / "c.jpg").write_bytes(b"no image")
    data = read(tmp_path)
    assert [one.image_id for one in data.images] == ["a"]
    assert data.problems.counts == {Problem.BROKEN_IMAGE: 2}
    assert "400x266, annotated as 266x400" in data.problems.first[Problem.BROKEN_IMAGE]
    write(tmp_path, "a", [CAT], imageHeight=1)
    with pytest.raises(InputError, match=r"none of its images can be used.*annotated as"):
        read(tmp_path)


def test_splits_and_separate_folders(tmp_path):
    """Classes come from all splits; the files may lie in a folder of their own and reach the image through `..`."""
    for part, name in (("train", "dog"), ("val", "cat")):
        write(tmp_path / "one", f"{part}/a", [CAT | {"label": name}])
        path = {"imagePath": f"..\\..\\images\\{part}\\a.jpg"}
        write(tmp_path / "two" / "images" / part, "a", [CAT | {"label": name}], **path)
        (tmp_path / "two" / "annotations" / part).mkdir(parents=True)
        shutil.move(tmp_path / "two" / "images" / part / "a.json", tmp_path / "two" / "annotations" / part / "a.json")
    for root in (tmp_path / "one", tmp_path / "two"):
        for part, name in (("train", "dog"), ("val", "cat")):
            data = read(root, part)
            assert [category.name for category in data.categories] == ["cat", "dog"]
            assert boxes(data) == [(name, 10, 20, 60, 50)]
            assert not data.problems
    shutil.move(tmp_path / "two" / "images", tmp_path / "images")
    with pytest.raises(InputError, match="holds LabelMe files"):
        read(tmp_path / "two", "train")
    assert boxes(read(tmp_path / "two", "train", images=tmp_path / "images")) == [("dog", 10, 20, 60, 50)]


def test_other_annotation_files_beside(tmp_path, capsys):
    """An image may be named `train`; COCO files take precedence over LabelMe's, and LabelMe's over YOLO's."""
    for name in ("a", "train"):
        write(tmp_path, name, [CAT])
    text(tmp_path / "a.txt", "0 0.5 0.5 0.1 0.1")
    data = read(tmp_path)
    assert [boxes(data, index) for index in range(2)] == [[("cat", 10, 20, 60, 50)]] * 2
    assert "LabelMe's JSON files and YOLO's labels" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"LabelMe.*folder"):
        open_detection_set(tmp_path / "a.json")
    main(["convert", str(tmp_path), "--split", "all", "--output", str(tmp_path / "val.json")])
    assert boxes(read(tmp_path, "val"), 1) == [("cat", 10, 20, 60, 50)]


def test_unusable_folders_are_refused_in_one_line(tmp_path):
    write(tmp_path, "a", [shape("cat", "point", [[5, 5]])])
    with pytest.raises(InputError, match=r"labelled shape with an area.*draw"):
        read(tmp_path)
    write(tmp_path, "a", [shape("cat", "rectangle", [[0.1, 0.1], [0.5, 0.5]])])
    with pytest.raises(InputError, match=r"fractions.*multiply"):
        read(tmp_path)
    with pytest.raises(InputError, match="--box-form"):
        read(tmp_path, reading=ReadingSettings(box_form="xyxy"))


def test_convert_keeps_masks(tmp_path):
    patch = np.random.default_rng(1).random((30, 20)) < 0.7
    shapes = [
        shape("cat", "mask", [[100, 40], [119, 69]], mask=png(patch)),
        shape("dog", "polygon", [[10, 10], [90, 20], [40, 80.5]]),
        shape("cat", "circle", [[200, 100], [230, 140]]),
    ]
    write(tmp_path / "set", "a", shapes)
    main(["convert", str(tmp_path / "set"), "--split", "all", "--output", str(tmp_path / "set.json")])
    before, after = read(tmp_path / "set"), open_detection_set(tmp_path / "set.json")
    assert boxes(before) == boxes(after)
    assert (before.target(0)["masks"] == after.target(0)["masks"]).all()
    assert not after.problems
