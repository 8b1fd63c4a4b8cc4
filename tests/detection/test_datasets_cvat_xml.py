"""CVAT's own XML, "CVAT for images 1.1", against hand-worked values."""

import numpy as np
import pytest
from PIL import Image
from tool_files import image, text

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.finetuning.labelled_sets import open_labelled_sets

BOX = '<box label="{}" source="manual" occluded="0" xtl="{}" ytl="{}" xbr="{}" ybr="{}" z_order="0"{}>{}</box>'
POLYGON = '<polygon label="{}" occluded="1" points="{}" z_order="1"{}></polygon>'
MASK = '<mask label="{}" occluded="0" rle="{}" left="{}" top="{}" width="{}" height="{}" z_order="0"></mask>'


def box(label="cat", corners=(10, 20, 60, 50), more="", inside=""):
    return BOX.format(label, *corners, more, inside)


def entry(name, *shapes, more="", size='width="400" height="266"'):
    return f'<image id="0" name="{name}"{more} {size}>{"".join(shapes)}</image>'


def label(name, kind="any", more=""):
    return f"<label><name>{name}</name><type>{kind}</type><attributes></attributes>{more}</label>"


def xml(*entries, labels=()):
    meta = f"<task><id>1</id><mode>annotation</mode><labels>{''.join(labels)}</labels></task>"
    head = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>{meta}</meta>'
    return f"{head}{''.join(entries)}\n</annotations>"


def write(root, *entries, files=("a.jpg",), labels=(), name="annotations.xml"):
    for file in files:
        image("chelsea", root / "images" / file)
    text(root / name, xml(*entries, labels=labels))
    return root


def read(given, split="all", **how):
    return open_detection_set(given, split=split, check_images=True, **how)


def boxes(data, index=0):
    found = data.images[index]
    sides = np.round(found.boxes, 2).tolist()
    return [(data.categories[k - 1].name, *b) for k, b in zip(found.labels.tolist(), sides, strict=True)]


@pytest.mark.parametrize("name", ["annotations.xml", "export.xml", "annotations/cats.xml"])
def test_folder_and_file_are_read(tmp_path, name):
    root = write(tmp_path / "cats", entry("a.jpg", box()), entry("b.jpg"), files=("a.jpg", "b.jpg"), name=name)
    for given in (root, root / name):
        data = read(given)
        assert (boxes(data), len(data.images[1])) == ([("cat", 10, 20, 60, 50)], 0)
        assert not data.problems
        assert not data.has_masks
    assert read(root).name == "cats"


def test_every_shape_with_an_area_is_an_object(tmp_path):
    runs = "1, 2, 2, 1, 2, 1, 1"  # rows of a mask 5 wide: .##.. / #..#. with the last point left out
    shapes = [
        box("k0"),
        POLYGON.format("k1", "100.00,100.00;140.00,100.00;100.00,160.00", ""),
        '<ellipse label="k2" occluded="0" cx="300.00" cy="100.00" rx="40.00" ry="10.00" rotation="90.00"></ellipse>',
        MASK.format("k3", runs, 7, 9, 5, 2),
    ]
    data = read(write(tmp_path, entry("a.jpg", *shapes)))
    assert [category.name for category in data.categories] == ["k0", "k1", "k2", "k3"]
    expected = [(10, 20, 60, 50), (100, 100, 140, 160), (290, 60, 310, 140), (7, 9, 11, 11)]
    assert np.allclose(data.images[0].boxes, expected, atol=0.01)
    assert np.allclose(data.images[0].areas, [1500, 1200, np.pi * 400, 4], rtol=0.01)
    mask = data.target(0)["masks"].numpy()[3]
    assert sorted(zip(*map(np.ndarray.tolist, np.nonzero(mask)), strict=True)) == [(9, 8), (9, 9), (10, 7), (10, 10)]
    assert data.problems.counts == {Problem.BROKEN_MASK: 1}  # the box, for which nobody drew an outline


def test_rotated_box_becomes_the_upright_box_around_it(tmp_path):
    """A box of 40 by 20 about (200, 100), turned by 90 and by 30 degrees."""
    turned = [box(corners=(180, 90, 220, 110), more=f' rotation="{angle}"') for angle in (90, 30)]
    data = read(write(tmp_path, entry("a.jpg", *turned)))
    half = 20 * np.cos(np.pi / 6) + 10 * 0.5, 20 * 0.5 + 10 * np.cos(np.pi / 6)
    expected = [(190, 80, 210, 120), (200 - half[0], 100 - half[1], 200 + half[0], 100 + half[1])]
    assert np.allclose(data.images[0].boxes, expected, atol=1e-3)
    assert data.problems.counts == {Problem.ROTATED: 2}


