"""Predicting with a fine-tuned detector: it is the one that evaluation scores, takes any images and writes files."""

import copy
import csv
import io
import json
import logging
import math
import os
import pickle
import re
import shutil
import signal
import warnings
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file
from PIL import Image, ImageColor

import socodet
import socodet.prediction.predict as predict_module
from socodet.cli import main
from socodet.detection import inference
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.masks import encode_masks
from socodet.detection.scores import Detections
from socodet.errors import InputError, UnreadableImageError
from socodet.finetuning.evaluate import evaluate, score
from socodet.finetuning.finetune import finetune
from socodet.finetuning.settings import FinetuneSettings
from socodet.images.decode import decode_image
from socodet.images.photographs import photographs
from socodet.images.reading import PixelReading, PixelSettings, read_images_as
from socodet.prediction.drawing import draw_objects, free_place
from socodet.prediction.predict import predict
from socodet.reports.theme import OBJECT_COLOURS
from socodet.training import devices
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

HERE = ExecutionSettings(device="cpu", workers=0)
QUIET = {"execution": HERE, "show_progress": False}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of five small photographs."""
    folder = tmp_path_factory.mktemp("images")
    for path in sorted(photographs().glob("*.jpg"))[:5]:
        with Image.open(path) as image:
            image.thumbnail((80, 80))
            image.convert("RGB").save(folder / path.name, quality=95)
    return folder


@pytest.fixture(scope="module")
def photograph(images):
    return sorted(images.iterdir())[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return coco_file(tmp_path_factory.mktemp("data") / "set.json")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A Mask R-CNN after two steps: it has many detections, none of them right."""
    output = tmp_path_factory.mktemp("run") / "detector"
    settings = FinetuneSettings("mask_rcnn_r50_fpn", batch_size=2, size=64, precise_bn=1, iterations=2)
    finetune(data, output, settings=settings, model=NARROW, **QUIET)
    return output


@pytest.fixture(scope="module")
def detector(run):
    return socodet.load_detector(run, device="cpu")


