import numpy as np
import pytest
from hand_made_sets import found, made_image, made_set, random_case

from socodet.detection.scores import evaluate, voc

LEFT, RIGHT, FAR = (10, 10, 40, 40), (60, 10, 90, 40), (10, 60, 40, 90)


def test_ap_with_one_of_two_objects_found():
    """Recall 0.5 at precision 1: six of the eleven recalls (0, 0.1, …, 0.5) have precision 1, the others 0."""
    ours = made_set([made_image("a", [(*LEFT, 1), (*RIGHT, 1)])], "voc")
    scores = evaluate(ours, {"a": found([(*LEFT, 0.9, 1)])})
    assert scores == pytest.approx({"box_AP": 600 / 11, "box_AP50": 600 / 11, "box_AP75": 600 / 11})


def test_difficult_object_neither_counts_nor_penalises():
    """If the difficult one were an ordinary object, AP would be lower with or without its detection."""
    ours = made_set([made_image("a", [(*LEFT, 1), (*RIGHT, 1, "difficult")])], "voc")
    sure = (*LEFT, 0.5, 1)
    assert evaluate(ours, {"a": found([sure])})["box_AP50"] == pytest.approx(100)
    hits = [(*RIGHT, 0.9, 1), (*RIGHT, 0.8, 1)]  # the second does not count as a duplicate either
    assert evaluate(ours, {"a": found([sure, *hits])})["box_AP50"] == pytest.approx(100)
    missed = [(*FAR, 0.9, 1)]  # a false positive with a higher score than the true one
    assert evaluate(ours, {"a": found([sure, *missed])})["box_AP50"] == pytest.approx(50)


