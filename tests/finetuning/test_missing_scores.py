"""Scores shown as `-` come with a reason: which objects the dataset lacks."""

import pytest
from hand_made_sets import found, made_image, made_set

from socodet.commands.messages import print_scores
from socodet.detection.scores import evaluate
from socodet.finetuning.evaluate import Evaluation


def evaluation_of(images, style="coco", classes=2, **more):
    data = made_set(images, style, classes=classes, **more)
    scores = evaluate(data, {images[0].image_id: found([(10, 10, 50, 50, 0.9, 1)])})
    return Evaluation.of(scores, [])


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([(10, 10, 50, 50, 1), (2, 2, 9, 9, 2)], "-: the dataset has no object that is large, above 96x96 pixels"),
        ([(10, 10, 50, 50, 1)], "-: the dataset has no object of 1 class (kind 2), none that is small"),
        ([(10, 10, 50, 50, 1, "crowd")], "-: the dataset has no object of 2 classes (kind 1, kind 2); crowd regions"),
        ([], "-: the dataset has no object of 2 classes"),
    ],
)
def test_missing_objects_are_named(capsys, objects, message):
    print_scores(evaluation_of([made_image(1, objects)]), None)
    assert message in capsys.readouterr().out


def test_objects_marked_difficult_count_as_missing(capsys):
    print_scores(evaluation_of([made_image(1, [(10, 10, 50, 50, 1, "difficult"), (10, 10, 50, 50, 2)])], "voc"), None)
    assert "no object of 1 class (kind 1); crowd regions and objects marked difficult" in capsys.readouterr().out


def test_missing_lvis_frequencies_are_named(capsys):
    images = [made_image(1, [(10, 10, 50, 50, 1)])]
    print_scores(evaluation_of(images, "lvis", frequencies=["f", "f"]), None)
    assert "none of a rare class, none of a common class" in capsys.readouterr().out


def test_no_reason_is_given_if_all_scores_are_numbers(capsys):
    sides = (10, 50, 120)
    objects = [(0, 0, side, side, label) for side in sides for label in (1, 2)]
    print_scores(evaluation_of([made_image(1, objects, size=(200, 200))]), None)
    assert "-:" not in capsys.readouterr().out
