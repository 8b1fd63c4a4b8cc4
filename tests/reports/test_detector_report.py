"""Pages of a fine-tuned detector, made from hand-written detections, so that every number is known."""

import re
from dataclasses import replace

import numpy as np
import pytest
from browser import SCHEMES, check_in_browser, needs_browser
from narrow_models import NARROW
from photograph_sets import coco_file

import socodet
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.scores import Detections
from socodet.detection.scores.outcomes import outcome
from socodet.errors import InputError
from socodet.reports.sections import detections as section

pytestmark = pytest.mark.usefixtures("narrow_networks")
NAMES = ("chelsea", "hopper", "rocket")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run of one step, and its dataset of three photographs: an animal, a person and a rocket."""
    root = tmp_path_factory.mktemp("tuned")
    data = coco_file(root / "set.json", NAMES, masks=False)
    settings = socodet.FinetuneSettings("faster_rcnn_fpn", "voc_24k", iterations=1, batch_size=2, size=32, precise_bn=0)
    execution = socodet.ExecutionSettings(workers=0, log_every=1)
    socodet.finetune(data, root / "run", settings, model=NARROW, execution=execution, show_progress=False)
    return root / "run", data


def detect(network, data, **_):
    """The animal is found; for the person a true positive scores above a false one; the rocket is missed."""

    def of(name, *boxes):
        image = next(image for image in data.images if image.file.stem == name)
        xyxy = np.array([image.boxes[0] if box is None else box for box, _ in boxes], np.float32).reshape(-1, 4)
        scores = np.array([score for _, score in boxes], np.float32)
        return image.image_id, Detections(xyxy, scores, np.repeat(image.labels[:1], len(boxes)))

    chelsea = of("chelsea", (None, 0.9))
    hopper = of("hopper", (None, 0.8), ((0, 0, 20, 20), 0.7))
    return dict([chelsea, hopper, of("rocket", ((0, 0, 30, 30), 0.2))]), []


@pytest.fixture(scope="module")
def page(tuned):
    run, data = tuned
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(section, "detect", detect)
        return socodet.report([run], run.parent / "detector.html", data=data, device="cpu", show_progress=False).path


def test_every_class_has_its_own_scores(page):
    text = page.read_text()
    assert re.findall("<h2>(.*?)</h2>", text)[-2:] == ["Precision and recall", "The images with the most errors"]

    def row(name):
        return re.findall(r"<td[^>]*>(.*?)</td>", re.search(rf">{name}</th>.*?</tr>", text, re.DOTALL)[0])

    # With detections scored 0.8 or more: F1 = 2 * 2 / (2 + 3) = 0.8; adding 0.7 gives 2 * 2 / (3 + 3).
    assert row("all") == ["3", "2", "0", "100.0%", "66.7%", "–"]
    assert row("animal") == ["1", "1", "0", "100.0%", "100.0%", "100.0"]
    assert row("person") == ["1", "1", "0", "100.0%", "100.0%", "100.0"]
    assert row("rocket") == ["1", "0", "0", "–", "0.0%", "0.0"]
    assert "From a score of 0.80 up" in text
    assert "trained on 3 of the 3 images" in text  # so these scores mean little


def test_the_worst_image_is_shown(page):
    text = page.read_text()
    assert "rocket.jpg · truth · 1 object, 1 missed" in text
    assert "chelsea.jpg" not in text  # nothing is wrong there


@needs_browser
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_browser_shows_the_page(page, tmp_path, scheme):
    check_in_browser(page, tmp_path, scheme)


def test_a_missing_dataset_is_one_line(tuned, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        socodet.report([tuned[0]], tmp_path / "r.html", data=tmp_path / "nowhere.json")


def test_images_held_out_are_shown(tuned, tmp_path, monkeypatch):
    run, data = tuned
    reading = socodet.ReadingSettings(val_share=0.4)
    shown = []
    monkeypatch.setattr(section, "detect", lambda network, data, **_: shown.append(data) or detect(network, whole))
    whole = open_detection_set(data)
    socodet.report([run], tmp_path / "r.html", data=data, reading=reading, device="cpu", show_progress=False)
    held_out = open_detection_set(data, split="val", reading=reading)
    assert [one.file for one in shown[0].images] == [one.file for one in held_out.images]
    assert 0 < len(held_out) < len(whole)
    with pytest.raises(InputError, match="no effect without data"):
        socodet.report([run], tmp_path / "other.html", reading=reading)


def test_classes_with_any_name_have_curves(tmp_path, monkeypatch):
    """Including a class named like the curve of all classes, and two classes with the same name."""
    data = open_detection_set(coco_file(tmp_path / "set.json", NAMES, masks=False))
    names = ("all classes", "bird", "bird")
    data = replace(
        data, categories=tuple(replace(one, name=name) for one, name in zip(data.categories, names, strict=True))
    )
    found = [Detections.none()] * len(data)
    outcomes = [outcome(image, one) for image, one in zip(data.images, found, strict=True)]
    drawn = []
    monkeypatch.setattr(section, "precision_charts", lambda curves: drawn.extend(curves) or [])
    section._precision_section([section.Found("run", data, found, outcomes, 0.0, frozenset())], "three images")
    assert [name for name, _ in drawn] == ["all classes", *names]
    assert [curve.objects for _, curve in drawn] == [3, 1, 1, 1]
