"""Label Studio's own exports, "JSON" and "JSON-MIN", against hand-worked values."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image
from tool_files import image, text

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError

RECT = {"x": 10, "y": 20, "width": 25, "height": 50, "rotation": 0}  # of 400 by 266: 40, 53.2 to 140, 186.2
AS_BOX = (40, 53.2, 140, 186.2)


def result(kind, value, label="cat", **more):
    """A result with the fields that Label Studio writes; `label` may be a list."""
    labels = {} if label is None else {kind: label if isinstance(label, list) else [label]}
    found = {"original_width": 400, "original_height": 266, "image_rotation": 0, "value": value | labels}
    return found | {"id": None, "from_name": "label", "to_name": "image", "type": kind, "origin": "manual"} | more


def rect(label="cat", **more):
    return result("rectanglelabels", {**RECT, **more}, label)


def annotation(*results, created="2024-05-02T10:00:00.000000Z", **more):
    for place, one in enumerate(results):
        one["id"] = one["id"] or f"id{place}"
    known = {"id": 7, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "created_at": created}
    return known | {"result": list(results)} | more


def task(number, name, *annotations, **more):
    known = {"id": number, "annotations": list(annotations), "file_upload": "x", "drafts": [], "predictions": []}
    return known | {"data": {"image": name}, "meta": {}, "project": 1} | more


def short(tasks):
    """The tasks as Label Studio's converter writes them as JSON-MIN: an entry for each annotation."""
    for one in tasks:
        for written in [found for found in one["annotations"] if not found["was_cancelled"]]:
            fields = {}
            for found in written["result"]:
                sizes = {name: found[name] for name in ("original_width", "original_height") if name in found}
                fields.setdefault(found["from_name"], []).append(found["value"] | sizes)
            known = {"annotator": 1, "annotation_id": written["id"], "created_at": written["created_at"]}
            yield {**one["data"], "id": one["id"], **fields, **known, "lead_time": 3.2}
        if not one["annotations"]:
            yield {**one["data"], "id": one["id"], "annotator": "", "annotation_id": None, "created_at": None}


def write(root, *tasks, files=("a.jpg",), name="project-1-at-2024-05-02-10-00-1a2b3c4d.json", form="JSON"):
    for file in files:
        image("chelsea", root / "images" / file)
    text(root / name, json.dumps(list(tasks) if form == "JSON" else list(short(tasks))))
    return root


def read(given, split="all", **how):
    return open_detection_set(given, split=split, check_images=True, **how)


def boxes(data, index=0):
    found = data.images[index]
    sides = np.round(found.boxes.astype(float), 3).tolist()
    return [(data.categories[k - 1].name, *b) for k, b in zip(found.labels.tolist(), sides, strict=True)]


BOTH = pytest.mark.parametrize("form", ["JSON", "JSON-MIN"])


@BOTH
@pytest.mark.parametrize("name", ["project-1-at-2024-05-02.json", "result.json", "annotations/cats.json"])
def test_folder_and_file_are_read(tmp_path, form, name):
    tasks = [task(1, "a.jpg", annotation(rect())), task(2, "b.jpg", annotation())]
    write(tmp_path, *tasks, files=("a.jpg", "b.jpg"), form=form, name=name)
    for given in (tmp_path, tmp_path / name):
        data = read(given)
        assert (boxes(data), len(data.images[1])) == ([("cat", *AS_BOX)], 0)
        assert [one.unusable for one in data.images] == [False, False]
        assert not data.problems
        assert not data.has_masks


