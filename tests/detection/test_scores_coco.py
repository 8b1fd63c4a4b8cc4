import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from hand_made_sets import found, made_image, made_set, random_case
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from socodet.detection.datasets.masks import encode_masks
from socodet.detection.scores import Detections, coco, evaluate
from socodet.errors import InputError

LEFT, RIGHT = (10, 10, 40, 40), (60, 10, 90, 40)


def test_ap_by_hand():
    """One of two objects found: precision 1 at the recalls 0, 0.01, …, 0.5, which are 51 of 101."""
    ours = made_set([made_image(1, [(*LEFT, 1), (*RIGHT, 1)])], "coco")
    scores = evaluate(ours, {1: found([(*LEFT, 0.9, 1)])})
    assert scores["box_AP"] == pytest.approx(100 * 51 / 101)
    assert scores["box_APs"] == pytest.approx(100 * 51 / 101)  # 900 square pixels, less than 32²
    assert np.isnan(scores["box_APm"])
    assert set(scores) == {"box_AP", "box_AP50", "box_AP75", "box_APs", "box_APm", "box_APl"}


def test_iou_thresholds_by_hand():
    """IoU 0.8 (24 of 30 columns) passes the thresholds 0.50 to 0.80, which are 7 of 10."""
    ours = made_set([made_image(1, [(*LEFT, 1)])], "coco")
    scores = evaluate(ours, {1: found([(10, 10, 34, 40, 0.9, 1)])})
    assert scores["box_AP"] == pytest.approx(70)
    assert scores["box_AP75"] == pytest.approx(100)


@pytest.mark.parametrize(("others", "ap"), [(99, 1), (100, 0)])
def test_a_hundred_detections_count_per_image_and_class(others, ap):
    """The detection of the only object is the last: at best a precision of 1 in 100."""
    wrong = [(60, 10 + k / 10, 90, 40, 0.9, 1) for k in range(others)]
    ours = made_set([made_image(1, [(*LEFT, 1)])], "coco")
    assert evaluate(ours, {1: found([*wrong, (*LEFT, 0.5, 1)])})["box_AP"] == pytest.approx(ap)


def test_size_of_an_object_is_its_area_in_the_file():
    image = replace(made_image(1, [(10, 10, 60, 60, 1)]), areas=np.array([500], np.float32))  # a thin object
    scores = evaluate(made_set([image], "coco"), {1: found([(10, 10, 60, 60, 0.9, 1)])})
    assert scores["box_APs"] == pytest.approx(100)
    assert np.isnan(scores["box_APm"])


def test_crowd_regions_take_detections_without_counting():
    ours = made_set([made_image(1, [(*LEFT, 1), (50, 0, 100, 100, 1, "crowd")])], "coco")
    inside = [(60, 10, 70, 20, 0.9, 1), (80, 80, 90, 90, 0.95, 1)]
    assert evaluate(ours, {1: found([(*LEFT, 0.5, 1), *inside])})["box_AP"] == pytest.approx(100)


def test_missing_detections_and_unknown_images():
    ours = made_set([made_image(1, [(*LEFT, 1)]), made_image(2, [])], "coco")
    assert evaluate(ours, {})["box_AP"] == 0
    assert evaluate(ours, {2: Detections.none()})["box_AP"] == 0
    with pytest.raises(InputError, match="lacks 1 of"):
        evaluate(ours, {3: found([(*LEFT, 0.9, 1)])})


