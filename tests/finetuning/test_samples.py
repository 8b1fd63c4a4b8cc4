"""Training samples of detectors."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from photograph_sets import coco_file
from PIL import Image

import socodet.finetuning.samples as samples_module
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.detectors.by_name import detector_named
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.transform import flipped
from socodet.finetuning.loop import FinetuneLoop
from socodet.finetuning.samples import TrainingImages, image_stream
from socodet.finetuning.settings import EvaluationSettings
from socodet.runtime.world import World
from socodet.training import devices
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.streams import Stream
from socodet.training.workers import make_batches

MASKS, BOXES = detector_named("mask_rcnn_fpn"), detector_named("faster_rcnn_fpn")
SETTINGS = ScheduleSettings(10, batch_size=2, short_sides=(60, 80), max_side=110)


def test_boxes_and_masks_follow_the_image(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "a.json"))
    samples = TrainingImages(data, MASKS, SETTINGS, seed=3)
    seen = set()
    for epoch in range(12):
        image, target, problem = samples[(epoch, 0)]
        assert problem is None
        side = image.shape[-1]  # the astronaut's image is square
        assert image.shape == (3, side, side)
        assert side in (60, 80)
        assert target["masks"].shape == (2, side, side)
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            rows, columns = np.nonzero(mask.numpy())
            drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box.numpy(), drawn, atol=1.6)
        x1 = target["boxes"][0, 0].item() * 400 / side
        turned = abs(x1 - (400 - 360)) < abs(x1 - 20)
        seen.add((side, turned))
        original = data.pixels(0).astype(np.float32)
        shown = original[:, ::-1] if turned else original
        quarter = side // 4  # the mean of the left quarter shows whether it is flipped
        means = image[:, :, :quarter].float().mean((1, 2)), torch.tensor(shown[:, :100].mean((0, 1)))
        torch.testing.assert_close(*means, atol=2.0, rtol=0)
    assert seen == {(60, False), (60, True), (80, False), (80, True)}


def test_batch_is_in_0_to_1_and_depends_on_the_seed(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "a.json"))
    batches = [TrainingImages(data, BOXES, SETTINGS, seed=seed).batch([(n, 0) for n in range(8)]) for seed in (3, 4)]
    images, _ = batches[0].to(torch.device("cpu"))
    for one, other in zip(images, batches[0].images, strict=True):
        torch.testing.assert_close(one * 255, other.float())
    one, other = ([image[:, :1, :50].sum() for image in batch.images] for batch in batches)
    assert one != other


def test_flip_by_hand():
    image = torch.arange(2 * 5).reshape(1, 2, 5)
    target = {"boxes": torch.tensor([[1.0, 0, 3, 2]]), "labels": torch.tensor([4]), "masks": image > 4}
    turned, its = flipped(image, target)
    assert turned[0, 0].tolist() == [4, 3, 2, 1, 0]
    assert its["boxes"].tolist() == [[2.0, 0, 4, 2]]
    assert its["labels"].tolist() == [4]
    assert torch.equal(its["masks"], (image > 4).flip(-1))


def test_samples_are_the_same_for_any_number_of_workers(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "a.json"))
    samples, stream = TrainingImages(data, MASKS, SETTINGS, seed=3), image_stream(data, SETTINGS, seed=3)
    here, there = (list(make_batches(samples.batch, map(stream.batch, range(1, 4)), n)) for n in (0, 2))
    for one, other in zip(here, there, strict=True):
        for a, b in zip(one.images, other.images, strict=True):
            assert torch.equal(a, b)
        for a, b in zip(one.targets, other.targets, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_objects_scaled_to_nothing_are_dropped_from_the_target(tmp_path):
    """An object of half a pixel in an image scaled to a hundredth, beside one that can be learned."""
    Image.fromarray(np.zeros((2000, 3000, 3), np.uint8)).save(tmp_path / "huge.png")
    square, speck = [500, 500, 1500, 1000], [2990.25, 5, 0.5, 0.5]
    notes = [
        {"id": k, "image_id": 1, "category_id": k, "bbox": box, "segmentation": [corners(box)]}
        for k, box in enumerate([speck, square], 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "huge.png", "width": 3000, "height": 2000}],
        "annotations": notes,
        "categories": [{"id": 1, "name": "speck"}, {"id": 2, "name": "square"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = open_detection_set(tmp_path / "a.json")
    assert len(data.images[0]) == 2  # it still counts in the scores
    assert data.target(0)["labels"].tolist() == [1, 2]
    small = ScheduleSettings(10, batch_size=1, short_sides=(20,), max_side=30)
    for epoch in range(4):
        _, target, _ = TrainingImages(data, MASKS, small, seed=3)[(epoch, 0)]
        assert target["labels"].tolist() == [2]
        assert target["masks"].shape == (1, 20, 30)
        assert target["masks"].sum() == 15 * 10
        assert target["boxes"].shape == (1, 4)


def corners(box):
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def test_missing_image_is_replaced_by_the_next_and_named(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "a.json", ("chelsea", "hopper")))
    image = data.images[0]
    object.__setattr__(image, "file", tmp_path / "gone.jpg")
    samples = TrainingImages(data, BOXES, SETTINGS, seed=3)
    _, target, problem = samples[(0, 0)]
    assert target["labels"].tolist() == [2]
    assert problem == (str(tmp_path / "gone.jpg"), problem[1])
    assert "gone.jpg" not in problem[1]
    assert "masks" not in target


def test_every_epoch_shows_each_image_once_across_processes():
    indices = np.arange(10, 60, 10)
    stream = Stream(indices, 2, seed=1)
    places = [place for step in range(5) for place in stream.batch(step)]
    assert sorted(places[:5]) == [(0, index) for index in indices]
    assert sorted(places[5:]) == [(1, index) for index in indices]
    order = [index for _, index in places[:5]]
    assert order != [index for _, index in places[5:]]
    assert order != [index for step in range(3) for _, index in Stream(indices, 2, seed=2).batch(step)][:5]
    shares = [Stream(indices, 2, seed=1, world=World(rank, 2)).batch(3) for rank in (0, 1)]
    assert shares[0] + shares[1] == stream.batch(3)


def test_repeated_images_come_as_often_as_their_factor_as_different_samples():
    stream = Stream(np.arange(3), 4, seed=1, factors=(1.0, 2.5, 1.0))
    places = [place for step in range(450) for place in stream.batch(step)]  # 400 epochs of 4.5 images
    counts = np.bincount([index for _, index in places], minlength=3) / 400
    np.testing.assert_allclose(counts, [1.0, 2.5, 1.0], atol=0.06)  # one standard deviation is 0.025
    assert len(set(places)) == len(places)
    again = Stream(np.arange(3), 4, seed=1, factors=(1.0, 2.5, 1.0))
    assert again.batch(300) == stream.batch(300)


def test_repeats_are_counted_within_an_epoch_without_hashing_the_factors():
    class Factors(tuple):
        __hash__ = None  # hashing would take time in proportion to the images, for every place

    stream = Stream(np.arange(100, 140), 7, seed=2, factors=Factors(1 + k % 3 * 0.75 for k in range(40)))
    places = [place for step in range(40) for place in stream.batch(step)]
    by_pass = {}
    for place, index in places:
        seen = by_pass.setdefault(place % 2**32, [])
        assert place // 2**32 == seen.count(index)
        seen.append(index)
    assert len(by_pass) > 3
    assert [*by_pass] == [*range(len(by_pass))]
    assert {*by_pass[0]} == {*range(100, 140)}
    assert by_pass[0] != sorted(by_pass[0])
    assert stream.batch(1) == places[7:14]


def test_data_worker_never_reads_the_parents_list_of_images(tmp_path):
    """Reading it changes reference counts, so each worker would gradually copy the whole dataset."""
    parent = os.getpid()

    class OnlyHere(list):
        def __getitem__(self, index):
            assert os.getpid() == parent
            return super().__getitem__(index)

    data = open_detection_set(coco_file(tmp_path / "a.json"))
    samples = TrainingImages(replace(data, images=OnlyHere(data.images)), MASKS, SETTINGS, seed=3)
    places = [[(epoch, 0)] for epoch in range(3)]
    for place, batch in zip(places, make_batches(samples.made, map(samples.task, places), 1), strict=True):
        assert torch.equal(batch.images[0], TrainingImages(data, MASKS, SETTINGS, seed=3)[place[0]][0])


def test_spawned_worker_has_its_own_dataset_and_receives_only_indices(tmp_path, monkeypatch):
    data = open_detection_set(coco_file(tmp_path / "a.json"))
    samples = TrainingImages(data, MASKS, SETTINGS, seed=3)
    assert samples.task([(0, 1)])[1].keys() == {1}
    monkeypatch.setattr(samples_module, "FORKED", False)
    places, images = samples.task([(0, 1)])
    assert not images
    assert torch.equal(samples.made((places, images)).images[0], samples[(0, 1)][0])


@pytest.mark.parametrize(
    ("short_side", "precise_bn", "during"),
    [(320, 5, "reestimation"), (320, 0, "scoring"), (32, 5, "scoring"), (320, 0, "training")],
)
def test_workers_of_training_and_evaluation_fit_into_memory_together(
    tmp_path, monkeypatch, short_side, precise_bn, during
):
    """Square images of the schedule's largest size, with masks. An evaluation reads sixteen images at once."""
    data = open_detection_set(coco_file(tmp_path / "a.json", ("astronaut",)))
    settings = replace(SETTINGS, batch_size=16, short_sides=(short_side,), max_side=short_side, precise_bn=precise_bn)
    samples = TrainingImages(data, MASKS, settings, seed=3)
    batch = samples.batch([(0, 0)] * 16)
    tensors = [*batch.images, *(target["masks"] for target in batch.targets)]
    batch_size = sum(map(torch.numel, tensors))
    others = {"training": 0, "reestimation": batch_size, "scoring": 16 * data.pixels(0).size}
    size = batch_size + others[during]
    monkeypatch.setattr(devices, "available_cores", lambda: 16)
    monkeypatch.setattr(devices, "available_memory", lambda: 3.5 * 4 * size / 0.5)
    tuner = SimpleNamespace(
        finished=0,
        total=10,
        pending=False,
        detector=MASKS,
        settings=settings,
        device=torch.device("cpu"),
        world=World(),
    )
    validation = None if during == "training" else data
    for asked, workers in ((None, 3), (5, 5)):
        execution = ExecutionSettings(workers=asked)
        loop = FinetuneLoop(tuner, data, validation, RunFolder(tmp_path), EvaluationSettings(), execution, False)
        assert loop.workers == workers
