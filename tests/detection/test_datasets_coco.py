import json
import shutil

import numpy as np
import pytest
import tool_files
from photograph_sets import coco_file
from PIL import Image

from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.images.photographs import photographs

CATEGORIES = [{"id": 7, "name": "cup"}, {"id": 3, "name": "cat"}]


def written(folder, content, photos=("chelsea.jpg", "coffee.jpg")):
    (folder / "images").mkdir(exist_ok=True)
    for name in photos:
        shutil.copy(photographs() / name, folder / "images" / name)
    file = folder / "train.json"
    file.write_text(json.dumps(content))
    return file


def two_images(**more):
    """The entries of the two shipped photographs."""
    return [
        {"id": 20, "file_name": "chelsea.jpg", "width": 400, "height": 266} | more,
        {"id": 10, "file_name": "coffee.jpg", "width": 400, "height": 267} | more,
    ]


def note(image_id, bbox, category=3, **more):
    return {"id": 1, "image_id": image_id, "category_id": category, "bbox": bbox} | more


def content(annotations, **more):
    return {"images": two_images(), "annotations": annotations, "categories": CATEGORIES} | more


def test_boxes_labels_and_order(tmp_path):
    crowd = {"iscrowd": 1, "area": 0, "segmentation": {"size": [266, 400], "counts": [0, 266 * 400]}}
    notes = [note(10, [1, 2, 30, 40], 7, area=50), note(20, [5, 6, 10, 10]), note(20, [0, 0, 9, 9], **crowd)]
    read = open_detection_set(written(tmp_path, content(notes)))
    assert (read.style, read.has_masks, len(read)) == ("coco", False, 2)
    assert [(category.id, category.name) for category in read.categories] == [(3, "cat"), (7, "cup")]
    cat, cup = read.images
    assert (cat.image_id, cat.file, cat.width, cat.height) == (20, tmp_path / "images" / "chelsea.jpg", 400, 266)
    assert cup.boxes.tolist() == [[1, 2, 31, 42]]
    assert (cup.labels.tolist(), cup.areas.tolist()) == ([2], [50])
    assert (cat.labels.tolist(), cat.areas.tolist(), cat.crowd.tolist()) == ([1, 1], [100, 81], [False, True])
    target = read.target(0)
    assert set(target) == {"boxes", "labels"}  # without the crowd region
    assert target["boxes"].tolist() == [[5, 6, 15, 16]]
    assert target["labels"].tolist() == [1]
    assert read.target(0, (532, 200))["boxes"].tolist() == [[2.5, 12, 7.5, 32]]


def test_masks_of_polygons_and_run_lengths(tmp_path):
    polygons = [[10, 20, 50, 20, 50, 60, 10, 60], [100, 100, 120, 100, 120, 130, 100, 130]]
    # 2 empty columns, then rows 4..8 of 3 columns
    runs = [2 * 266 + 4, 5, 261, 5, 261, 5]
    rle = {"size": [266, 400], "counts": [*runs, 266 * 400 - sum(runs)]}
    notes = [note(20, [10, 20, 110, 110], segmentation=polygons), note(20, [2, 4, 3, 5], 7, segmentation=rle)]
    read = open_detection_set(written(tmp_path, content(notes)))
    assert read.has_masks
    assert not read.problems
    expected = np.zeros((2, 266, 400), np.uint8)
    expected[0, 20:60, 10:50] = expected[0, 100:130, 100:120] = 1
    expected[1, 4:9, 2:5] = 1
    masks = read.target(0)["masks"].numpy()
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, expected)
    doubled = read.target(0, (532, 800))["masks"].numpy()
    np.testing.assert_array_equal(doubled, expected.repeat(2, 1).repeat(2, 2))
    assert read.target(1)["masks"].shape == (0, 267, 400)
    assert [image.image_id for image in read.with_objects().images] == [20]


