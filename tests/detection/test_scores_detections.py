import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hand_made_sets import found, made_image, made_set

from socodet.detection.datasets.masks import encode_masks, mask_area
from socodet.detection.scores import LeftOutCounts, evaluate, read_detections, write_detections
from socodet.errors import InputError

OURS = made_set([made_image(4, [(10, 10, 40, 40, 2)]), made_image("000005", [])], "coco", classes=2)


def test_detections_are_written_and_read_in_cocos_result_format(tmp_path):
    mask = np.zeros((1, 100, 100), np.uint8)
    mask[0, 10:40, 10:30] = 1
    ours = {4: found([(10, 11, 40, 42.5, 0.5, 2)], encode_masks(mask))}
    file = tmp_path / "detections.json"
    write_detections(OURS, ours, file)
    (entry,) = json.loads(file.read_text())
    assert entry.pop("segmentation")["size"] == [100, 100]
    about = {"image_id": 4, "category_id": 20, "category": "kind 2"}
    assert entry == {**about, "bbox": [10, 11, 30, 31.5], "score": 0.5}
    again = read_detections(OURS, file)
    assert list(again) == [4]
    assert again[4].boxes.tolist() == [[10, 11, 40, 42.5]]
    assert (again[4].scores.tolist(), again[4].labels.tolist()) == ([0.5], [2])
    assert again[4].masks == ours[4].masks
    assert evaluate(OURS, again) == pytest.approx(evaluate(OURS, ours), nan_ok=True)


def test_best_detections_keep_their_masks():
    masks = np.zeros((3, 100, 100), np.uint8)
    for k in range(3):
        masks[k, k, : 10 * (k + 1)] = 1
    best = found([(0, k, 10, 90, 0.5 + 0.1 * k, 1) for k in range(3)], encode_masks(masks)).best(2)
    assert best.boxes[:, 1].tolist() == [2, 1]
    assert [mask_area(mask) for mask in best.masks] == [30, 20]


def test_crowds_do_not_count_as_objects_and_difficult_ones_only_in_training():
    marked = [(10, 10, 40, 40, 1), (10, 10, 40, 40, 1, "crowd"), (50, 50, 60, 60, 1, "difficult"), (1, 1, 9, 9, 2)]
    ours = made_set([made_image(1, marked), made_image(2, marked[:1])], "voc", classes=2)
    assert (ours.object_counts(), ours.object_counts(trained_on=True)) == ([2, 1], [3, 1])


def test_classes_of_one_name_are_scored_apart():
    ours = made_set([made_image(1, [(10, 10, 40, 40, 1), (50, 50, 60, 60, 2)])], "coco", classes=2)
    ours = replace(ours, categories=tuple(replace(category, name="cat") for category in ours.categories))
    scores = evaluate(ours, {1: found([(10, 10, 40, 40, 0.9, 1)])})
    assert {name: round(one["box_AP"]) for name, one in scores.of_classes.items()} == {"cat": 100, "cat (20)": 0}


def test_malformed_detection_files_are_refused(tmp_path):
    good = {"image_id": 4, "category_id": 20, "bbox": [1, 2, 3, 4], "score": 1}
    file = tmp_path / "detections.json"
    file.write_text(json.dumps([good, good | {"image_id": "000005"}]))
    assert read_detections(OURS, file)["000005"].masks is None
    for entries, complaint in (
        ("{", "not valid JSON"),
        ({}, "not a list of detections"),
        ([good, {"image_id": 4}], "entry 1 is no detection"),
        ([good | {"image_id": 9}], "entry 0 is of image 9, which by hand lacks"),
        ([good | {"image_id": [4]}], "entry 0 is no detection"),
        ([good | {"category_id": 1}], "entry 0 is of category 1, which by hand lacks"),
        ([good | {"bbox": [1, 2, 3]}], "entry 0 is no detection"),
        ([good | {"score": float("nan")}], "no finite number"),
        ([good | {"segmentation": {"size": [5, 5], "counts": "1"}}], "no run lengths of a 100x100"),
        ([good, good | {"segmentation": encode_masks(np.zeros((1, 100, 100)) > 0)[0]}], "give all or none"),
    ):
        file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        with pytest.raises(InputError, match=complaint):
            read_detections(OURS, file)
    left_out = LeftOutCounts()
    file.write_text(json.dumps([good | {"image_id": 9}, good, good | {"image_id": 9}]))
    assert list(read_detections(OURS, file, left_out=left_out)) == [4]
    assert (left_out.images, left_out.classes) == ({9: 2}, {})
    with pytest.raises(InputError, match="cannot be read"):
        read_detections(OURS, tmp_path / "gone.json")