@BOTH
def test_every_region_with_an_area_is_an_object(tmp_path, form):
    results = [
        rect("k0"),
        result("polygonlabels", {"points": [[25, 50], [35, 50], [25, 75]], "closed": True}, "k1"),
        result("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 90}, "k2"),
    ]
    data = read(write(tmp_path, task(1, "a.jpg", annotation(*results)), form=form))
    assert [category.name for category in data.categories] == ["k0", "k1", "k2"]
    expected = [AS_BOX, (100, 133, 140, 199.5), (200 - 26.6, 133 - 40, 200 + 26.6, 133 + 40)]
    assert np.allclose(data.images[0].boxes, expected, atol=0.01)
    assert np.allclose(data.images[0].areas, [100 * 133, 40 * 66.5 / 2, np.pi * 40 * 26.6], rtol=0.01)
    assert data.has_masks
    assert data.problems.counts == {Problem.BROKEN_MASK: 1}  # the rectangle, for which nobody drew an outline


def test_ellipse_turns_clockwise(tmp_path):
    """Radii of 40 and 13.3 pixels about (200, 133), turned by 30 degrees."""
    drawn = result("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 5, "rotation": 30})
    mask = read(write(tmp_path, task(1, "a.jpg", annotation(drawn)))).target(0)["masks"][0]
    right, down = round(36 * np.cos(np.pi / 6)), 18  # at nine tenths of the longer radius
    assert [mask[133 + y, 200 + x] for x, y in ((right, down), (-right, -down))] == [1, 1]
    assert [mask[133 + y, 200 + x] for x, y in ((right, -down), (-right, down))] == [0, 0]


@BOTH
def test_rotated_rectangle_turns_about_its_first_corner_in_pixels(tmp_path, form):
    """Label Studio's issue 2293: 300 by 100 pixels at (200, 100) of 1000 by 500, turned by 90 degrees clockwise.

    It covers the pixels from (100, 100) to (200, 400). A turn by 30 degrees: the corners are worked out one by one.
    """
    Image.new("RGB", (1000, 500)).save(tmp_path / "a.jpg")
    size = {"original_width": 1000, "original_height": 500}
    turned = [result("rectanglelabels", {"x": 20, "y": 20, "width": 30, "height": 20, "rotation": r}) for r in (90, 30)]
    tasks = [task(1, "a.jpg", annotation(*(one | size for one in turned)))]
    text(tmp_path / "set.json", json.dumps(tasks if form == "JSON" else list(short(tasks))))
    data = read(tmp_path)
    right, down = np.array([np.cos(np.pi / 6), 0.5]), np.array([-0.5, np.cos(np.pi / 6)])
    corners = np.add([200, 100], [0 * right, 300 * right, 300 * right + 100 * down, 100 * down])
    assert np.allclose(data.images[0].boxes, [(100, 100, 200, 400), (*corners.min(0), *corners.max(0))], atol=1e-3)
    assert data.problems.counts == {Problem.ROTATED: 2}


@BOTH
def test_images_that_nobody_annotated_are_left_out(tmp_path, form):
    tasks = [
        task(1, "a.jpg", annotation(rect())),
        task(2, "b.jpg", predictions=[{"result": [rect("dog")]}]),
        task(3, "c.jpg", annotation(rect("dog"), was_cancelled=True)),
    ]
    write(tmp_path, *tasks, files=[f"{name}.jpg" for name in "abc"], form=form)
    data = read(tmp_path)
    assert [one.file.name for one in data.images] == ["a.jpg"]
    assert [category.name for category in data.categories] == ["cat"]
    # Label Studio's converter leaves skipped tasks out of JSON-MIN
    assert data.problems.counts == {Problem.NOT_ANNOTATED: 2 if form == "JSON" else 1}


@BOTH
def test_one_of_several_annotations_is_read(tmp_path, form, capsys):
    early, late = "2024-05-01T10:00:00Z", "2024-05-03T10:00:00Z"
    tasks = [
        task(1, "a.jpg", annotation(rect("late"), created=late), annotation(rect("early"), created=early)),
        task(2, "b.jpg", annotation(rect("late"), created=late, was_cancelled=True), annotation(rect("early"))),
    ]
    write(tmp_path, *tasks, files=("a.jpg", "b.jpg"), form=form)
    data = read(tmp_path)
    assert [boxes(data, index) for index in (0, 1)] == [[("late", *AS_BOX)], [("early", *AS_BOX)]]
    assert "1 of its images have several annotations" in capsys.readouterr().err
    assert not data.problems


def test_ground_truth_is_read_rather_than_the_last_annotation(tmp_path):
    early, late = "2024-05-01T10:00:00Z", "2024-05-03T10:00:00Z"
    true = annotation(rect("true"), created=early, ground_truth=True)
    other = annotation(rect("other"), created=late)
    assert boxes(read(write(tmp_path, task(1, "a.jpg", true, other)))) == [("true", *AS_BOX)]


def test_old_exports_call_annotations_completions(tmp_path):
    old = task(1, "a.jpg", completions=[annotation(rect()), annotation(rect("dog"), skipped=True)])
    del old["annotations"]
    assert boxes(read(write(tmp_path, old))) == [("cat", *AS_BOX)]


@BOTH
def test_other_regions_are_counted_and_their_images_are_no_background(tmp_path, form):
    left_out = [
        result("keypointlabels", {"x": 10, "y": 20, "width": 0.5}),
        result("brushlabels", {"format": "rle", "rle": [0, 1, 2, 3]}),
        result("polygonlabels", {"points": [[1, 2], [3, 4]], "closed": True}),
        result("polygonlabels", {"points": [[1, 2], [3, 4], [5, "x"]], "closed": True}),
        result("polygonlabels", {"points": [[1, 2], [30, 4], [5, 60]], "closed": False}),
        result("labels", {"start": 0, "end": 5, "text": "a text"}),
    ]
    unclear = [rect(["dog", "cat"]), rect(None, x=11)]
    choice = result("choices", {"choices": ["good"]}, None, from_name="quality")
    tasks = [
        task(1, "a.jpg", annotation(rect(), *left_out)),
        task(2, "b.jpg", annotation(*left_out)),
        task(3, "c.jpg", annotation(*unclear)),
        task(4, "d.jpg", annotation(choice)),
    ]
    data = read(write(tmp_path, *tasks, files=[f"{name}.jpg" for name in "abcd"], form=form))
    assert [(len(one), one.unusable) for one in data.images] == [(1, False), (0, True), (0, True), (0, False)]
    assert data.problems.counts == {Problem.NO_AREA: 2 * len(left_out), Problem.UNKNOWN_CATEGORY: 2}
    assert [category.name for category in data.categories] == ["cat"]


@BOTH
def test_region_with_several_results_is_one_object(tmp_path, form):
    """A rectangle and its label may be two results, as may be a text about it."""
    same = {"id": "same"}
    results = [
        result("rectangle", RECT, None, from_name="box", **same),
        result("labels", RECT, "cat", **same),
        result("textarea", {**RECT, "text": ["a cat"]}, None, from_name="text", **same),
        result("rectangle", {**RECT, "x": 50}, None, from_name="box", id="other"),
    ]
    data = read(write(tmp_path, task(1, "a.jpg", annotation(*results)), form=form))
    assert boxes(data) == [("cat", *AS_BOX)]
    assert data.problems.counts == {Problem.UNKNOWN_CATEGORY: 1}


def test_two_regions_in_one_place_are_two_objects(tmp_path):
    data = read(write(tmp_path, task(1, "a.jpg", annotation(rect("cat"), rect("dog")))))
    assert boxes(data) == [("cat", *AS_BOX), ("dog", *AS_BOX)]


@pytest.mark.parametrize(
    "name",
    [
        "/data/upload/3/1a2b3c4d-a.jpg",
        "/data/upload/1a2b3c4d-a.jpg",
        "/data/local-files/?d=photos/cats/a.jpg",
        "s3://bucket/cats/a.jpg",
        "https://example.com/cats/a.jpg?token=1",
        "C:\\photos\\a.jpg",
    ],
)
@BOTH
def test_names_of_images(tmp_path, name, form):
    other = task(2, name.replace("a.jpg", "b.jpg"), annotation(rect("dog")))
    write(tmp_path, task(1, name, annotation(rect())), other, files=("a.jpg", "b.jpg"), form=form)
    data = read(tmp_path)
    assert [one.file.name for one in data.images] == ["a.jpg", "b.jpg"]
    assert set(data.problems.counts) <= {Problem.NAME_FROM_ELSEWHERE}
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path.parent / f"{tmp_path.name} elsewhere")
    data = read(tmp_path, images=tmp_path.parent / f"{tmp_path.name} elsewhere")
    assert [one.file.name for one in data.images] == ["a.jpg", "b.jpg"]


def test_names_from_before_the_upload_are_reported_once(tmp_path, capsys):
    data = read(write(tmp_path, task(1, "/data/upload/3/1a2b3c4d-a.jpg", annotation(rect()))))
    assert data.problems.counts == {Problem.NAME_FROM_ELSEWHERE: 1}
    assert capsys.readouterr().err == ""


def test_copy_of_an_uploaded_image_keeps_its_name(tmp_path):
    files = ("1a2b3c4d-a.jpg", "a.jpg")
    data = read(write(tmp_path, task(1, "/data/upload/3/1a2b3c4d-a.jpg", annotation(rect())), files=files))
    assert [one.file.name for one in data.images] == ["1a2b3c4d-a.jpg"]


def test_uploads_of_two_images_with_one_name_are_not_matched(tmp_path):
    tasks = [task(n, f"/data/upload/3/1a2b3c4{n}-a.jpg", annotation(rect())) for n in (1, 2)]
    with pytest.raises(InputError, match="none of its images, such as"):
        read(write(tmp_path, *tasks))


def test_uploads_are_found_by_names_that_django_changed(tmp_path):
    """All by rules of `get_valid_filename`, and encoded as in URLs; each image has a box of its own class."""
    uploaded = {
        "WhatsApp Image 2026-01-02 at 10.11 (3).jpeg": "WhatsApp_Image_2026-01-02_at_10.11_3.jpeg",
        "100%.jpg": "100.jpg",
        "\u00fcber.jpg": "%C3%BCber.jpg",
        unicodedata.normalize("NFD", "f\u00fcr dich.jpg"): "f%C3%BCr_dich.jpg",
        "plain.jpg": "plain.jpg",
    }
    tasks = [
        task(n, f"/data/upload/3/1a2b3c4{n}-{name}", annotation(rect(f"class {n}")))
        for n, name in enumerate(uploaded.values())
    ]
    write(tmp_path, *tasks, files=tuple(uploaded))
    for data in (read(tmp_path), read(tmp_path, images=tmp_path / "images")):
        assert [one.file.name for one in data.images] == list(uploaded)
        assert [boxes(data, index)[0][0] for index in range(5)] == [f"class {n}" for n in range(5)]


def test_uploads_that_may_be_several_images_are_not_matched(tmp_path):
    tasks = [task(n, f"/data/upload/3/1a2b3c4{n}-{name}", annotation(rect())) for n, name in enumerate(("a_b", "c"))]
    for one in tasks:
        one["data"]["image"] += ".jpg"
    data = read(write(tmp_path, *tasks, files=("a b.jpg", "(a) b.jpg", "c.jpg")))
    assert [one.file.name for one in data.images] == ["c.jpg"]
    image("chelsea", tmp_path / "images" / "a_b.jpg")
    data = read(tmp_path)
    assert [one.file.name for one in data.images] == ["a_b.jpg", "c.jpg"]


@BOTH
def test_image_may_be_in_another_field(tmp_path, form):
    tasks = [task(n, "", annotation(rect())) for n in (1, 2, 3)]
    tasks[0]["data"] = {"ocr": "a.jpg", "source": "a camera"}
    tasks[1]["data"] = {"left": "a.jpg", "right": "b.jpg"}
    tasks[2]["data"] = {"pages": ["a.jpg", "b.jpg"], "image": "data:image/png;base64,AAAA"}
    data = read(write(tmp_path, *tasks, files=("a.jpg", "b.jpg"), form=form))
    assert [one.file.name for one in data.images] == ["a.jpg"]
    assert data.problems.counts == {Problem.UNCLEAR_IMAGE: 2}
    with pytest.raises(InputError, match="2 × task without an image, or with several"):
        read(write(tmp_path / "unclear", *tasks[1:], form=form))


@pytest.mark.parametrize(
    ("others", "other"),
    [
        ({"image2": "b.jpg"}, {"to_name": "image2"}),  # two tags of the labelling interface
        ({"pages": ["a.jpg", "b.jpg"]}, {"item_index": 1}),  # one tag that shows several images
    ],
)
def test_regions_on_several_images_of_a_task_are_not_put_on_one(tmp_path, others, other):
    tasks = [
        task(1, "a.jpg", annotation(rect("dog"), rect("cat", x=50) | other), data={"image": "a.jpg", **others}),
        task(2, "a.jpg", annotation(rect("cat") | other), data={"image": "a.jpg", **others}),
        task(3, "c.jpg", annotation(rect("cow"))),
    ]
    data = read(write(tmp_path, *tasks, files=("a.jpg", "b.jpg", "c.jpg")))
    assert [one.file.name for one in data.images] == ["c.jpg"]
    assert data.problems.counts == {Problem.UNCLEAR_IMAGE: 2}


def test_other_images_of_a_task_that_are_not_annotated_do_not_matter(tmp_path):
    tasks = [task(1, "a.jpg", annotation(rect(), rect("dog", x=50)), data={"image": "a.jpg", "small": "b.jpg"})]
    data = read(write(tmp_path, *tasks, files=("a.jpg", "b.jpg")))
    assert [one.file.name for one in data.images] == ["a.jpg"]
    assert not data.problems


def test_labels_that_are_no_text_are_none(tmp_path):
    regions = [rect([7], x=1), rect([None], x=2), rect([{"a": "dog"}], x=3)]
    data = read(write(tmp_path, task(1, "a.jpg", annotation(*regions))))
    assert [category.name for category in data.categories] == ["7"]
    assert data.problems.counts == {Problem.UNKNOWN_CATEGORY: 2}


@BOTH
def test_sizes_that_are_missing_or_wrong(tmp_path, form):
    """An image that was shown without its EXIF rotation has its width and height swapped."""
    plain, swapped = rect(), rect() | {"original_width": 266, "original_height": 400}
    del plain["original_width"]
    differing = [rect("dog") | {"original_width": side, "original_height": side} for side in (100, 200)]
    tasks = [task(n, f"{n}.jpg", annotation(*of)) for n, of in enumerate(([plain], [swapped], differing))]
    data = read(write(tmp_path, *tasks, files=("0.jpg", "1.jpg", "2.jpg"), form=form))
    assert boxes(data) == [("cat", *AS_BOX)]
    assert set(boxes(data, 1)) == {("dog", *AS_BOX)}
    assert data.problems.counts == {Problem.BROKEN_IMAGE: 1}
    assert "swapped" in data.problems.first[Problem.BROKEN_IMAGE]


def test_turned_images_are_noted(tmp_path, capsys):
    turned = rect() | {"image_rotation": 90}
    assert boxes(read(write(tmp_path, task(1, "a.jpg", annotation(turned))))) == [("cat", *AS_BOX)]
    assert "1 of its regions were drawn on images turned" in capsys.readouterr().err


def test_tasks_of_joined_projects_may_share_ids(tmp_path):
    tasks = [task(1, "a.jpg", annotation(rect())), task(1, "b.jpg", annotation(rect("dog")))]
    data = read(write(tmp_path, *tasks, files=("a.jpg", "b.jpg")))
    assert [boxes(data, index)[0][0] for index in (0, 1)] == ["cat", "dog"]
    assert not data.problems


def test_splits_have_the_classes_of_all(tmp_path):
    write(tmp_path / "train", task(1, "a.jpg", annotation(rect("dog"))))
    write(tmp_path / "val", task(1, "a.jpg", annotation(rect("cat"))), name="result.json")
    assert [boxes(read(tmp_path, split))[0][0] for split in ("train", "val")] == ["dog", "cat"]
    assert [category.name for category in read(tmp_path, "train").categories] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([task(1, "a.jpg", predictions=[{"result": [rect()]}])], "predictions"),
        ([task(1, "a.jpg", annotation(result("brushlabels", {"format": "rle", "rle": [0]})))], "brush masks"),
        ([task(1, "a.jpg", annotation(rect())), 3], "list of tasks"),
        ([task(1, "gone.jpg", annotation(rect()))], "none of its images, such as"),
        ([task(1, "a.jpg", annotation(*(rect(x=150 + k) for k in range(9))))], "outside"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, what):
    image("chelsea", tmp_path / "a.jpg")
    text(tmp_path / "set.json", json.dumps(content))
    for given in (tmp_path, tmp_path / "set.json"):
        with pytest.raises(InputError, match=what) as caught:
            read(given)
        assert "\n" not in str(caught.value)


def test_box_form_is_fixed(tmp_path):
    root = write(tmp_path, task(1, "a.jpg", annotation(rect())), name="set.json")
    for given in (root, root / "set.json"):
        with pytest.raises(InputError, match="box form is fixed"):
            read(given, reading=ReadingSettings(box_form="xywh"))


def test_convert_writes_the_same_objects(tmp_path):
    outline = result("polygonlabels", {"points": [[25, 50], [35, 50], [25, 75]], "closed": True}, "dog")
    write(tmp_path / "set", task(1, "a.jpg", annotation(rect(), outline)))
    main(["convert", str(tmp_path / "set"), "--output", str(tmp_path / "coco.json"), "--quiet"])
    data = read(tmp_path / "coco.json")
    assert boxes(data) == [("cat", *AS_BOX), ("dog", 100, 133, 140, 199.5)]
    assert np.allclose(data.images[0].masks[1], [[100, 133, 140, 133, 100, 199.5]])