def test_other_shapes_are_counted_and_their_images_are_no_background(tmp_path):
    left_out = [
        '<polyline label="cat" occluded="0" points="1,1;50,1;50,50;1,2" z_order="0"></polyline>',
        '<points label="cat" occluded="0" points="5,5" z_order="0"></points>',
        '<cuboid label="cat" occluded="0" xtl1="1" ytl1="1" xbl1="1" ybl1="9" z_order="0"></cuboid>',
        '<skeleton label="cat" z_order="0"><points label="1" outside="0" points="3,3"></points></skeleton>',
        '<star label="cat" points="3,3;9,9;3,9"></star>',
        POLYGON.format("cat", "1,1;9,9", ""),
        POLYGON.format("cat", "1,1;9,9;a,b", ""),
        POLYGON.format("cat", "1,1;9,9;4", ""),
    ]
    entries = [
        entry("a.jpg", box(), *left_out),
        entry("b.jpg", *left_out),
        entry("c.jpg", '<tag label="cat" source="manual"></tag>', box("")),
        entry("d.jpg", '<tag label="good" source="manual"></tag>', box(more=' outside="1"')),
        entry("e.jpg", box(corners=(10, 20, "x", 50)), box(corners=(10, 20, 10, 50)), box(corners=(500, 1, 600, 9))),
    ]
    data = read(write(tmp_path, *entries, files=[f"{name}.jpg" for name in "abcde"]))
    assert [(len(one), one.unusable) for one in data.images] == [
        (1, False), (0, True), (0, True), (0, False), (0, True),
    ]  # fmt: skip
    assert [category.name for category in data.categories] == ["cat"]
    assert data.problems.counts == {
        Problem.NO_AREA: 2 * len(left_out),
        Problem.UNKNOWN_CATEGORY: 1,
        Problem.IGNORED: 1,
        Problem.BROKEN_BOX: 1,
        Problem.EMPTY_BOX: 1,
        Problem.OUTSIDE: 1,
    }


@pytest.mark.parametrize(
    "mask",
    [
        MASK.format("cat", "1, x", 10, 20, 50, 30),
        MASK.format("cat", "", 10, 20, 50, 30),
        MASK.format("cat", "0, 1501", 10, 20, 50, 30),
        MASK.format("cat", "-1, 5", 10, 20, 50, 30),
        MASK.format("cat", "0, 99999999999999999999", 10, 20, 50, 30),
        MASK.format("cat", "0, 4, 9223372036854775807, 9223372036854775807", 10, 20, 50, 30),
        MASK.format("cat", "0, 4", 10, 20, 50.5, 30),
    ],
)
def test_broken_mask_is_counted_and_its_box_is_used(tmp_path, mask):
    outline = POLYGON.format("cat", "100,100;140,100;100,160", "")
    data = read(write(tmp_path, entry("a.jpg", mask, outline)))
    assert np.round(data.images[0].boxes[0]).tolist() == [10, 20, 60, 50]
    assert data.problems.counts == {Problem.BROKEN_MASK: 1}


def test_mask_too_large_for_memory_is_refused_before_it_is_drawn(tmp_path):
    size = 'width="999999999" height="999999999"'
    shapes = [MASK.format("cat", f"0, {10**16}", 0, 0, 10**8, 10**8), box()]
    data = open_detection_set(write(tmp_path, entry("a.jpg", *shapes, size=size)), split="all")
    assert data.problems.counts == {Problem.BROKEN_OUTLINE: 1}


def test_shapes_of_a_group_with_one_label_are_one_object(tmp_path, capsys):
    """As in CVAT's exports to COCO, where a covered object has several parts."""
    group = ' group_id="3"'
    shapes = [
        POLYGON.format("cat", "10,10;20,10;20,20;10,20", group),
        POLYGON.format("cat", "40,10;60,10;60,20;40,20", group),
        POLYGON.format("dog", "100,10;120,10;120,20", group),
        box("cat", (200, 10, 220, 30)),
    ]
    data = read(write(tmp_path, entry("a.jpg", *shapes)))
    assert boxes(data) == [("cat", 10, 10, 60, 20), ("dog", 100, 10, 120, 20), ("cat", 200, 10, 220, 30)]
    assert data.images[0].areas.tolist()[0] == pytest.approx(100 + 200, rel=0.1)
    assert "1 groups of shapes" in capsys.readouterr().err
    turned = [box("cat", (180, 90, 220, 110), f'{group} rotation="90"'), box("cat", (230, 95, 240, 105), group)]
    assert boxes(read(write(tmp_path / "turned", entry("a.jpg", *turned)))) == [("cat", 190, 80, 240, 120)]