def test_masks_drawn_in_cvat_are_objects_not_crowds(tmp_path):
    """CVAT marks them as crowd regions, with a box that stops one pixel short."""
    runs = [2 * 266 + 4, 5, 261, 5, 261, 5]  # rows 4..8 of columns 2..4
    rle = {"size": [266, 400], "counts": [*runs, 266 * 400 - sum(runs)]}
    drawn = note(20, [2, 4, 2, 4], segmentation=rle, area=15.0, iscrowd=1, attributes={"occluded": False})
    outlined = drawn | {"segmentation": [[10, 20, 50, 20, 50, 60]], "bbox": [10, 20, 40, 40], "iscrowd": 0}
    other = drawn | {"attributes": {"colour": "red"}}
    broken = drawn | {"segmentation": rle | {"counts": [3]}}
    plain = drawn | {"iscrowd": 0}
    read = open_detection_set(written(tmp_path, content([drawn, outlined, other, broken, plain])))
    (found, _) = read.images
    assert found.boxes.tolist() == [[2, 4, 5, 9], [10, 20, 50, 60], [2, 4, 4, 8], [2, 4, 4, 8], [2, 4, 4, 8]]
    assert found.crowd.tolist() == [False, False, True, False, False]
    assert read.target(0)["masks"][0].nonzero().tolist() == [[y, x] for y in range(4, 9) for x in range(2, 5)]
    assert read.problems.counts == {Problem.MASK_AS_CROWD: 2, Problem.CROWD: 1, Problem.BROKEN_MASK: 1}


@pytest.mark.parametrize(("crowds", "reported"), [(10, True), (8, False)])
def test_dataset_of_crowd_regions_only_is_reported(tmp_path, capsys, crowds, reported):
    """Some tools mark everything that has run lengths as a crowd."""
    notes = [note(20, [5, 6, 10, 10 + n], iscrowd=int(n < crowds)) for n in range(10)]
    open_detection_set(written(tmp_path, content(notes)))
    assert ("set `iscrowd` to 0" in capsys.readouterr().err) == reported