def test_predictions_are_those_that_evaluation_scores(run, detector, data, tmp_path):
    evaluate(run, data, save_predictions=tmp_path / "found.json", **QUIET)
    scored = json.loads((tmp_path / "found.json").read_text())
    assert scored
    dataset = open_detection_set(data)
    for image in dataset.images[:1]:
        theirs = [one for one in scored if one["image_id"] == image.image_id]
        (ours,) = detector.predict([image.file])
        boxes = np.array([one["bbox"] for one in theirs], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        order = np.argsort([-one["score"] for one in theirs], kind="stable")
        np.testing.assert_allclose(ours.boxes, boxes[order], atol=1e-3)
        np.testing.assert_allclose(ours.scores, [theirs[k]["score"] for k in order], rtol=1e-6)
        names = {category.id: category.name for category in dataset.categories}
        assert list(ours.labels) == [names[theirs[k]["category_id"]] for k in order]
        assert ours.masks.shape == (len(theirs), image.height, image.width)


def test_files_images_and_arrays_give_the_same_result(detector, photograph):
    path = photograph
    pixels = decode_image(path.read_bytes())
    given = [str(path), PurePath(path), path.read_bytes(), Image.fromarray(pixels), pixels, torch.from_numpy(pixels)]
    first, *others = detector.predict([path, *given])
    assert len(first) > 0
    for other in others:
        np.testing.assert_array_equal(other.boxes, first.boxes)
    grey = detector.predict([pixels[..., 0], np.repeat(pixels[..., :1], 3, axis=2)])
    np.testing.assert_array_equal(grey[0].boxes, grey[1].boxes)


def test_transparency_becomes_white_in_every_kind_of_input(detector, photograph, tmp_path):
    pixels = np.array(Image.open(photograph).convert("RGBA"))
    pixels[:40, :, 3] = 0
    white = pixels[..., :3].copy()
    white[:40] = 255
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    expected, *others = detector.predict([white, pixels, Image.fromarray(pixels), tmp_path / "clear.png"])
    for other in others:
        np.testing.assert_array_equal(other.boxes, expected.boxes)


def test_images_are_read_as_they_are_needed(detector, photograph):
    """A long list or a video would not fit into memory; missing paths are noticed before."""
    events = []
    hook = detector.network.register_forward_pre_hook(lambda _, inputs: events.append(len(inputs[0])))
    array = np.zeros((8, 8, 3), np.uint8)
    try:
        found = detector.predict((events.append("read") or array for _ in range(5)), batch_size=2)
        with pytest.raises(InputError, match="no such image file"):
            detector.predict([photograph, "gone.jpg"])
        with pytest.raises(InputError, match=r"images\[2\]: "):
            detector.predict([array, array, b"torn"])
    finally:
        hook.remove()
    assert len(found) == 5
    assert events == ["read", "read", 2, "read", "read", 2, "read", 1, 1, 1]


def test_read_only_array_gives_no_warning(detector, photograph):
    pixels = decode_image(photograph.read_bytes()).copy()
    pixels.flags.writeable = False
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (found,) = detector.predict([pixels])
    finally:
        torch.set_warn_always(False)
    assert str(found).startswith(f"{len(found)} objects: {found.labels[0]} {found.scores[0]:.2f}")
    assert found.labels[0] in found._repr_html_()


def test_limits_on_score_and_number_and_order_by_score(detector, photograph):
    path = photograph
    (everything,), (few,) = detector.predict([path]), detector.predict([path], max_detections=3)
    assert list(everything.scores) == sorted(everything.scores, reverse=True)
    np.testing.assert_array_equal(few.scores, everything.scores[:3])
    middle = float(np.median(everything.scores))
    (sure,) = detector.predict([path], min_score=middle)
    assert len(sure) == (everything.scores >= middle).sum()
    (nothing,) = detector.predict([path], min_score=1.0)
    assert (len(nothing), nothing.boxes.shape, nothing.masks.shape[0]) == (0, (0, 4), 0)


@pytest.mark.parametrize(
    ("images", "what"),
    [
        (["no/such/file.jpg"], "no/such/file.jpg: no such image file"),
        ([__file__], "test_predict.py"),
        ([np.zeros((4, 4), np.float32)], "uint8"),
        ([np.zeros((4, 4, 5), np.uint8)], "uint8"),
        ([torch.rand(3, 8, 8)], r"images\[0\]: a tensor.*call detector\(.*permute\(1, 2, 0\)"),
        ([torch.zeros(3, 8, 8, dtype=torch.uint8)], r"a tensor.*permute\(1, 2, 0\)"),
        ([np.zeros((0, 4, 3), np.uint8)], r"images\[0\]: uint8 of \(0, 4, 3\)"),
        ([b"torn"], r"images\[0\]: "),
        ([None], r"images\[0\]: of type NoneType"),
        ([io.BytesIO()], r"images\[0\]: of type BytesIO"),
        ("one.jpg", "a list"),
        (None, "a list"),
        (b"one", "a list"),
        ({"one.jpg": 1}, "a list"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"list\(array\)"),
    ],
)
def test_inputs_that_are_not_images_are_refused(detector, images, what):
    with pytest.raises(InputError, match=what) as refused:
        detector.predict(images)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"min_score": value} for value in ("0.5", 2, -0.1, float("nan"))),
        *({"batch_size": value} for value in (0, 1.5, "1", None)),
        *({"max_detections": value} for value in (0, "3")),
    ],
)
def test_invalid_limits_are_refused(detector, wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be"):
        detector.predict([], **wrong)
    assert detector.predict([], min_score=np.float32(0.5), max_detections=np.int64(3)) == []


def test_flag_of_an_invalid_limit_is_named(run, images, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(run), str(images), "--output", str(tmp_path / "found"), "--min-score", "50"])
    assert "predict: --min-score must be" in capsys.readouterr().err