@pytest.mark.parametrize("place", [("1500", 100), ("0, 1500", 500)])
def test_empty_mask_of_a_group_does_not_enlarge_its_box(tmp_path, place):
    """Neither one without a pixel, nor one outside the image."""
    runs, left = place
    mask = MASK.format("cat", runs, left, 100, 50, 30).replace("></mask>", ' group_id="1"></mask>')
    shapes = [mask, box("cat", (200, 100, 250, 130), ' group_id="1"')]
    assert boxes(read(write(tmp_path, entry("a.jpg", *shapes)))) == [("cat", 200, 100, 250, 130)]


def test_crowds_are_marked_by_an_attribute(tmp_path):
    crowd = [box(inside=f'<attribute name="is_crowd">{value}</attribute>') for value in ("true", "false", "1")]
    data = read(write(tmp_path, entry("a.jpg", *crowd, box())))
    assert data.images[0].crowd.tolist() == [True, False, True, False]


def test_classes_are_those_of_labels_for_shapes(tmp_path):
    labels = [
        label("cow"),
        label("dog", "rectangle"),
        label("face", "skeleton"),
        label("nose", "any", "<parent>face</parent>"),
        label("good", "tag"),
    ]
    data = read(write(tmp_path, entry("a.jpg", box("cat")), labels=labels))
    assert [category.name for category in data.categories] == ["cat", "cow", "dog"]


def test_subsets_of_a_project_are_splits(tmp_path):
    """CVAT puts the images of each subset into a folder of its own; frames may have the same name in two."""
    files = ("Train/a.jpg", "Validation/a.jpg", "extra/b.jpg")
    entries = [
        entry("a.jpg", box("dog"), more=' subset="Train" task_id="1"'),
        entry("a.jpg", box("cat", (100, 100, 200, 200)), more=' subset="Validation" task_id="2"'),
        entry("b.jpg", box("cow"), more=' subset="extra" task_id="3"'),
    ]
    root = write(tmp_path, *entries, files=files)
    for given in (root, root / "annotations.xml"):
        sets = {split: read(given, split) for split in ("train", "val", "validation", "extra")}
        assert [boxes(data)[0][0] for data in sets.values()] == ["dog", "cat", "cat", "cow"]
        assert [str(one.images[0].file.relative_to(root)) for one in sets.values()] == [
            f"images/{file}" for file in (files[0], files[1], files[1], files[2])
        ]
        assert {tuple(one.name for one in data.categories) for data in sets.values()} == {("cat", "cow", "dog")}
        with pytest.raises(InputError, match=r"train.*val.*extra"):
            open_detection_set(given)
    training, validation = open_labelled_sets(root / "annotations.xml", None, None)
    assert [len(one) for one in (training, validation)] == [1, 1]
    assert training.images[0].file != validation.images[0].file


def test_one_subset_is_no_split(tmp_path):
    root = write(tmp_path, entry("a.jpg", box(), more=' subset="default"'), files=("default/a.jpg",))
    assert boxes(read(root)) == [("cat", 10, 20, 60, 50)]
    training, validation = open_labelled_sets(root / "annotations.xml", None, None)
    assert (len(training), validation) == (1, None)


def test_subsets_that_would_be_one_split_keep_their_names(tmp_path):
    parts = {"Training": "dog", "train": "cat", "Val": "cow"}
    entries = [entry(f"{part}.jpg", box(label), more=f' subset="{part}"') for part, label in parts.items()]
    root = write(tmp_path, *entries, files=[f"{part}/{part}.jpg" for part in parts])
    found = {split: boxes(read(root, split))[0][0] for split in ("Training", "train", "val")}
    assert found == {"Training": "dog", "train": "cat", "val": "cow"}


def test_images_of_no_subset_are_those_of_the_default_one(tmp_path):
    """As CVAT calls it."""
    entries = [entry("a.jpg", box("dog")), entry("b.jpg", box("cat"), more=' subset="Train"')]
    root = write(tmp_path, *entries, files=("a.jpg", "Train/b.jpg"))
    assert [boxes(read(root, split))[0][0] for split in ("default", "train")] == ["dog", "cat"]


def test_images_of_a_subset_need_no_folder_of_their_own(tmp_path):
    entries = [entry(f"{name}.jpg", box(), more=f' subset="{part}"') for name, part in (("a", "Train"), ("b", "Test"))]
    data = read(write(tmp_path, *entries, files=("a.jpg", "b.jpg")), "train")
    assert [one.file.name for one in data.images] == ["a.jpg"]


def test_splits_of_folders_have_the_classes_of_all(tmp_path):
    write(tmp_path / "train", entry("a.jpg", box("dog")))
    write(tmp_path / "val", entry("a.jpg", box("cat")))
    assert [boxes(read(tmp_path, split))[0][0] for split in ("train", "val")] == ["dog", "cat"]
    assert [category.name for category in read(tmp_path, "train").categories] == ["cat", "dog"]