def test_images_of_one_name_in_a_folder_and_its_subfolder(tmp_path):
    """If a folder and its subfolder both hold an image of a name, the one with more of the listed images is read."""
    for name in ("a", "sub/a", "sub/b"):
        tool_files.image("chelsea", tmp_path / "images" / f"{name}.jpg")
    entries = [
        two_images()[0] | {"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(("a", "sub/a", "sub/b"))
    ]
    (tmp_path / "train.json").write_text(json.dumps(content([note(0, [1, 1, 9, 9])]) | {"images": entries}))
    found = [
        image.file.relative_to(tmp_path).as_posix() for image in open_detection_set(tmp_path / "train.json").images
    ]
    assert found == ["images/a.jpg", "images/sub/a.jpg", "images/sub/b.jpg"]


def test_repeated_category_is_one_category(tmp_path):
    twice = [*CATEGORIES, CATEGORIES[0] | {"supercategory": "kitchen"}]
    read = open_detection_set(written(tmp_path, content([note(20, [5, 6, 10, 10])], categories=twice)))
    assert [(one.id, one.name) for one in read.categories] == [(3, "cat"), (7, "cup")]


def test_every_fault_is_counted_and_none_stops_the_reading(tmp_path):
    whole = [[1, 1, 9, 1, 9, 9, 1, 9]]
    notes = [
        note(20, [1, 1, 8, 8], segmentation=whole),
        note(20, [1, 1, 0, 8], segmentation=whole),
        note(20, [9, 9, -5, -5], segmentation=whole),
        note(20, [500, 5, 10, 10], segmentation=whole),
        note(20, [390, 260, 50, 50], segmentation=whole),
        note(20, [390, 256, 10.4, 10.4], segmentation=whole),  # beyond the border only by COCO's rounding
        note(20, [float("nan"), 1, 2, 3]),
        note(20, [1, 2, 3]),
        note(20, None),
        note(20, [1, 1, 9, 9], category=99),
        note(20, [1, 1, 9, 9], category=[3]),
        note(99, [1, 1, 9, 9]),
        note(20, [2, 2, 9, 9], segmentation=[[1, 1, 2, 2]]),
        note(20, [2, 2, 9, 9], segmentation={"size": [266, 400], "counts": [5]}),
        note(20, [2, 2, 9, 9], segmentation=whole, iscrowd=1),
        "nonsense",
    ]
    gone = {"id": 30, "file_name": "gone.jpg", "width": 10, "height": 10}
    again = two_images()[0] | {"file_name": "./chelsea.jpg"}
    listed = [*two_images(), gone, again, {"id": 31}, {"id": 32, "file_name": "a.jpg", "width": 0, "height": 5}, 7]
    read = open_detection_set(written(tmp_path, content(notes, images=listed)))
    assert read.problems.counts == {
        Problem.MISSING_IMAGE: 2,
        Problem.BROKEN_IMAGE_ENTRY: 2,
        Problem.REPEATED_IMAGE: 1,
        Problem.UNKNOWN_IMAGE: 1,
        Problem.UNKNOWN_CATEGORY: 2,
        Problem.BROKEN_BOX: 4,
        Problem.EMPTY_BOX: 2,
        Problem.OUTSIDE: 1,
        Problem.CLIPPED: 1,
        Problem.MASK_ELSEWHERE: 2,
        Problem.BROKEN_MASK: 2,
        Problem.CROWD: 1,
    }
    assert read.images[0].boxes.tolist() == [
        [1, 1, 9, 9],
        [390, 260, 400, 266],
        [390, 256, 400, 266],
        [2, 2, 11, 11],
        [2, 2, 11, 11],
        [2, 2, 11, 11],
    ]
    assert read.target(0)["masks"].sum((1, 2)).tolist() == [64, 60, 100, 81, 81]
    lines = read.problems.lines()
    assert len(lines) == 12
    assert any(line.startswith("2 × box without area") and "image 20" in line for line in lines)
    assert read.problems.as_json()["missing_image"] == {"count": 2, "first": str(tmp_path / "images" / "gone.jpg")}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"images": [', "not valid JSON"),
        ("[1, 2]", "not a COCO file"),
        (json.dumps({"images": [], "annotations": []}), "no list `categories`"),
        (json.dumps({"images": two_images(), "annotations": [], "categories": []}), "has no category"),
        (json.dumps({"images": two_images(), "annotations": [], "categories": [{"id": "x"}]}), "unusable"),
        (json.dumps(content([], categories=[*CATEGORIES, {"id": 7, "name": "mug"}])), "category id 7 twice"),
        (json.dumps(content([], images=[{"id": 1}])), "no usable image"),
        (
            json.dumps(content([], images=[{"id": 1, "file_name": "x.jpg", "width": 1, "height": 1}])),
            "none of its images, such as",
        ),
        (json.dumps(content([note(10, [1, 2, 30, 40], 99), note(99, [1, 2, 30, 40])])), "none .*: 1 × .*; 1 × "),
    ],
)
def test_unusable_files_are_refused(tmp_path, text, complaint):
    file = written(tmp_path, {})
    file.write_text(text)
    with pytest.raises(InputError, match=complaint):
        open_detection_set(file)


def test_objects_marked_difficult_in_coco_select_vocs_rules(tmp_path):
    file = written(tmp_path, content([note(20, [1, 1, 8, 8], difficult=1), note(20, [2, 2, 8, 8], difficult=0)]))
    read = open_detection_set(file)
    assert read.style == "voc"
    assert read.images[0].difficult.tolist() == [True, False]
    assert open_detection_set(file, style="coco").style == "coco"


