import dataclasses

import pytest
from hand_made_sets import made_image, made_set

from socodet.detection.datasets.annotations import Category
from socodet.detection.datasets.classes import match_classes
from socodet.detection.datasets.masks import box_outline
from socodet.detection.datasets.problems import Problem
from socodet.errors import InputError


def named(names, rows=(), ids=None, **more):
    """A dataset of one image with an object for each (label, x1), whose classes have these names."""
    boxes = [(x1, 1, x1 + 5, 9, label) for label, x1 in rows]
    masks = [box_outline(box[:4]) for box in boxes]
    data = made_set([made_image(1, boxes, masks=masks, **more)], "coco", classes=len(names))
    ids = ids or range(1, len(names) + 1)
    categories = tuple(Category(one, name) for one, name in zip(ids, names, strict=True))
    return dataclasses.replace(data, name="val", categories=categories)


def objects(data):
    (image,) = data.images
    return [
        (data.categories[label - 1].name, x1, mask[0][0])
        for label, x1, mask in zip(image.labels.tolist(), image.boxes[:, 0].tolist(), image.masks, strict=True)
    ]


TRAINED = named(["cat", "dog", "cow"])


def test_same_classes_are_left_alone(capsys):
    scored = named(["cat", "dog", "cow"], [(2, 10)], ids=[7, 8, 9])
    assert match_classes(TRAINED, scored) is scored
    assert capsys.readouterr().err == ""


def test_classes_in_another_order_are_matched_by_name(capsys):
    scored = named(["cow", "cat", "dog"], [(1, 10), (2, 20), (3, 30)], absent=[1], incomplete=[3])
    matched = match_classes(TRAINED, scored)
    assert [(one.id, one.name) for one in matched.categories] == [(2, "cat"), (3, "dog"), (1, "cow")]
    assert objects(matched) == objects(scored) == [("cow", 10, 10), ("cat", 20, 20), ("dog", 30, 30)]
    assert (matched.images[0].absent, matched.images[0].incomplete) == ({3}, {2})
    assert "val: classes matched by name" in capsys.readouterr().err


def test_missing_and_additional_classes(capsys):
    scored = named(["dog", "bird", "cat"], [(1, 10), (2, 20), (3, 30), (2, 40)], ids=[3, 5, 6])
    matched = match_classes(TRAINED, scored)
    assert [(one.id, one.name) for one in matched.categories] == [(6, "cat"), (3, "dog"), (7, "cow")]
    assert objects(matched) == [("dog", 10, 10), ("cat", 30, 30)]
    assert matched.problems.counts == {Problem.UNKNOWN_CATEGORY: 2}
    printed = capsys.readouterr().err
    assert "it lacks cow; 2 objects of classes that only it has were left out: bird" in printed


def test_unmatched_classes_are_refused():
    for names, why in ((["bird", "fish"], "none in common"), (["cat", "cat"], "share a name")):
        with pytest.raises(InputError, match=why):
            match_classes(TRAINED, named(names))


def test_classes_that_differ_only_in_spelling_are_reported(capsys):
    match_classes(TRAINED, named(["Cat ", "dog", "bird"], [(1, 10)]))
    assert "'cat' and 'Cat '" in capsys.readouterr().err
    with pytest.raises(InputError, match="'cat' and 'CAT'"):
        match_classes(TRAINED, named(["CAT", "bird"]))