def test_predictions_of_a_folder_are_written_to_files(run, images, detector, tmp_path):
    result = predict(run, images, tmp_path / "found", min_score=0.0, draw=True, execution=HERE, show_progress=False)
    names = sorted(path.name for path in images.glob("*.jpg"))
    assert (result.finished, result.images) == (True, len(names))
    entries = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert len(entries) == result.detections > 0
    (expected,) = detector.predict([images / names[0]])
    mine = [one for one in entries if one["file_name"] == names[0]]
    assert [one["score"] for one in mine] == pytest.approx(expected.scores.tolist())
    assert [one["category"] for one in mine] == list(expected.labels)
    x, y, w, h = mine[0]["bbox"]
    assert [x, y, x + w, y + h] == pytest.approx(expected.boxes[0].tolist(), abs=1e-3)
    assert mine[0]["segmentation"]["size"] == list(decode_image((images / names[0]).read_bytes()).shape[:2])
    with (tmp_path / "found" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(entries)
    assert float(rows[0]["x2"]) == pytest.approx(entries[0]["bbox"][0] + entries[0]["bbox"][2], abs=0.01)
    for name in names:
        with Image.open(tmp_path / "found" / "drawn" / name) as drawn:
            assert drawn.size == decode_image((images / name).read_bytes()).shape[1::-1]


def test_images_of_a_coco_file_keep_their_ids(run, images, tmp_path):
    """COCO's tools need the ids to score the predictions against that file."""
    names = [path.name for path in sorted(images.iterdir())]
    ids = {names[1]: 0, names[3]: 1234, names[0]: 7}
    listed = [{"id": number, "file_name": name} for name, number in ids.items()]
    (images / "some.json").write_text(json.dumps({"images": listed}))
    predict(run, images / "some.json", tmp_path / "found", min_score=0.0, max_detections=1, **QUIET)
    (images / "some.json").unlink()
    entries = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert sorted((one["image_id"], one["file_name"]) for one in entries) == sorted((ids[name], name) for name in ids)


def test_interrupted_call_resumes_to_the_same_files(run, images, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        predict(run, images, folder, **QUIET)
    lines = (cut / "found.jsonl").read_text().splitlines(keepends=True)
    (cut / "found.jsonl").write_text("".join(lines[:3]) + lines[3][: len(lines[3]) // 2])
    (cut / "predictions.json").unlink()
    result = predict(run, images, cut, **QUIET)
    assert result.finished
    for name in ("predictions.json", "predictions.csv", "found.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_drawings_in_the_images_folder_are_not_taken_for_images(run, images, tmp_path, monkeypatch):
    own = tmp_path / "images"
    shutil.copytree(images, own)
    (tmp_path / "link").symlink_to(own / "found")
    keep = {"min_score": 0.0, "max_detections": 2, "draw": True, **QUIET}
    names = sorted(path.name for path in images.iterdir())
    monkeypatch.chdir(own)
    first = predict(run, own, own / "found", **keep)
    lines = (own / "found" / "predictions.json").read_bytes()
    assert len(list((own / "found" / "drawn").iterdir())) == first.images == len(names)
    for output, more in (("found", {}), (tmp_path / "link", {}), (own / "found", {"overwrite": True}), ("other", {})):
        again = predict(run, own, output, **keep, **more)
        assert (again.images, again.done) == (len(names), len(names))
        assert (own / output / "predictions.json").read_bytes() == lines


def test_other_settings_or_a_foreign_folder_are_refused(run, photograph, images, tmp_path):
    predict(run, photograph, tmp_path / "found", **QUIET)
    with pytest.raises(InputError, match="--min-score"):
        predict(run, photograph, tmp_path / "found", min_score=0.3, execution=HERE, show_progress=False)
    again = predict(
        run,
        photograph,
        tmp_path / "found",
        min_score=0.3,
        execution=HERE,
        overwrite=True,
        show_progress=False,
    )
    assert again.finished
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds files"):
        predict(run, images, tmp_path / "mine", overwrite=True, **QUIET)


def test_unreadable_images_are_listed(run, photograph, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photograph.read_bytes())
    (folder / "b.jpg").write_bytes(b"no image")
    arguments = [str(run), str(folder), "--output", str(tmp_path / "found"), "--device", "cpu", "--workers", "0"]
    main(["predict", *arguments])
    printed = capsys.readouterr()
    assert "b.jpg" in printed.err
    assert " in 1 image (1 could not" in printed.out
    assert not [
        one for one in json.loads((tmp_path / "found" / "predictions.json").read_text()) if one["file_name"] == "b.jpg"
    ]


def test_image_name_that_leaves_the_folder_is_drawn_inside_it(run, photograph, tmp_path):
    class Outside:
        location = "outside"

        def __len__(self) -> int:
            return 1

        def key(self, index: int) -> str:
            return "../../escaped.jpg"

        def read(self, index: int) -> bytes:
            return photograph.read_bytes()

    output = tmp_path / "deep" / "found"
    predict(run, Outside(), output, draw=True, **QUIET)
    assert (output / "drawn" / "escaped.jpg").is_file()
    assert not list(tmp_path.glob("escaped*"))


def test_run_without_a_detector_is_refused(tmp_path):
    for folder, why in ((tmp_path, "not a run"), (tmp_path / "none", "no such folder")):
        with pytest.raises(InputError, match=f"{why}.* that finetune wrote"):
            socodet.load_detector(folder)
    run = RunFolder(tmp_path / "pretrained")
    run.write_description({"recipe": {"name": "tiny"}})
    with pytest.raises(
        InputError, match=rf"pretrained: is a pretraining run.* finetune SET --output DETECTOR --init {run.path}"
    ):
        socodet.load_detector(run.path)


def test_arguments_in_the_wrong_order_are_recognised(run, images, tmp_path):
    with pytest.raises(InputError, match=f"{images}: is not a run, and {run} is one"):
        predict(images, run, tmp_path / "out", **QUIET)


def test_detector_is_called_like_torchvisions(detector):
    image = torch.rand(3, 80, 100)
    (answer,) = detector([image])
    assert answer.keys() == {"boxes", "labels", "scores", "masks"}
    assert detector([]) == []
    for wrong in ([(255 * image).byte()], [image.permute(1, 2, 0)], [image.numpy()], [image[:, :0]], image):
        with pytest.raises(InputError, match="tensors"):
            detector(wrong)
    assert detector.class_names == tuple(category.name for category in detector.categories)


def test_found_objects_can_become_dicts_and_be_compared(detector, photograph):
    (found,) = detector.predict([photograph])
    rows = found.as_dicts()
    assert [row["label"] for row in rows] == list(found.labels)
    np.testing.assert_array_equal([[row[side] for side in ("x1", "y1", "x2", "y2")] for row in rows], found.boxes)
    assert json.loads(json.dumps(rows))[0]["score"] == pytest.approx(found.scores[0])
    assert found == found
    assert found != copy.deepcopy(found)
    assert len({found, found}) == 1


def test_detector_has_a_repr_and_can_be_copied(run, detector, photograph):
    first = repr(detector).split("(network)")[0]
    assert str(run) in first
    assert all(name in first for name in detector.class_names)
    (expected,) = detector.predict([photograph])
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector).to("cpu")):
        np.testing.assert_array_equal(other.predict([photograph])[0].boxes, expected.boxes)


@pytest.mark.parametrize(
    ("change", "fix"),
    [(torch.nn.Module.train, "eval"), (torch.nn.Module.half, "float"), (torch.nn.Module.double, "float")],
)
def test_detector_in_the_wrong_mode_or_type_names_the_fix(detector, images, tmp_path, change, fix):
    other = change(copy.deepcopy(detector))
    calls = [lambda: other.predict([np.zeros((8, 8, 3), np.uint8)]), lambda: predict(other, images, tmp_path / "found")]
    calls += [lambda: other([torch.rand(3, 8, 8)])] * (fix == "eval")
    for call in calls:
        with pytest.raises(InputError, match=rf"detector\.{fix}\(\)"):
            call()
    assert not (tmp_path / "found").exists()
    assert len(getattr(other, fix)().predict([np.zeros((8, 8, 3), np.uint8)])) == 1


def test_16_bit_images_are_scaled_as_in_training(run, tmp_path):
    """White is that of the training set, whatever the brightness of the new images."""
    values = np.full((40, 60), 1000, np.uint16)
    file = tmp_path / "dark.png"
    Image.fromarray(values).save(file)
    detector = socodet.load_detector(run, device="cpu")
    detector.pixel_reading = PixelReading(white=4095)
    seen = []
    detector.network.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[0][0].max()) * 255))
    with Image.open(file) as image:
        detector.predict([file, image])
    predict(detector, file, tmp_path / "found", **QUIET)
    assert seen == pytest.approx([round(1000 * 255 / 4095)] * 3)