def test_lvis_fields_are_read(tmp_path):
    categories = [{"id": 5, "name": "cat", "frequency": "r"}, {"id": 9, "name": "cup", "frequency": "f"}]
    listed = [
        {
            "id": 1,
            "coco_url": "http://images.cocodataset.org/train2017/chelsea.jpg",
            "width": 400,
            "height": 266,
            "neg_category_ids": [9],
            "not_exhaustive_category_ids": [5],
        }
    ]
    listed.append(listed[0] | {"id": 2, "coco_url": "http://images.cocodataset.org/val2017/chelsea.jpg"})
    listed[1] |= {"neg_category_ids": [5, 7], "not_exhaustive_category_ids": None}
    (tmp_path / "annotations").mkdir()
    for folder in ("train2017", "val2017"):
        (tmp_path / folder).mkdir()
        shutil.copy(photographs() / "chelsea.jpg", tmp_path / folder)
    whole = {"images": listed, "annotations": [note(1, [1, 1, 8, 8], 5)], "categories": categories}
    (tmp_path / "annotations" / "lvis_v1_train.json").write_text(json.dumps(whole))
    read = open_detection_set(tmp_path, split="train")
    assert read.style == "lvis"
    assert [category.frequency for category in read.categories] == ["r", "f"]
    assert [image.file.parent.name for image in read.images] == ["train2017", "val2017"]
    assert [(image.absent, image.incomplete) for image in read.images] == [({2}, {1}), ({1}, set())]
    assert read.problems.counts == {Problem.BROKEN_LVIS_LIST: 2}


def test_images_of_another_size_than_annotated_are_left_out(tmp_path):
    file = written(
        tmp_path, content([note(20, [1, 1, 8, 8])], images=[two_images()[0] | {"width": 266, "height": 400}])
    )
    with pytest.raises(InputError, match="266x400"):
        open_detection_set(file).pixels(0)
    more = [*two_images(), {"id": 30, "file_name": "broken.jpg", "width": 9, "height": 9}]
    written(tmp_path, content([], images=[two_images()[0] | {"width": 9, "height": 9}, *more[1:]]))
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    assert "swapped" not in open_detection_set(file, check_images=True).problems.first[Problem.BROKEN_IMAGE]
    written(tmp_path, content([], images=[two_images()[0] | {"width": 266, "height": 400}, *more[1:]]))
    checked = open_detection_set(file, check_images=True)
    assert "400x266, annotated as 266x400 (width and height are swapped" in checked.problems.first[Problem.BROKEN_IMAGE]
    assert [image.image_id for image in checked.images] == [10]
    assert checked.problems.counts == {Problem.BROKEN_IMAGE: 2}
    assert checked.pixels(0).shape == (267, 400, 3)