def test_ids_of_another_type_are_matched(tmp_path):
    file = tmp_path / "detections.json"
    good = {"image_id": "4", "category_id": "20", "bbox": ["1", 2, 3, 4], "score": 1}
    file.write_text(json.dumps([good, good | {"image_id": 4.0, "category_id": 20.0}]))
    (found,) = read_detections(OURS, file).values()
    assert (found.labels.tolist(), found.boxes.tolist()) == ([2, 2], [[1, 2, 4, 6]] * 2)


def test_file_names_decide_if_image_ids_are_of_another_dataset(tmp_path):
    """`predict` numbers a folder's images in order of their names; a COCO file may number them differently."""
    images = [
        replace(made_image(k, []), file=tmp_path / name) for k, name in ((1, "c.jpg"), (2, "a.jpg"), (7, "d/c.jpg"))
    ]
    ours = made_set(images, "coco", classes=1)
    file = tmp_path / "detections.json"

    def read(name, number):
        entry = {"image_id": number, "file_name": name, "category_id": 10, "bbox": [1, 2, 3, 4], "score": 1}
        file.write_text(json.dumps([entry]))
        left_out = LeftOutCounts()
        return [*read_detections(ours, file, left_out=left_out), *({"lacks": n} for n in left_out.images)]

    assert read("a.jpg", 1) == read("a.jpg", 9) == read("../set/./a.jpg", 2) == read("a.JPG", 2) == [2]
    assert read("d/c.jpg", 1) == [7]
    assert read("c.jpg", 1) == [1]  # two names end like this, so the number decides
    assert read("c.jpg", 7) == [7]
    assert read("b.jpg", 1) == [{"lacks": 1}]
    assert read("e/c.jpg", 2) == [{"lacks": 2}]


def test_class_names_decide_if_category_ids_are_of_another_dataset(tmp_path):
    """A detector uses its training set's class numbers; another dataset may number the same classes differently."""
    file = tmp_path / "detections.json"
    good = {"image_id": 4, "category_id": 20, "bbox": [1, 2, 3, 4], "score": 1}

    def labels(ours, *classes):
        file.write_text(json.dumps([good | one for one in classes]))
        left_out = LeftOutCounts()
        found = read_detections(ours, file, left_out=left_out)
        return [label for one in found.values() for label in one.labels.tolist()], left_out.classes

    assert labels(OURS, {"category": "kind 1"}, {"category": "kind 2", "category_id": 7}) == ([1, 2], {})
    assert labels(OURS, {"category": "kind 9"}, {"category_id": 10}, {"category": "kind 9"}) == ([1], {"kind 9": 2})
    alike = replace(OURS, categories=tuple(replace(one, name="kind") for one in OURS.categories))
    assert labels(alike, {"category": "kind"}, {"category": "kind", "category_id": 10}) == ([2, 1], {})
    file.write_text(json.dumps([good | {"category": "kind 9"}]))
    with pytest.raises(InputError, match="entry 0 is of class kind 9, which by hand lacks"):
        read_detections(OURS, file)
    with pytest.raises(InputError, match="entry 0 is of category 7, which by hand lacks"):
        labels(OURS, {"category_id": 7})  # a lone number from another dataset: the other numbers may be wrong as well


def test_detections_in_another_box_form_are_refused(tmp_path):
    """Corners misread as x, y, width and height would hit nothing."""
    file = tmp_path / "detections.json"

    def read(*boxes):
        entries = [{"image_id": 4, "category_id": 20, "bbox": box, "score": 1} for box in boxes]
        file.write_text(json.dumps(entries))
        return read_detections(OURS, file)

    assert len(read([50, 40, 50, 60], [90, 95, 10, 5], [0, 0, 100, 100])[4]) == 3
    with pytest.raises(InputError, match="if they are corners x1, y1, x2, y2, convert them to x, y, width, height"):
        read([50, 40, 90, 100], [60, 60, 70, 95], [10, 20, 98, 97])
    with pytest.raises(InputError, match="fractions of the image"):
        read([0.5, 0.4, 0.2, 0.3], [0.1, 0.1, 0.9, 0.9], [0.5, 0.5, 0.25, 0.25])


def test_detections_are_written_image_by_image(tmp_path):
    """Millions of detections as dicts or one string would take many times the arrays' memory."""
    many = made_set([made_image(k, []) for k in range(50)], "coco", classes=2)
    each = found([(10, 11, 40, 42.5, 0.5, 2)] * 300)
    file = tmp_path / "detections.json"
    tracemalloc.start()
    try:
        write_detections(many, dict.fromkeys(range(50), each), file)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < file.stat().st_size / 2
    about = {"image_id": 0, "category_id": 20, "category": "kind 2"}
    entry = {**about, "bbox": [10.0, 11.0, 30.0, 31.5], "score": 0.5}
    assert file.read_text() == json.dumps([entry | {"image_id": k} for k in range(50) for _ in range(300)])
    write_detections(many, {}, file)
    assert file.read_text() == "[]"