def test_several_processes_are_refused(run, photograph, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="one process"):
        predict(run, photograph, tmp_path / "found", **QUIET)


@pytest.mark.parametrize(
    ("limit", "asked", "drawn"),
    [(None, None, 0.3), (0.6, None, 0.6), (0.01, None, 0.05), (0.6, 0.2, 0.2), (0.6, 0.0, 0.0)],
)
def test_only_high_scores_are_drawn_unless_a_score_is_given(
    limit, asked, drawn, run, photograph, tmp_path, monkeypatch
):
    scores = np.array([0.9, 0.5, 0.25, 0.1, 0.04], np.float32)
    found = Detections(np.tile(np.float32([0, 0, 9, 9]), (5, 1)), scores, np.ones(5, np.int64), None)
    monkeypatch.setattr(predict_module, "detect_each", lambda *asked, **_: ((k, found) for k in iter(asked[2])))
    shown = []
    monkeypatch.setattr(
        predict_module, "draw_objects", lambda pixels, *drawn: shown.append(drawn) or Image.fromarray(pixels)
    )
    detector = socodet.load_detector(run, device="cpu")
    assert detector.f1_limit is None  # the detector was never evaluated
    detector.f1_limit = limit
    result = predict(detector, photograph, tmp_path / "found", draw=True, min_score=asked, **QUIET)
    ((kept, names),) = shown
    np.testing.assert_array_equal(kept.scores, scores[scores >= drawn])
    assert names == [detector.class_names[0]] * len(kept)
    written = [one["score"] for one in json.loads((tmp_path / "found" / "predictions.json").read_text())]
    assert written == [float(score) for score in scores if score >= (0.05 if asked is None else asked)]
    assert f"drawn from {drawn:.2f}" in result.limits
    assert "show no box" not in result.limits


@pytest.mark.parametrize(("scores", "words"), [([0.1, 0.25], "show no box.*0.25"), ([], "show no box")])
def test_drawing_nothing_is_reported(scores, words, run, photograph, tmp_path, monkeypatch):
    boxes = np.tile(np.float32([0, 0, 9, 9]), (len(scores), 1))
    found = Detections(boxes, np.float32(scores), np.ones(len(scores), np.int64), None)
    monkeypatch.setattr(predict_module, "detect_each", lambda *asked, **_: ((k, found) for k in iter(asked[2])))
    for _ in range(2):  # also if an earlier call predicted everything
        assert re.search(words, predict(run, photograph, tmp_path / "found", draw=True, **QUIET).limits)