def objects(read):
    """(image id, label, xyxy, crowd, difficult) of every object."""
    return [
        (image.image_id, label, *box, crowd, difficult)
        for image in read.images
        for label, box, crowd, difficult in zip(
            image.labels.tolist(), image.boxes.tolist(), image.crowd.tolist(), image.difficult.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("field", ["iscrowd", "difficult"])
def test_flags_may_be_words(tmp_path, field):
    marks = [0, 1, "0", "1", False, True, 0.0, 1.0, "false", "True", " no ", "yes", None, "", "maybe", 2, [1]]
    notes = [note(20, [5, 5, 20, 20], **{field: mark}) for mark in marks]
    read = open_detection_set(written(tmp_path, content(notes)))
    marked = getattr(read.images[0], "crowd" if field == "iscrowd" else "difficult").tolist()
    assert marked == [False, True] * 6 + [False] * 5
    assert read.problems.counts[Problem.UNCLEAR_FLAG] == 3
    assert "'maybe'" in read.problems.first[Problem.UNCLEAR_FLAG]


def as_text(one):
    return str(one) if isinstance(one, int | float) else one


def as_float(one):
    return float(one) if isinstance(one, int) else one


@pytest.mark.parametrize("kind", [as_text, as_float])
@pytest.mark.parametrize("place", ["images.id", "images.width", "annotations.image_id", "annotations.bbox"])
def test_numbers_may_be_of_another_type(tmp_path, place, kind):
    notes = [note(20, [1, 2, 30, 40], 7), note(10, [5, 6, 10, 10]), note(10, [5, 6, 20, 20])]
    usual = objects(open_detection_set(written(tmp_path, content(notes))))
    part, field = place.split(".")
    changed = content([dict(one) for one in notes])
    for entry in changed[part]:
        entry[field] = [kind(one) for one in entry[field]] if isinstance(entry[field], list) else kind(entry[field])
    read = open_detection_set(written(tmp_path, changed))
    assert [row[1:] for row in objects(read)] == [row[1:] for row in usual]
    assert read.problems.counts == (
        {} if kind is as_float else {Problem.NUMBER_AS_TEXT: 2 if part == "images" and field == "width" else 3}
    )


def test_class_ids_may_be_of_another_type(tmp_path):
    notes = [note(20, [1, 2, 30, 40], "7"), note(20, [5, 6, 10, 10], 3.0), note(20, [5, 6, 10, 10], "seven")]
    read = open_detection_set(written(tmp_path, content(notes)))
    assert read.images[0].labels.tolist() == [2, 1]
    assert read.problems.counts == {Problem.NUMBER_AS_TEXT: 1, Problem.UNKNOWN_CATEGORY: 1}
    texts = [{"id": "7", "name": "cup"}, {"id": 3.0, "name": "cat"}]
    read = open_detection_set(written(tmp_path, content(notes, categories=texts)))
    assert [(one.id, one.name) for one in read.categories] == [(3, "cat"), (7, "cup")]
    assert read.images[0].labels.tolist() == [2, 1]


def test_ids_with_leading_zeros_are_names(tmp_path):
    listed = [image | {"id": name} for image, name in zip(two_images(), ("0001", "001"), strict=True)]
    notes = [note("001", [1, 2, 30, 40], 7), note("0001", [5, 6, 10, 10]), note(1, [5, 6, 10, 10])]
    read = open_detection_set(written(tmp_path, content(notes, images=listed)))
    assert [(row[0], row[1]) for row in objects(read)] == [("0001", 1), ("001", 2)]
    assert read.problems.counts == {Problem.UNKNOWN_IMAGE: 1}


@pytest.mark.parametrize("size", [None, 0, -1, "?", 400.5, "missing"])
def test_missing_size_in_coco_is_read_from_the_image(tmp_path, size):
    listed = [image | {"width": size} for image in two_images()]
    if size == "missing":
        for image in listed:
            del image["width"]
    read = open_detection_set(written(tmp_path, content([note(20, [1, 2, 30, 40])], images=listed)))
    assert [(image.width, image.height) for image in read.images] == [(400, 266), (400, 267)]
    assert read.problems.counts[Problem.SIZE_FROM_FILE] == 2
    assert "image 20, chelsea.jpg" in read.problems.first[Problem.SIZE_FROM_FILE]


@pytest.mark.parametrize("form", ["C:\\data\\images\\{}", "/home/someone/set/images/{}", "images\\{}", "old/{}"])
def test_paths_of_another_machine_are_resolved(tmp_path, form):
    listed = [image | {"file_name": form.format(image["file_name"])} for image in two_images()]
    read = open_detection_set(written(tmp_path, content([note(20, [1, 2, 30, 40])], images=listed)))
    assert [image.file.name for image in read.images] == ["chelsea.jpg", "coffee.jpg"]
    assert all(image.file.is_file() for image in read.images)
    assert read.problems.counts[Problem.NAME_FROM_ELSEWHERE] == 2
    given = open_detection_set(tmp_path / "train.json", images=tmp_path / "images")
    assert [image.file for image in given.images] == [image.file for image in read.images]


def test_folders_that_distinguish_images_are_kept(tmp_path):
    for folder, name in (("a", "chelsea.jpg"), ("b", "coffee.jpg")):
        (tmp_path / "images" / folder).mkdir(parents=True)
        shutil.copy(photographs() / name, tmp_path / "images" / folder / "x.jpg")
    listed = [
        image | {"file_name": f"D:\\set\\{folder}\\x.jpg"} for image, folder in zip(two_images(), "ab", strict=True)
    ]
    read = open_detection_set(written(tmp_path, content([], images=listed), photos=()))
    assert [image.file for image in read.images] == [tmp_path / "images" / folder / "x.jpg" for folder in "ab"]


FORMS = {
    "fractions": lambda x, y, w, h: [x / 400, y / 266, w / 400, h / 266],
    "corners": lambda x, y, w, h: [x, y, x + w, y + h],
    "centre": lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
}


@pytest.mark.parametrize("form", FORMS)
def test_boxes_in_another_form_are_refused_and_the_form_named(tmp_path, form):
    boxes = [[x, y, 60, 50] for x in (0, 100, 200, 340) for y in (0, 100, 216)]
    file = written(tmp_path, content([note(20, FORMS[form](*box)) for box in boxes]))
    with pytest.raises(InputError, match=rf"first: image 20, .*{form}|{form}.*first: image 20, "):
        open_detection_set(file)
    written(tmp_path, content([note(20, box) for box in boxes]))
    assert len(open_detection_set(file).images[0]) == 12


def test_areas_are_in_pixels_even_if_boxes_are_shares(tmp_path):
    """Azure's files give areas as shares of the image too."""
    note_of_share = note(20, [0.25, 0.5, 0.5, 0.25], area=0.125)
    read = open_detection_set(
        written(tmp_path, content([note_of_share])), reading=ReadingSettings(box_form="xywh-shares")
    )
    assert read.images[0].boxes.tolist() == [[100, 133, 300, 199.5]]
    assert read.images[0].areas.tolist() == [200 * 66.5]


def test_a_few_boxes_outside_are_not_another_form(tmp_path):
    boxes = [[300, 200, 200, 100], [1, 1, 390, 260], [350, 10, 80, 20], [0.1, 0.1, 0.5, 0.5]]
    read = open_detection_set(written(tmp_path, content([note(20, box) for box in boxes])))
    assert read.problems.counts == {Problem.CLIPPED: 2}


def test_boxes_that_only_touch_the_border_count_as_outside(tmp_path):
    """In floating point 600.1 - 640 + 39.9 is slightly more than 0."""
    left, top = [600.1 - 640, 5, 39.9, 20], [5, 600.1 - 640, 20, 39.9]
    right, bottom = [400 - 2e-14, 5, 20, 20], [5, 266 - 2e-14, 20, 20]
    kept = [[-39.9, 5, 39.95, 20], [3, 3, 0.02, 9]]
    tiny = [3, 3, 1e-9, 9]
    notes = [note(20, box) for box in (left, top, right, bottom, tiny, *kept)]
    read = open_detection_set(written(tmp_path, content(notes)))
    np.testing.assert_allclose(read.images[0].boxes, [[0, 5, 0.05, 25], [3, 3, 3.02, 12]], atol=1e-5)
    assert read.problems.counts == {Problem.OUTSIDE: 4, Problem.EMPTY_BOX: 1, Problem.CLIPPED: 1}


def test_entries_that_name_one_file_are_one_image(tmp_path):
    """Merged files repeat them, as do converters that write an entry for each row of a table."""
    cat, eye, cup = [5, 6, 100, 90], [50, 60, 7, 8], [1, 2, 30, 40]
    entry = two_images()[0]
    listed = [*two_images(), entry | {"id": 21, "file_name": "./chelsea.jpg"}, entry | {"id": 22}]
    notes = [note(20, cat), note(20, cat), note(10, cup, 7), note(21, cat), note(21, cat, 7), note(22, eye)]
    notes += [note(21, [float(side) for side in eye]), note(22, cat, iscrowd=1)]
    read = open_detection_set(written(tmp_path, content(notes, images=listed)))
    assert [one.image_id for one in read.images] == [20, 10]
    # all objects of the first entry, and of the later ones those that are new
    assert [(row[1], *row[2:6], row[6]) for row in objects(read) if row[0] == 20] == [
        (1, 5, 6, 105, 96, False),
        (1, 5, 6, 105, 96, False),
        (2, 5, 6, 105, 96, False),
        (1, 50, 60, 57, 68, False),
        (1, 5, 6, 105, 96, True),
    ]
    assert read.problems.counts == {Problem.SAME_FILE: 2, Problem.CROWD: 1}
    for seed in range(4):
        reading = ReadingSettings(val_share=0.5, val_seed=seed)
        file = tmp_path / "train.json"
        parts = [open_detection_set(file, split=part, reading=reading).images for part in ("train", "val")]
        assert sorted(one.file.name for part in parts for one in part) == ["chelsea.jpg", "coffee.jpg"]


def test_entries_that_name_one_file_but_differ_in_size(tmp_path):
    """The boxes of one entry are in another scale; the size of the image file says which."""
    other = two_images()[0] | {"id": 21, "width": 800, "height": 532}
    notes = [note(20, [1, 2, 3, 4]), note(21, [2, 4, 6, 8])]
    read = open_detection_set(written(tmp_path, content(notes, images=[*two_images(), other])))
    assert [(one.image_id, one.width, len(one)) for one in read.images] == [(20, 400, 1), (10, 400, 0)]
    assert read.problems.counts == {Problem.OTHER_SIZE: 1}
    read = open_detection_set(written(tmp_path, content(notes, images=[other, *two_images()])))
    assert [(one.image_id, one.width, len(one)) for one in read.images] == [(20, 400, 1), (10, 400, 0)]
    assert read.problems.counts == {Problem.OTHER_SIZE: 1}


def test_masks_away_from_their_boxes_are_replaced(tmp_path):
    notes = [
        note(20, [10, 10, 50, 50], segmentation=[[10, 10, 60, 10, 60, 60, 10, 60]]),
        note(20, [10, 10, 50, 50], segmentation=[[0.1, 0.1, 0.3, 0.1, 0.3, 0.3]]),
        note(20, [10, 10, 50, 50], segmentation={"size": [266, 400], "counts": [266 * 400]}),
        note(20, [10, 10, 50, 50], segmentation=[[0, 20, 8, 20, 8, 40, 0, 40]]),  # two pixels to the left
        note(20, [10, 10, 50, 50], segmentation=[[0, 20, 9.5, 20, 9.5, 40, 0, 40]]),  # half a pixel is rounding
    ]
    read = open_detection_set(written(tmp_path, content(notes)))
    assert read.problems.counts == {Problem.MASK_ELSEWHERE: 3}
    assert read.target(0)["masks"].sum((1, 2)).tolist() == [2500] * 4 + [10 * 20]


@pytest.mark.parametrize("missing", ["frequency", "neg_category_ids", "not_exhaustive_category_ids"])
def test_incomplete_lvis_fields_are_reported(tmp_path, missing):
    fields = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    whole = content([], images=two_images(**fields), categories=[one | {"frequency": "r"} for one in CATEGORIES])
    for entry in [*whole["images"], *whole["categories"]]:
        entry.pop(missing, None)
    read = open_detection_set(written(tmp_path, whole))
    assert read.style == ("coco" if missing == "neg_category_ids" else "lvis")
    assert missing in read.problems.first[Problem.PARTLY_LVIS]


def test_white_of_16_bit_images_is_found_and_reported(tmp_path, capsys):
    listed = [{"id": number, "file_name": f"{number}.png", "width": 40, "height": 30} for number in (1, 2)]
    file = written(tmp_path, content([note(1, [1, 1, 8, 8])], images=listed), photos=())
    for number, value in ((1, 1000), (2, 4095)):
        Image.fromarray(np.full((30, 40), value, np.uint16)).save(tmp_path / "images" / f"{number}.png")
    read = open_detection_set(file)
    assert [int(read.pixels(index)[0, 0, 0]) for index in range(2)] == [62, 255]
    assert "values up to 4,095" in capsys.readouterr().err


def test_classes_of_one_name_are_kept_apart_and_reported(tmp_path, capsys):
    content = json.loads(coco_file(tmp_path / "set.json", ("astronaut",)).read_text())
    content["categories"][0]["name"] = content["categories"][1]["name"] = "thing"
    (tmp_path / "set.json").write_text(json.dumps(content))
    read = open_detection_set(tmp_path / "set.json")
    assert [category.name for category in read.categories] == ["thing", "thing", "rocket"]
    assert "thing" in capsys.readouterr().err


def test_images_that_share_an_id_are_left_out(tmp_path):
    """Files merged without new ids have them; nobody can tell which image the objects belong to."""
    listed = [
        *two_images(),
        two_images()[0] | {"file_name": "coffee.jpg"},
        two_images()[1] | {"file_name": "./coffee.jpg"},
    ]
    read = open_detection_set(
        written(tmp_path, content([note(20, [5, 6, 10, 10]), note(10, [1, 2, 9, 9])], images=listed))
    )
    assert [(image.image_id, len(image)) for image in read.images] == [(10, 1)]
    assert read.problems.counts == {Problem.ONE_ID: 1, Problem.REPEATED_IMAGE: 1, Problem.UNKNOWN_IMAGE: 1}
    everything = [*two_images(), *(one | {"file_name": "other.jpg"} for one in two_images())]
    with pytest.raises(InputError, match=r"lists no usable image.*2 ×"):
        open_detection_set(written(tmp_path, content([note(20, [5, 6, 10, 10])], images=everything)))


def test_long_ids_may_be_text(tmp_path):
    listed = [
        two_images()[0] | {"id": 20180000337133 + n, "file_name": name} for n, name in enumerate(("chelsea.jpg",))
    ]
    read = open_detection_set(written(tmp_path, content([note("20180000337133", [5, 6, 10, 10])], images=listed)))
    assert len(read.images[0]) == 1


def test_class_named_none_is_a_class(tmp_path):
    """If no category has a supercategory."""
    read = open_detection_set(
        written(
            tmp_path,
            content([note(20, [5, 6, 10, 10])], categories=[{"id": 3, "name": "mask"}, {"id": 4, "name": "None"}]),
        )
    )
    assert [one.name for one in read.categories] == ["mask", "None"]


@pytest.mark.parametrize(
    ("groups", "used", "left_out"),
    [
        (["", "things", "things"], 2, ["things"]),
        (["", "things", "things"], 1, []),  # it has an object
        (["", "things", ""], 2, []),  # not the group of all others
    ],
)
def test_group_of_all_classes_is_no_class(tmp_path, groups, used, left_out):
    names = ["things", "cup", "cat"]
    categories = [
        {"id": k, "name": name, "supercategory": group}
        for k, (name, group) in enumerate(zip(names, groups, strict=True), 1)
    ]
    read = open_detection_set(written(tmp_path, content([note(20, [5, 6, 10, 10], used)], categories=categories)))
    assert [one.name for one in read.categories] == [name for name in names if name not in left_out]
    assert read.problems.counts == {Problem.PLACEHOLDER_CATEGORY: 1} if left_out else not read.problems


def test_cocos_own_box_form_is_not_read_as_another(tmp_path):
    """For example a validation set that is read with the box form of the training set."""
    boxes = [[20 + 20 * k, 10 + 8 * k, 90, 70] for k in range(12)]
    file = written(tmp_path, content([note(20, box) for box in boxes]))
    with pytest.raises(InputError, match=r"8 of 12 boxes.*x, y, width, height"):
        open_detection_set(file, reading=ReadingSettings(box_form="xyxy"))
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    file.write_text(json.dumps(content([note(20, box) for box in [*corners, *([[5, 5, 5, 5]] * 3)]])))
    (cat, _) = open_detection_set(file, reading=ReadingSettings(box_form="xyxy")).images
    assert cat.boxes.tolist() == corners


def test_trainval_file_beside_test_file(tmp_path):
    file = written(tmp_path, content([note(20, [5, 6, 10, 10])]))
    file.rename(tmp_path / "trainval.json")
    assert len(open_detection_set(tmp_path, split="all")) == 2
    (tmp_path / "test.json").write_text(json.dumps(content([note(20, [5, 6, 10, 10])], images=two_images()[:1])))
    assert [len(open_detection_set(tmp_path, split=split)) for split in ("train", "test")] == [2, 1]