def test_frames_of_a_video_have_no_suffix_in_the_file(tmp_path):
    image("chelsea", tmp_path / "images" / "frame_000000.jpg")
    text(tmp_path / "annotations.xml", xml(entry("frame_000000", box())))
    with pytest.raises(InputError, match=r"none of its images, such as frame_000000\.PNG"):
        read(tmp_path)
    Image.open(tmp_path / "images" / "frame_000000.jpg").save(tmp_path / "images" / "frame_000000.PNG")
    (tmp_path / "images" / "frame_000000.jpg").unlink()
    assert boxes(read(tmp_path)) == [("cat", 10, 20, 60, 50)]


def test_images_that_share_a_name_are_left_out(tmp_path):
    """As in files joined by hand; the objects of one would be taken for those of the other."""
    entries = [entry("a.jpg", box(), more=' task_id="1"'), entry("a.jpg", box("dog"), more=' task_id="2"')]
    data = read(write(tmp_path, *entries, entry("b.jpg", box()), files=("a.jpg", "b.jpg")))
    assert [one.file.name for one in data.images] == ["b.jpg"]
    assert data.problems.counts == {Problem.ONE_NAME: 2}


def test_sizes_that_are_missing_or_wrong(tmp_path):
    entries = [
        entry("a.jpg", MASK.format("cat", "0, 6", 3, 4, 3, 2), size=""),
        entry("b.jpg", box(), size='width="266" height="400"'),
        entry("", box()),
    ]
    data = read(write(tmp_path, *entries, files=("a.jpg", "b.jpg")))
    assert boxes(data) == [("cat", 3, 4, 6, 6)]
    assert data.problems.counts == {
        Problem.SIZE_FROM_FILE: 1,
        Problem.BROKEN_IMAGE: 1,
        Problem.BROKEN_IMAGE_ENTRY: 1,
        Problem.UNKNOWN_IMAGE: 1,
        Problem.BROKEN_MASK: 1,
    }


TRACK = '<track id="0" label="cat" source="manual"><box frame="0" keyframe="1" outside="0" xtl="1"></box></track>'


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (xml(TRACK), "CVAT for video.*CVAT for images 1.1"),  # of images, whose names it lacks
        (xml(entry("a.jpg", box()), TRACK), "CVAT for video"),
        (xml(entry("a.jpg")), "no box"),
        (xml(labels=[label("cat")]), "no usable image"),
        (xml(entry("a.jpg", box()))[:-9], "not valid XML"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, what):
    image("chelsea", tmp_path / "images" / "a.jpg")
    text(tmp_path / "annotations.xml", content)
    for given in (tmp_path, tmp_path / "annotations.xml"):
        with pytest.raises(InputError, match=what) as caught:
            read(given)
        assert "\n" not in str(caught.value)


def test_comments_before_the_first_element(tmp_path):
    root = write(tmp_path, entry("a.jpg", box()))
    for element in ("<annotations>", "<version>"):
        commented = f"<!-- <joined> by\nhand --><!-- -->\n{element}"
        text(root / "annotations.xml", xml(entry("a.jpg", box())).replace(element, commented))
        assert boxes(read(root)) == [("cat", 10, 20, 60, 50)]


def test_entities_are_not_expanded(tmp_path):
    """A file that declares entities is none of CVAT's."""
    bomb = '<!DOCTYPE annotations [<!ENTITY a "cat"><!ENTITY b "&a;&a;&a;">]>'
    image("chelsea", tmp_path / "images" / "a.jpg")
    head, _, rest = xml(entry("a.jpg", box("&b;"))).partition("\n")
    text(tmp_path / "annotations.xml", head, bomb, rest)
    for given in (tmp_path, tmp_path / "annotations.xml"):
        with pytest.raises(InputError):
            read(given)


def test_box_form_is_fixed(tmp_path):
    root = write(tmp_path, entry("a.jpg", box()))
    for given in (root, root / "annotations.xml"):
        with pytest.raises(InputError, match="box form is fixed"):
            read(given, reading=ReadingSettings(box_form="xywh"))


def test_convert_writes_the_same_objects(tmp_path):
    shapes = [box(), POLYGON.format("dog", "100,100;140,100;100,160", ""), MASK.format("dog", "0, 6", 3, 4, 3, 2)]
    write(tmp_path / "set", entry("a.jpg", *shapes))
    main(["convert", str(tmp_path / "set"), "--output", str(tmp_path / "coco.json"), "--quiet"])
    data = read(tmp_path / "coco.json")
    assert boxes(data) == [("cat", 10, 20, 60, 50), ("dog", 100, 100, 140, 160), ("dog", 3, 4, 6, 6)]
    assert data.target(0)["masks"].numpy()[2].sum() == 6