def test_score_of_the_best_f1_belongs_to_the_loaded_weights(data, run, tmp_path, monkeypatch):
    class Finds(torch.nn.Module):
        """Finds each image's first object at 0.6, with false positives at 0.4, and at 0.8 in the first image."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.images = iter(dataset.images)

        def forward(self, images):
            image = next(self.images)
            boxes = np.concatenate([image.boxes[:1], [[0, 0, 2, 2]], [[0, 0, 2, 2]]])
            scores = torch.tensor([0.6, 0.8 if image is dataset.images[0] else 0.3, 0.4])
            return [{"boxes": torch.tensor(boxes), "scores": scores, "labels": torch.tensor([image.labels[0]] * 3)}]

    dataset = open_detection_set(data)
    monkeypatch.setattr(inference, "TOGETHER", {"cpu": 1})  # images come one at a time, in order
    found = score(Finds(), dataset, masks=False, step=2, scores_file=None)
    objects, hits = sum(map(len, dataset.images)), len(dataset.images)
    assert found.best_f1 == pytest.approx((0.6, 100 * 2 * hits / (objects + hits + 1)))
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    with (copy / "log.jsonl").open("a") as log:
        for step, limit in ((1, 0.1), (2, 0.7)):
            log.write(json.dumps({"step": step, **replace(found, best_f1=(limit, 50.0)).as_line()}) + "\n")
    assert socodet.load_detector(copy, device="cpu").f1_limit == 0.7


def test_inputs_are_checked_before_a_detector_is_loaded(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_module, "load_detector", None)
    for asked, match in (
        ((tmp_path / "none", images, tmp_path / "found"), "no such folder"),
        ((run / "checkpoints", images, tmp_path / "found"), "within a run"),
        ((run, tmp_path / "none", tmp_path / "found"), "none: no such file or folder"),
        ((run, images, run / "run.json"), "is a file"),
    ):
        with pytest.raises(InputError, match=match):
            predict(*asked, **QUIET)


def test_f1_is_shown_with_the_score_that_is_drawn_from(run, photograph, tmp_path):
    detector = socodet.load_detector(run, device="cpu")
    for f1, poor in ((3.21, True), (64.0, False)):
        detector.f1_limit, detector.best_f1 = 0.6, f1
        limits = predict(detector, photograph, tmp_path / f"{f1}", draw=True, **QUIET).limits
        assert f"{f1:.1f} of 100" in limits
        assert ("most of its detections are false" in limits) == poor
        assert "--min-score" in limits


def test_limits_beyond_the_detectors_own_are_not_shown(run, photograph, tmp_path):
    asked = {"min_score": 0.001, "max_detections": 500}
    limits = predict(run, photograph, tmp_path / "found", **asked, **QUIET).limits
    assert "0.05" in limits  # the schedule's limit
    assert "at most 100 " in limits
    assert "0.001" not in limits
    within = predict(run, photograph, tmp_path / "other", min_score=0.06, max_detections=100, **QUIET).limits
    assert within == "from a score of 0.06"


def test_unreadable_images_are_retried(run, images, tmp_path, monkeypatch):
    """The message may have asked for a package to be installed."""
    lacking = sorted(images.iterdir())[2].name
    read = predict_module.read_pixels

    def without_package(source, index):
        if source.key(index) == lacking:
            raise UnreadableImageError("pip install something")
        return read(source, index)

    with monkeypatch.context() as within:
        within.setattr(predict_module, "read_pixels", without_package)
        for _ in range(2):
            found = predict(run, images, tmp_path / "found", **QUIET)
            assert found.finished
            assert found.unreadable == ((lacking, "pip install something"),)
    assert predict(run, images, tmp_path / "found", **QUIET).unreadable == ()
    predict(run, images, tmp_path / "fresh", **QUIET)
    for name in ("predictions.json", "predictions.csv"):
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_too_large_images_are_retried_with_a_higher_limit(run, images, tmp_path):
    """As the message says; the other images are not repeated."""
    first = sorted(images.iterdir())[0]
    pixels = max(math.prod(Image.open(file).size) for file in images.iterdir() if file != first)
    shutil.copytree(images, tmp_path / "images")
    with Image.open(first) as image:
        image.resize((200, 200)).save(tmp_path / "images" / first.name)
    with read_images_as(PixelSettings(max_pixels=pixels)):
        ((name, why),) = predict(run, tmp_path / "images", tmp_path / "found", **QUIET).unreadable
    assert name == first.name
    assert "--max-pixels" in why
    lines = (tmp_path / "found" / "found.jsonl").read_text().splitlines()
    assert predict(run, tmp_path / "images", tmp_path / "found", **QUIET).unreadable == ()
    assert set(lines[1:]) < set((tmp_path / "found" / "found.jsonl").read_text().splitlines())
    with read_images_as(PixelSettings(value_range=100)), pytest.raises(InputError, match="the way images are read"):
        predict(run, tmp_path / "images", tmp_path / "found", **QUIET)


def test_every_image_and_name_can_be_drawn(run, photograph, tmp_path):
    strip = np.full((3, 65_600, 3), 128, np.uint8)  # a JPEG has at most 65,500 columns
    file = tmp_path / "images" / f"{'x' * 249}.webp"
    file.parent.mkdir()
    Image.open(photograph).save(file)
    predict(run, file, tmp_path / "found", draw=True, **QUIET)
    (drawn,) = (tmp_path / "found" / "drawn").iterdir()
    found = Detections(np.array([[60_000, 0, 65_000, 3]], np.float32), np.array([0.5], np.float32), np.array([1]))
    draw_objects(strip, found, ["name"]).save(tmp_path / "strip.jpg")
    for path, size in ((drawn, Image.open(photograph).size), (tmp_path / "strip.jpg", (65_500, 3))):
        with Image.open(path) as image:
            assert image.size == size


def test_images_of_similar_names_are_all_drawn(run, photograph, tmp_path):
    """The drawing of a.png would be a.png.jpg, the name of another image."""
    folder, sizes = tmp_path / "images", {"a.png": (40, 30), "a.png.jpg": (50, 30), "a.png.png": (60, 30)}
    folder.mkdir()
    for name in ("a.png", "a.png.jpg"):
        Image.open(photograph).resize(sizes[name]).save(folder / name)
    whole = tmp_path / "whole"
    predict(run, folder, whole, draw=True, **QUIET)
    Image.open(photograph).resize(sizes["a.png.png"]).save(folder / "a.png.png")
    predict(run, folder, whole, draw=True, **QUIET)
    lines = [json.loads(line) for line in (whole / "found.jsonl").read_text().splitlines()]
    drawn = {line["file_name"]: line.get("drawn") or re.sub("(?<!jpg)$", ".jpg", line["file_name"]) for line in lines}
    assert {name: Image.open(whole / "drawn" / file).size for name, file in drawn.items()} == sizes
    assert len(list((whole / "drawn").iterdir())) == 3


def test_image_gone_before_it_is_drawn_still_counts_as_done(run, images, tmp_path, monkeypatch, caplog):
    """For example if the folder is emptied meanwhile."""
    monkeypatch.setattr(logging.getLogger("socodet"), "propagate", True)
    gone = predict(run, images, tmp_path / "first", draw=True, **QUIET).drawn[0].name  # the one with the highest score
    read, seen = predict_module.read_pixels, []

    def once(source, index):
        seen.append(source.key(index))
        if seen[-1] == gone and seen.count(gone) > 1:
            raise FileNotFoundError(2, "No such file", gone)
        return read(source, index)

    monkeypatch.setattr(predict_module, "read_pixels", once)
    found = predict(run, images, tmp_path / "found", draw=True, **QUIET)
    assert (found.done, found.unreadable) == (5, ())
    assert len(list((tmp_path / "found" / "drawn").iterdir())) == 4
    assert f"{gone}: not drawn" in caplog.text
    assert found.drawn
    assert len(found.shown()) == 1 + len(found.drawn)  # a table of classes, and the drawings that are there


def test_truncated_image_is_counted_once_though_read_twice(run, photograph, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("socodet"), "propagate", True)
    (tmp_path / "cut.jpg").write_bytes(photograph.read_bytes()[:-400])
    predict(run, tmp_path / "cut.jpg", tmp_path / "found", draw=True, **QUIET)
    assert "1 truncated JPEG:" in caplog.text


def test_boxes_and_masks_are_drawn_on_their_pixels():
    """A box covers the pixels up to its right and bottom, without these; label 2 is the second class."""
    mask = np.zeros((80, 100), bool)
    mask[5:9, 80:90] = True
    boxes, masks = np.float32([[20, 30, 60, 70]] * 2), encode_masks(np.stack([mask, 0 * mask]))
    found = Detections(boxes, np.float32([0.5, 0.4]), np.array([2, 1]), masks)
    drawn = np.asarray(draw_objects(np.full((80, 100, 3), 100, np.uint8), found, ["cat", "dog"]))
    other, colour = (np.array(ImageColor.getrgb(one)) for one in OBJECT_COLOURS[:2])
    expected = np.zeros((80, 100), bool)
    expected[30:70, 20:60] = True
    expected[31:69, 21:59] = False
    np.testing.assert_array_equal((drawn == colour).all(2)[45:], expected[45:])  # the labels are above
    assert [drawn[y, 20].tolist() for y in (29, 31)] == [colour.tolist(), other.tolist()]
    np.testing.assert_array_equal(drawn[5:9, 80:90], np.broadcast_to(np.round(60 + 0.4 * colour), (4, 10, 3)))
    assert (drawn[:5] == 100).all()


def test_labels_do_not_hide_a_long_strip():
    strip = np.full((40, 4000, 3), 128, np.uint8)
    found = Detections(np.array([[2000, 2, 2200, 20]], np.float32), np.array([0.5], np.float32), np.array([1]))
    drawn = np.asarray(draw_objects(strip, found, ["name"]))
    assert (drawn[:20] != 128).any()
    assert (drawn[24:] == 128).all()


def test_labels_of_boxes_with_a_common_corner_do_not_overlap():
    taken = []
    for _ in range(4):
        taken.append(free_place((90, 5), (30, 10), (100, 40), taken))
    assert taken == [(70, 0, 100, 10), (70, 10, 100, 20), (70, 20, 100, 30), (70, 30, 100, 40)]
    assert free_place((90, 5), (30, 10), (100, 40), taken) == (70, 0, 100, 10)  # no place is free
    assert free_place((10, 25), (30, 10), (100, 40), taken) == (10, 15, 40, 25)  # above its box
    assert free_place((10, 30), (30, 10), (100, 40), [(0, 20, 9, 30)]) == (10, 20, 40, 30)  # beside the other
    assert free_place((10, 30), (30, 10), (100, 40), [(0, 0, 100, 5), (0, 18, 100, 28)]) == (10, 28, 40, 38)


def test_another_detector_with_the_same_steps_is_refused(run, photograph, tmp_path):
    """What identifies a detector is its weights, not its folder."""
    trained, moved = tmp_path / "det", tmp_path / "moved"
    shutil.copytree(run, trained)
    predict(trained, photograph, tmp_path / "found", **QUIET)
    trained.rename(moved)
    assert predict(moved, photograph, tmp_path / "found", **QUIET).finished
    shutil.copytree(moved, trained)
    folder = RunFolder(trained)
    state = folder.load_checkpoint()
    name = next(name for name, value in state["detector"].items() if value.ndim == 4)
    state["detector"][name] += 1.0
    folder.save_checkpoint(state["step"], state)
    with pytest.raises(InputError, match="weights of the detector"):
        predict(trained, photograph, tmp_path / "found", **QUIET)


def test_replaced_images_are_predicted_again(run, images, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("socodet"), "propagate", True)
    own, fresh = tmp_path / "images", tmp_path / "fresh"
    shutil.copytree(images, own)
    predict(run, own, tmp_path / "found", **QUIET)
    first, second, *_ = sorted(own.iterdir())
    before = json.loads((tmp_path / "found" / "predictions.json").read_text())
    time = second.stat().st_mtime_ns
    shutil.copyfile(first, second)
    os.utime(second, ns=(time + 10**9, time + 10**9))
    again = predict(run, own, tmp_path / "found", **QUIET)
    assert (again.finished, again.images, again.done) == (True, 5, 5)
    assert f"1 image changed since the last call (first: {second.name})" in caplog.text
    predict(run, own, fresh, **QUIET)
    for name in ("predictions.json", "predictions.csv"):
        assert (tmp_path / "found" / name).read_bytes() == (fresh / name).read_bytes()
    assert json.loads((fresh / "predictions.json").read_text()) != before


def test_image_replaced_after_it_was_read_is_predicted_again(run, images, tmp_path, monkeypatch):
    """For example one that is read while it is still being copied."""
    own, fresh = tmp_path / "images", tmp_path / "fresh"
    shutil.copytree(images, own)
    first, second, *_ = sorted(own.iterdir())
    read = predict_module.read_pixels

    def read_and_replace(source, index):
        pixels = read(source, index)
        if source.key(index) == second.name:
            shutil.copyfile(first, second)
        return pixels

    monkeypatch.setattr(predict_module, "read_pixels", read_and_replace)
    predict(run, own, tmp_path / "found", **QUIET)
    monkeypatch.setattr(predict_module, "read_pixels", read)
    predict(run, own, fresh, **QUIET)
    assert (tmp_path / "found" / "predictions.json").read_bytes() != (fresh / "predictions.json").read_bytes()
    predict(run, own, tmp_path / "found", **QUIET)
    assert (tmp_path / "found" / "predictions.json").read_bytes() == (fresh / "predictions.json").read_bytes()


def test_images_can_be_added(run, images, tmp_path, monkeypatch):
    own = tmp_path / "images"
    own.mkdir()
    names = sorted(path.name for path in images.iterdir())
    for name in (names[1], names[3]):
        shutil.copy2(images / name, own / name)
    assert predict(run, own, tmp_path / "found", **QUIET).done == 2
    for name in names:
        if not (own / name).exists():
            shutil.copy2(images / name, own / name)
    shown, read = [], predict_module.read_pixels
    monkeypatch.setattr(
        predict_module, "read_pixels", lambda source, index: shown.append(source.key(index)) or read(source, index)
    )
    again = predict(run, own, tmp_path / "found", **QUIET)
    monkeypatch.undo()
    assert (again.finished, again.images) == (True, len(names))
    assert sorted(shown) == [name for name in names if name not in (names[1], names[3])]
    predict(run, own, tmp_path / "fresh", **QUIET)
    for name in ("predictions.json", "predict.json"):
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    (own / names[0]).unlink()
    with pytest.raises(InputError, match="holds other predictions"):
        predict(run, own, tmp_path / "found", **QUIET)


def test_predictions_of_a_listed_image_that_is_gone_are_kept(run, images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    listed = sorted((tmp_path / "images").iterdir())
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in listed))
    predict(run, tmp_path / "list.txt", tmp_path / "found", **QUIET)
    before = (tmp_path / "found" / "predictions.json").read_bytes()
    listed[1].unlink()
    assert not predict(run, tmp_path / "list.txt", tmp_path / "found", **QUIET).unreadable
    assert (tmp_path / "found" / "predictions.json").read_bytes() == before


@pytest.mark.usefixtures("signals_heard")
def test_folder_is_recognised_after_a_kill_during_overwriting(run, photograph, tmp_path, monkeypatch):
    predict(run, photograph, tmp_path / "found", draw=True, **QUIET)
    for last in ("found.jsonl", "predictions.json", "predictions.csv", "drawn"):
        unlink = Path.unlink

        def killed(path, last=last, unlink=unlink, **options):
            unlink(path, **options)
            if path.name == last:
                raise KeyboardInterrupt

        with monkeypatch.context() as within:
            within.setattr(Path, "unlink", killed)
            if last == "drawn":
                within.setattr(shutil, "rmtree", lambda *_, **__: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                predict(run, photograph, tmp_path / "found", draw=True, overwrite=True, **QUIET)
        assert predict(run, photograph, tmp_path / "found", draw=True, overwrite=True, **QUIET).finished


@pytest.mark.parametrize("odd", [b"\xff\xfe\n", b"[1]\n", b"{}\n", b"\0" * 9])
def test_damaged_line_is_predicted_again(run, images, tmp_path, odd):
    predict(run, images, tmp_path / "found", **QUIET)
    results = [tmp_path / "found" / name for name in ("found.jsonl", "predictions.json")]
    whole = [file.read_bytes() for file in results]
    lines = whole[0].splitlines(keepends=True)
    results[0].write_bytes(b"".join(lines[:3]) + odd + b"".join(lines[4:]))
    assert predict(run, images, tmp_path / "found", **QUIET).finished
    assert [file.read_bytes() for file in results] == whole


def test_labels_are_legible_on_every_colour():
    """The letters are dark: white on yellow would be illegible."""
    gray = np.full((60, 200, 3), 128, np.uint8)
    for label in range(1, len(OBJECT_COLOURS) + 1):
        found = Detections(np.array([[20, 30, 180, 58]], np.float32), np.array([0.5], np.float32), np.array([label]))
        drawn = np.asarray(draw_objects(gray, found, ["name"])).astype(int)
        tag = np.array(ImageColor.getrgb(OBJECT_COLOURS[label - 1]))
        above = drawn[:29].reshape(-1, 3)
        letters = above[(above != 128).any(1) & (above != tag).any(1)]
        assert len(letters) > 20
        assert (letters <= np.maximum(tag, 20)).all()  # none is brighter than the label's colour
        assert letters.sum(1).min() < 120


def test_default_workers_fit_into_the_memory(detector, images, tmp_path, monkeypatch):
    sizes = [Image.open(path).size for path in images.iterdir()]
    batch = 2 * sum(3 * width * height for width, height in sizes) / len(sizes)
    used = []

    def recorded(*some, workers, **more):
        used.append(workers)
        return inference.detect_each(*some, workers=0, **more)

    monkeypatch.setattr(predict_module, "detect_each", recorded)
    monkeypatch.setattr(devices, "available_cores", lambda: 64)
    for number, (memory, asked) in enumerate([(1e12, None), (2 * 3.5 * 4 * batch, None), (1, 5)]):
        monkeypatch.setattr(devices, "available_memory", lambda memory=memory: memory)
        execution = ExecutionSettings(device="cpu", workers=asked)
        predict(detector, images, tmp_path / str(number), batch_size=2, execution=execution, show_progress=False)
    assert used == [32, 3, 5]  # half of the cores; 3.5 workers of 4 batches fit into half of the memory; as asked
