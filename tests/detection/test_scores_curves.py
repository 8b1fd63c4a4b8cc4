"""Precision-recall curves against a hand-worked case and COCO's evaluation."""

import numpy as np
import pytest
import torch
from hand_made_sets import found, made_image, made_set, random_case
from torchvision.ops import box_iou

from socodet.detection.scores import Detections
from socodet.detection.scores.coco import evaluate_coco, evaluate_lvis
from socodet.detection.scores.outcomes import outcome, precision_recall, threshold_text


def curve_of(data, predictions, label=None):
    in_order = [predictions.get(image.image_id, Detections.none()) for image in data.images]
    outcomes = [outcome(image, one, data.style) for image, one in zip(data.images, in_order, strict=True)]
    return precision_recall(data.images, in_order, outcomes, label)


def test_curve_by_hand():
    """Two objects; in order a true, a false and a true positive. One on a crowd is ignored."""
    image = made_image(1, [(0, 0, 10, 10, 1), (20, 20, 30, 30, 1), (50, 50, 90, 90, 1, "crowd")])
    rows = [(0, 0, 10, 10, 0.9, 1), (70, 0, 80, 10, 0.8, 1), (20, 20, 30, 30, 0.7, 1), (55, 55, 65, 65, 0.95, 1)]
    curve = curve_of(made_set([image], "coco"), {1: found(rows)})
    assert curve.objects == 2
    np.testing.assert_allclose(curve.recall, [0.5, 0.5, 1.0])
    np.testing.assert_allclose(curve.precision, [1.0, 2 / 3, 2 / 3])
    assert curve.average_precision == pytest.approx(100 * (51 * 1.0 + 50 * 2 / 3) / 101)
    assert curve.at(0.75) == (2, 1)
    assert curve.at(0.99) == (0, 0)


@pytest.mark.parametrize(("side", "ap"), [(5, 100), (4.9, 0)])
def test_overlap_of_exactly_a_half_is_a_match_as_for_coco(side, ap):
    data, predictions = made_set([made_image(1, [(0, 0, 10, 10, 1)])], "coco"), {1: found([(0, 0, 10, side, 0.9, 1)])}
    assert curve_of(data, predictions).average_precision == evaluate_coco(data, predictions)["box_AP50"] == ap


def test_only_annotated_classes_count_in_lvis():
    """Class 1 has an object, 2 is known to be absent, 3 is not exhaustively annotated; nothing is known of 4."""
    image = made_image(1, [(0, 0, 10, 10, 1), (20, 20, 30, 30, 3)], absent=(2,), incomplete=(3,))
    rows = [(50, 50, 60, 60, 0.9, label) for label in (1, 2, 3, 4)] + [(20, 20, 30, 30, 0.8, 3)]
    of = {style: outcome(image, found(rows), style) for style in ("lvis", "coco")}
    assert of["lvis"].true_positive.tolist() == of["coco"].true_positive.tolist() == [False] * 4 + [True]
    assert of["lvis"].ignored.tolist() == [False, False, True, True, False]
    assert not of["coco"].ignored.any()


@pytest.mark.parametrize("seed", range(5))
def test_ap_of_a_class_matches_lvis(seed):
    data, predictions = random_case(np.random.default_rng(seed), style="lvis", marks=("",), frequencies=["r", "c", "f"])
    lvis = evaluate_lvis(data, predictions).of_classes
    for label, category in enumerate(data.categories, 1):
        assert curve_of(data, predictions, label).average_precision == pytest.approx(lvis[category.name]["box_AP50"])


@pytest.mark.parametrize("seed", range(5))
def test_ap_of_a_class_matches_coco(seed):
    data, predictions = random_case(np.random.default_rng(seed), style="coco", marks=("",))
    coco = evaluate_coco(data, predictions).of_classes
    for label, category in enumerate(data.categories, 1):
        assert curve_of(data, predictions, label).average_precision == pytest.approx(coco[category.name]["box_AP50"])


def test_curve_without_detections_or_objects():
    empty = made_set([made_image(1, []), made_image(2, [(0, 0, 10, 10, 1)])], "coco", classes=2)
    assert curve_of(empty, {}).average_precision == 0
    assert curve_of(empty, {}, 2).average_precision is None


def test_detections_of_equal_scores_are_kept_or_dropped_together():
    """No threshold separates equal scores, so an F1 between them cannot be reached."""
    image = made_image(1, [(0, 0, 10, 10, 1), (50, 50, 60, 60, 1)])
    rows = [(0, 0, 10, 10, 0.9, 1), (20, 0, 30, 10, 0.9, 1), (50, 50, 60, 60, 0.5, 1), (70, 0, 80, 10, 0.5, 1)]
    curve = curve_of(made_set([image], "coco"), {1: found(rows)})
    # from 0.9 up: 1 true positive, 2 detections, 2 objects, F1 2 / 4; from 0.5 up: 2, 4 and 2, 4 / 6
    assert curve.best == pytest.approx((0.5, 4 / 6))
    for limit, f1 in ((0.9, 0.5), (0.5, 4 / 6)):
        count, true_positives = curve.at(limit)
        assert 2 * true_positives / (count + curve.objects) == pytest.approx(f1)


def plain_outcome(image, detections):
    """True positives, ignored detections, and the scores at which objects were found, in plain loops."""
    hit, ignored, found_at = [False] * len(detections), [False] * len(detections), [-1.0] * len(image)
    for k in sorted(range(len(detections)), key=lambda k: -detections.scores[k]):
        mine, best = torch.from_numpy(detections.boxes[k : k + 1]), None
        for place, box in enumerate(torch.from_numpy(image.boxes)):
            if image.labels[place] != detections.labels[k]:
                continue
            overlap = float(box_iou(mine, box[None]))
            if image.crowd[place]:
                sides = torch.minimum(mine[0, 2:], box[2:]) - torch.maximum(mine[0, :2], box[:2])
                overlap = float(sides.clamp(min=0).prod() / (mine[0, 2:] - mine[0, :2]).prod())
            if image.crowd[place] or image.difficult[place]:
                ignored[k] |= overlap >= 0.5
            elif found_at[place] < 0 and overlap >= 0.5 and (best is None or overlap > best[0]):
                best = overlap, place
        if best is not None:
            hit[k], ignored[k], found_at[best[1]] = True, False, detections.scores[k]
    return hit, ignored, found_at


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_match_plain_loops(seed):
    marks = ("", "", "crowd", "difficult")
    data, predictions = random_case(np.random.default_rng(seed), style="coco", classes=2, images=20, marks=marks)
    for image in data.images:
        mine = outcome(image, predictions[image.image_id])
        expected = plain_outcome(image, predictions[image.image_id])
        for got, wanted in zip((mine.true_positive, mine.ignored, mine.found_at), expected, strict=True):
            np.testing.assert_array_equal(got, np.array(wanted, got.dtype))


def test_score_limit_as_text_keeps_the_detection_with_that_score():
    """Rounding 0.996 up to 1.00 would drop that detection, and perhaps all."""
    scores = np.random.default_rng(0).random(2000).astype(np.float32)
    near_one = 1 - scores[:500] / 100
    for score in (*scores, *near_one, np.float32(1), np.float32(0.7), np.float32(0)):
        text = threshold_text(float(score))
        assert score >= float(text) > score - np.float32(0.01)
    assert [threshold_text(score) for score in (0.6, 0.8468, 0.9967, 0.0012)] == ["0.60", "0.84", "0.9967", "0.0012"]