def pycocotools_figures(dataset, predictions, kind, label=None):
    """pycocotools' six figures, of all classes or of one."""
    images = [{"id": i, "width": image.width, "height": image.height} for i, image in enumerate(dataset.images, 1)]
    categories = [{"id": k} for k in range(1, len(dataset.categories) + 1)]
    truth, results = [], []
    for number, image in enumerate(dataset.images, 1):
        for k, (x1, y1, x2, y2) in enumerate(image.boxes.tolist()):
            entry = {
                "id": len(truth) + 1,
                "image_id": number,
                "category_id": int(image.labels[k]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(image.areas[k]),
                "iscrowd": int(image.crowd[k]),
            }
            truth.append(entry | ({"segmentation": image.masks[k]} if kind == "segm" else {}))
        detections = predictions[image.image_id]
        for k, (x1, y1, x2, y2) in enumerate(detections.boxes.tolist()):
            what = {"segmentation": detections.masks[k]} if kind == "segm" else {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            score = float(detections.scores[k])
            results.append({"image_id": number, "category_id": int(detections.labels[k]), "score": score, **what})
    with contextlib.redirect_stdout(io.StringIO()):
        whole = COCO()
        whole.dataset = {"images": images, "annotations": truth, "categories": categories}
        whole.createIndex()
        evaluation = COCOeval(whole, whole.loadRes(results), kind)
        if label is not None:
            evaluation.params.catIds = [label]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * value for value in evaluation.stats[:6]]


def ellipses(boxes, size):
    y, x = np.mgrid[:size, :size] + 0.5
    a, b = (boxes[:, 2:] - boxes[:, :2]).T[..., None, None] / 2 + 1e-6
    u, v = (boxes[:, 2:] + boxes[:, :2]).T[..., None, None] / 2
    return ((x - u) / a) ** 2 + ((y - v) / b) ** 2 <= 1


@pytest.mark.parametrize("seed", range(3))
def test_scores_match_pycocotools(seed):
    size = 300  # large enough for small, medium and large objects
    ours, predictions = random_case(np.random.default_rng(seed), style="coco", size=size, images=16)
    scores = evaluate(ours, predictions)
    assert list(scores.values()) == pytest.approx(pycocotools_figures(ours, predictions, "bbox"), abs=1e-6)
    assert 5 < scores["box_AP"] < 95

    masked = [
        made_image(
            image.image_id,
            [
                (*box, label, "crowd" if crowd else "")
                for box, label, crowd in zip(image.boxes, image.labels, image.crowd, strict=True)
            ],
            size=(size, size),
            masks=encode_masks(ellipses(image.boxes, size)),
        )
        for image in ours.images
    ]
    with_masks = made_set(masked, "coco", classes=3)
    segmented = {
        image_id: Detections(one.boxes, one.scores, one.labels, encode_masks(ellipses(one.boxes, size)))
        for image_id, one in predictions.items()
    }
    both = evaluate(with_masks, segmented)
    assert [both[key] for key in scores] == pytest.approx(list(scores.values()))
    mask_scores = [both[key.replace("box", "mask")] for key in scores]
    assert mask_scores == pytest.approx(pycocotools_figures(with_masks, segmented, "segm"), abs=1e-6)
    for label, of_class in enumerate(both.of_classes.values(), 1):
        assert of_class["objects"] == sum((one.labels[~one.crowd] == label).sum() for one in with_masks.images)
        for prefix, kind in (("box", "bbox"), ("mask", "segm")):
            ap, ap50, *_ = pycocotools_figures(with_masks, segmented, kind, label)
            assert (of_class[f"{prefix}_AP"], of_class[f"{prefix}_AP50"]) == pytest.approx((ap, ap50), abs=1e-6)
    assert abs(both["mask_AP"] - both["box_AP"]) > 0.1


@pytest.mark.parametrize("at_once", [1, 40])
def test_pycocotools_gets_a_few_classes_at_a_time(at_once, monkeypatch):
    """pycocotools takes over a kilobyte per detection, and a dataset may have ten million."""
    data, predictions = random_case(np.random.default_rng(3), style="coco", classes=7)
    whole = evaluate(data, predictions)
    handed = []
    plain = coco.COCO
    monkeypatch.setattr(coco, "COCO", lambda made: handed.append(made) or plain(made))
    monkeypatch.setattr(coco, "AT_ONCE", at_once)
    scores = evaluate(data, predictions)
    assert scores == pytest.approx(whole, nan_ok=True)
    assert str(scores.of_classes) == str(whole.of_classes)
    for truth, results in zip(handed[::2], handed[1::2], strict=True):
        assert len(truth["categories"]) == 1 or len(truth["annotations"]) + len(results["annotations"]) <= at_once
    assert sum(len(results["annotations"]) for results in handed[1::2]) == sum(map(len, predictions.values()))


def test_difficult_objects_do_not_count_for_coco():
    """For example in VOC, scored by COCO's rules."""
    ours = made_set([made_image(1, [(*LEFT, 1), (*RIGHT, 1, "difficult")])], "coco")
    assert evaluate(ours, {1: found([(*LEFT, 0.5, 1)])})["box_AP"] == pytest.approx(100)
    assert evaluate(ours, {1: found([(*LEFT, 0.5, 1), (*RIGHT, 0.9, 1)])})["box_AP"] == pytest.approx(100)