def test_second_hit_of_an_object_is_a_false_positive():
    ours = made_set([made_image("a", [(*LEFT, 1)]), made_image("b", [(*LEFT, 1)])], "voc")
    twice = found([(*LEFT, 0.9, 1), (*LEFT, 0.8, 1)])
    # true, false, true: precision 1 up to recall 0.5 (6 recalls), 2/3 for the 5 beyond
    scores = evaluate(ours, {"a": twice, "b": found([(*LEFT, 0.7, 1)])})
    assert scores["box_AP50"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


def test_detection_goes_to_its_best_overlap_even_if_that_is_taken():
    """COCO would match the second detection to the neighbouring object; VOC does not."""
    near_left = (13, 10, 43, 40)
    ours = made_set([made_image("a", [(*LEFT, 1), (*near_left, 1)])], "voc")
    scores = evaluate(ours, {"a": found([(*LEFT, 0.9, 1), (11, 10, 41, 40, 0.8, 1)])})
    assert scores["box_AP50"] == pytest.approx(600 / 11)  # recall 0.5, then a false positive


def test_iou_must_exceed_the_threshold_in_whole_pixels():
    """An object of 10x10 pixels and a detection of 10x20: IoU is exactly 1/2, not above it."""
    ours = made_set([made_image("a", [(10, 10, 20, 20, 1)])], "voc")
    assert evaluate(ours, {"a": found([(10, 10, 20, 30, 0.9, 1)])})["box_AP50"] == 0
    assert evaluate(ours, {"a": found([(10, 10, 20, 29, 0.9, 1)])})["box_AP50"] == pytest.approx(100)


def test_scores_and_corners_are_rounded_as_in_result_files():
    """The false positive's score is 0.0002 higher, equal in three digits, so the earlier image comes first."""
    ours = made_set([made_image("a", [(*LEFT, 1)]), made_image("b", [])], "voc")
    guesses = {"a": found([(*LEFT, 0.5001, 1)]), "b": found([(*LEFT, 0.5003, 1)])}
    assert evaluate(ours, guesses)["box_AP50"] == pytest.approx(100)
    # 30 of slightly less than 60 rows: IoU is above 1/2 only before rounding
    tall = made_set([made_image("a", [(0, 0, 10, 30, 1)])], "voc")
    assert evaluate(tall, {"a": found([(0, 0, 10, 59.96, 0.9, 1)])})["box_AP50"] == 0
    assert evaluate(tall, {"a": found([(0, 0, 10, 59.94, 0.9, 1)])})["box_AP50"] == pytest.approx(100)


def test_classes_with_objects_are_averaged_equally():
    ours = made_set([made_image("a", [(*LEFT, 1), (*RIGHT, 1), (*FAR, 2)])], "voc", classes=3)
    scores = evaluate(ours, {"a": found([(*LEFT, 0.9, 1), (*RIGHT, 0.8, 1), (*FAR, 0.9, 3)])})
    assert scores["box_AP"] == pytest.approx(50)  # 100 and 0; nothing of class 3
    nothing = made_set([made_image("a", [])], "voc")
    assert np.isnan(evaluate(nothing, {})["box_AP"])


def slow_ap(dataset, predictions, label, threshold):
    """The development kit's loop over detections, with its 1-based inclusive corners."""
    rows = [
        (score, image.image_id, [float(f"{side:.1f}") for side in box])
        for image in dataset.images
        for box, score, kind in zip(
            predictions[image.image_id].boxes.tolist(),
            predictions[image.image_id].scores.tolist(),
            predictions[image.image_id].labels.tolist(),
            strict=True,
        )
        if kind == label
    ]
    objects = {
        image.image_id: [
            {"box": (x1 + 1, y1 + 1, x2, y2), "difficult": difficult, "taken": False}
            for (x1, y1, x2, y2), kind, difficult in zip(
                image.boxes.tolist(), image.labels.tolist(), image.difficult.tolist(), strict=True
            )
            if kind == label
        ]
        for image in dataset.images
    }
    total = sum(not thing["difficult"] for things in objects.values() for thing in things)
    curve, right, wrong = [], 0, 0
    for _, image_id, (x1, y1, x2, y2) in sorted(rows, key=lambda row: -row[0]):
        best, most = None, -1.0
        for thing in objects[image_id]:
            a, b, c, d = thing["box"]
            width = max(min(c, x2) - max(a, x1 + 1) + 1, 0)
            height = max(min(d, y2) - max(b, y1 + 1) + 1, 0)
            union = (c - a + 1) * (d - b + 1) + (x2 - x1) * (y2 - y1) - width * height
            if width * height / union > most:
                best, most = thing, width * height / union
        if best is not None and most > threshold:
            if not best["difficult"]:
                right, wrong = (right, wrong + 1) if best["taken"] else (right + 1, wrong)
                best["taken"] = True
        else:
            wrong += 1
        curve.append((right / total, right / max(right + wrong, 1)))
    return sum(max((p for r, p in curve if r >= t * 0.1), default=0.0) for t in range(11)) / 11


@pytest.mark.parametrize("seed", range(3))
def test_voc_scores_match_plain_loops(seed):
    generator = np.random.default_rng(seed)
    ours, predictions = random_case(generator, style="voc", marks=("", "", "difficult"))
    thresholds = [0.5 + 0.05 * step for step in range(10)]
    by_class = 100 * np.array([[slow_ap(ours, predictions, label, t) for t in thresholds] for label in (1, 2, 3)])
    aps = by_class.mean(0)
    scores = evaluate(ours, predictions)
    assert scores == pytest.approx({"box_AP": aps.mean(), "box_AP50": aps[0], "box_AP75": aps[5]})
    assert [one["box_AP"] for one in scores.of_classes.values()] == pytest.approx(by_class.mean(1))
    assert [one["box_AP50"] for one in scores.of_classes.values()] == pytest.approx(by_class[:, 0])
    assert 5 < scores["box_AP"] < 95


def test_class_is_matched_only_in_images_that_have_it(monkeypatch):
    """With hundreds of classes and thousands of images, visiting every pair would take hours."""
    pairs = []
    plain = voc._iou
    monkeypatch.setattr(voc, "_iou", lambda *boxes: pairs.append(1) or plain(*boxes))
    ours = made_set([made_image(k, [(*LEFT, k + 1)]) for k in range(20)], "voc", classes=20)
    scores = evaluate(ours, {k: found([(*LEFT, 0.9, k + 1), (*FAR, 0.8, (k + 1) % 20 + 1)]) for k in range(20)})
    assert scores["box_AP50"] == pytest.approx(100)
    assert len(pairs) == 20


def test_crowd_regions_do_not_count_for_voc():
    """For example in a COCO file whose objects have a `difficult` flag."""
    ours = made_set([made_image("a", [(*LEFT, 1), (*RIGHT, 1, "crowd"), (*FAR, 2, "crowd")])], "voc", classes=2)
    scores = evaluate(ours, {"a": found([(*LEFT, 0.5, 1), (*RIGHT, 0.9, 1)])})
    assert scores["box_AP50"] == pytest.approx(100)
    assert [row["objects"] for row in scores.of_classes.values()] == [1, 0]
