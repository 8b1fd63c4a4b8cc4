import numpy as np
import pytest
from hand_made_sets import found, made_image, made_set, random_case

from socodet.detection.scores import evaluate

LEFT, RIGHT, FAR = (10, 10, 40, 40), (60, 10, 90, 40), (10, 60, 40, 90)


def test_detection_counts_only_where_its_class_was_annotated():
    """A higher-scored detection in the second image: a false positive if its class is known absent, else ignored."""
    wrong = {1: found([(*LEFT, 0.5, 1)]), 2: found([(*LEFT, 0.9, 1)])}
    unknown = made_set([made_image(1, [(*LEFT, 1)]), made_image(2, [])], "lvis", frequencies="f")
    assert evaluate(unknown, wrong)["box_AP"] == pytest.approx(100)
    absent = made_set([made_image(1, [(*LEFT, 1)]), made_image(2, [], absent=[1])], "lvis", frequencies="f")
    assert evaluate(absent, wrong)["box_AP"] == pytest.approx(50)


def test_false_positives_of_incompletely_annotated_classes_do_not_count():
    guesses = {1: found([(*LEFT, 0.5, 1), (*FAR, 0.9, 1)])}
    whole = made_set([made_image(1, [(*LEFT, 1)])], "lvis", frequencies="f")
    partly = made_set([made_image(1, [(*LEFT, 1)], incomplete=[1])], "lvis", frequencies="f")
    assert evaluate(whole, guesses)["box_AP"] == pytest.approx(50)
    assert evaluate(partly, guesses)["box_AP"] == pytest.approx(100)


def test_rare_common_and_frequent_classes_are_scored_separately():
    objects = [(*LEFT, 1), (*RIGHT, 2), (*FAR, 3)]
    ours = made_set([made_image(1, objects)], "lvis", classes=4, frequencies="rcfr")
    scores = evaluate(ours, {1: found([(*LEFT, 0.9, 1), (*FAR, 0.9, 3), (60, 10, 90, 28, 0.9, 2)])})
    # class 2 is found with IoU 0.6, at or above 3 of 10 thresholds; class 4 has no object
    assert [scores[f"box_AP{f}"] for f in "rcf"] == pytest.approx([100, 30, 100])
    assert scores["box_AP"] == pytest.approx(230 / 3)


def test_three_hundred_detections_of_all_classes_count_per_image():
    ours = made_set([made_image(1, [(*LEFT, 1)])], "lvis", classes=2, frequencies="ff")
    noise = [(*FAR, 0.9, 2)]
    assert evaluate(ours, {1: found([(*LEFT, 0.5, 1), *noise * 299])})["box_AP"] == pytest.approx(100)
    assert evaluate(ours, {1: found([(*LEFT, 0.5, 1), *noise * 300])})["box_AP"] == 0


def slow_precision(dataset, predictions, label, threshold):
    """(101,) or None: LVIS's matching in plain loops over images and detections, objects of any size."""
    hits, total = [], 0
    for image in dataset.images:
        objects = [box for box, kind in zip(image.boxes.tolist(), image.labels.tolist(), strict=True) if kind == label]
        if not objects and label not in image.absent:
            continue
        total += len(objects)
        taken = set()
        one = predictions[image.image_id]
        rows = zip(one.scores.tolist(), one.boxes.tolist(), one.labels.tolist(), strict=True)
        for score, box, _ in sorted((row for row in rows if row[2] == label), reverse=True):
            overlaps = [(iou(box, thing), k) for k, thing in enumerate(objects) if k not in taken]
            most, which = max(overlaps, default=(0.0, -1))
            if most >= threshold:
                taken.add(which)
                hits.append((score, True))
            elif label not in image.incomplete:
                hits.append((score, False))
    if not total:
        return None
    curve, right = [], 0
    for place, (_, hit) in enumerate(sorted(hits, reverse=True), 1):
        right += hit
        curve.append((right, right / place))
    return [max((p for r, p in curve if r / total >= t / 100), default=0.0) for t in range(101)]


def iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared)


@pytest.mark.parametrize("seed", range(3))
def test_lvis_scores_match_plain_loops(seed):
    generator = np.random.default_rng(seed)
    ours, predictions = random_case(generator, style="lvis", marks=("",), classes=4, frequencies="rcff")
    by_label = {}
    for label in (1, 2, 3, 4):
        rows = [slow_precision(ours, predictions, label, 0.5 + 0.05 * step) for step in range(10)]
        if rows[0] is not None:
            by_label[label] = 100 * np.array(rows)
    scores = evaluate(ours, predictions)
    assert scores["box_AP"] == pytest.approx(np.mean([rows.mean() for rows in by_label.values()]))
    assert scores["box_AP50"] == pytest.approx(np.mean([rows[0].mean() for rows in by_label.values()]))
    assert scores["box_APr"] == pytest.approx(by_label[1].mean())
    of_classes = list(scores.of_classes.values())
    for label, rows in by_label.items():
        assert of_classes[label - 1]["box_AP"] == pytest.approx(rows.mean())
    assert scores["box_APf"] == pytest.approx((by_label[3].mean() + by_label[4].mean()) / 2)
    assert 5 < scores["box_AP"] < 95
