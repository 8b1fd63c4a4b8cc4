"""The samples of a probe: which objects, where they are in each view, and how batches are made."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made_sets import made_image, made_set
from photograph_sets import coco_file
from PIL import Image
from torch import nn
from torchvision.ops import roi_align

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.errors import InputError, SettingError
from socodet.probing import scores as probing_scores
from socodet.probing.datasets import ProbeDatasets, open_probe_datasets
from socodet.probing.features import object_features
from socodet.probing.samples import ProbeDataset, View, collate_views, probed_objects
from socodet.probing.scores import probe_encoder
from socodet.probing.settings import ProbeData, ProbeSettings
from socodet.runtime.notices import notice
from socodet.training import devices
from socodet.views.settings import SampleSettings

COLOURS = ((250, 20, 20), (20, 250, 20), (40, 40, 250))


def painted(folder, rows, *, size=(200, 150)) -> DetectionDataset:
    """Gray PNG images with objects in the colour of their label (one of three), and their annotations."""
    folder.mkdir()
    images = []
    for number, objects in enumerate(rows):
        pixels = np.full((size[1], size[0], 3), 128, np.uint8)
        for x1, y1, x2, y2, label in objects:
            pixels[y1:y2, x1:x2] = COLOURS[label - 1]
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append(replace(made_image(number, objects, size=size), file=folder / f"{number}.png"))
    return made_set(images, "coco", classes=3)


def shown(dataset, size=96, *, seed=0):
    objects, _ = probed_objects(dataset)
    samples = ProbeDataset(dataset, objects, size, SampleSettings(), all_views=True, seed=seed)
    return [samples[place] for place in range(len(samples))]


def test_objects_are_selected_for_probing():
    size = (200, 100)  # 0.07 of the image: 14 wide, 7 high
    one = made_image(
        1,
        [
            (0, 0, 14, 7, 1),
            (0, 0, 13, 50, 1),
            (0, 0, 90, 6, 2, "difficult"),
            (0, 0, 5, 5, 1, "crowd"),
            (3, 3, 90, 90, 2),
        ],
        size=size,
    )
    objects, counts = probed_objects(
        made_set([one, made_image(2, []), made_image(3, [(0, 0, 50, 50, 1)])], "voc", classes=2)
    )
    assert [chosen.tolist() for chosen in objects] == [[0, 4], [], [0]]
    assert (counts.images, counts.objects, counts.crowd, counts.difficult, counts.small) == (2, 3, 1, 1, 1)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_lie_on_their_objects_in_every_view(tmp_path, seed):
    dataset = painted(tmp_path / "set", [[(20, 30, 80, 90, 1), (110, 40, 190, 140, 2)]])
    (one,) = shown(dataset, seed=seed)
    assert [tuple(view.pixels.shape) for view in (one.plain, one.half, one.other)] == [
        (3, 96, 96),
        (3, 48, 48),
        (3, 96, 96),
    ]
    assert one.plain.boxes[0].tolist() == pytest.approx([20 * 96 / 200, 30 * 96 / 150, 80 * 96 / 200, 90 * 96 / 150])
    assert torch.allclose(one.half.boxes, one.plain.boxes / 2)
    assert len(one.other.boxes) == one.in_other.sum()
    assert one.plain.levels.tolist() == [0, 1]  # 28.8 by 38.4 pixels, at most 48²; and 38.4 by 64
    for view in (one.plain, one.half, one.other):
        for x1, y1, x2, y2 in view.boxes.tolist():
            # a single colour inside, but not including the border, except at the view's edge
            inside = view.pixels[:, round(y1) + 4 : round(y2) - 4, round(x1) + 4 : round(x2) - 4].float()
            assert float(inside.std(dim=(1, 2)).max()) < 2
            right = view.pixels[:, round((y1 + y2) / 2), max(round(x2) - 6, 0) : round(x2) + 6].float()
            left = view.pixels[:, round((y1 + y2) / 2), max(round(x1) - 6, 0) : round(x1) + 6].float()
            for strip, on_border in ((left, x1 < 1), (right, x2 > view.pixels.shape[-1] - 1)):
                assert on_border or float(strip.std(dim=1).max()) > 5


def test_boxes_of_a_batch_have_their_image_and_level():
    def view(*levels):
        boxes = torch.arange(4.0 * len(levels)).reshape(-1, 4) + 100 * len(levels)
        return View(torch.full((3, 8, 8), len(levels), dtype=torch.uint8), boxes, torch.tensor(levels))

    views = [view(3, 0, 1), view(2), view(0, 3)]
    batch = collate_views(views)
    assert batch.rois.counts == (2, 1, 1, 2)
    in_order = batch.rois.rois[batch.rois.order]
    assert in_order[:, 0].tolist() == [0, 0, 0, 1, 2, 2]
    assert torch.equal(in_order[:, 1:], torch.cat([v.boxes for v in views]))
    assert batch.rois.rois[:, 0].tolist() == [0, 2, 0, 1, 0, 2]  # P2's boxes first
    assert batch.pixels[:, 0, 0, 0].tolist() == [3, 1, 2]


class MeanColour(nn.Module):
    """An encoder whose features of a box are its mean normalised colour."""

    representation_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, pixels, rois):
        return roi_align(pixels, rois.rois, 4, aligned=True).mean(dim=(2, 3))[rois.order]


def rows(seed, count):
    generator = np.random.default_rng(seed)
    kinds = generator.integers(1, 4, (count, 2))
    return [[(10, 20, 90, 140, int(a)), (105, 15, 190, 120, int(b))] for a, b in kinds]


def test_an_encoder_of_colours_distinguishes_classes_by_colour(tmp_path):
    train = painted(tmp_path / "train", rows(0, 40))
    val = painted(tmp_path / "val", rows(1, 20))
    settings = ProbeSettings(size=64, max_train_images=None)
    scores = probe_encoder(MeanColour(), ProbeDatasets.chosen(train, val, settings), SampleSettings(), settings)
    assert (scores.knn, scores.knn_balanced, scores.linear, scores.linear_balanced) == (1, 1, 1, 1)
    assert scores.largest_class < 0.6
    assert scores.scale_cosine > 0.99
    assert scores.others_cosine < 0.5
    assert 0 < scores.recall_at_1 < 0.5  # forty objects of three colours cannot be distinguished
    assert (scores.train.objects, scores.val.objects, scores.val.unreadable) == (80, 40, 0)
    # labels permuted in the training set: none is predicted
    renamed = replace(train, images=[replace(image, labels=image.labels % 3 + 1) for image in train.images])
    wrong = probe_encoder(MeanColour(), ProbeDatasets(renamed, val), SampleSettings(), settings)
    assert (wrong.knn, wrong.linear, wrong.recall_at_1) == (0, 0, scores.recall_at_1)


def test_images_that_cannot_be_read_are_counted_and_an_empty_set_is_refused(tmp_path):
    train, val = painted(tmp_path / "train", rows(0, 6)), painted(tmp_path / "val", rows(1, 3))
    settings = ProbeSettings(size=64, max_val_images=2)
    sets = ProbeDatasets.chosen(train, val, settings)
    assert len(sets.val) == 2
    sets.val.images[0].file.write_bytes(b"not an image")
    scores = probe_encoder(MeanColour(), sets, SampleSettings(), settings, workers=1)
    assert (scores.val.unreadable, scores.val.objects, scores.train.objects) == (1, 2, 12)
    sets.val.images[1].file.unlink()
    with pytest.raises(InputError, match=r"has no object to probe .* 2 images unreadable"):
        probe_encoder(MeanColour(), sets, SampleSettings(), settings)
    with pytest.raises(SettingError, match="max_train_images must be at least 1"):
        ProbeSettings(max_train_images=0)


def test_an_object_annotated_twice_is_searched_for_once(tmp_path):
    train = painted(tmp_path / "train", rows(0, 10))
    once = painted(tmp_path / "once", [[(10, 20, 190, 190, 1)], [(10, 20, 190, 190, 2)], [(10, 20, 190, 190, 3)]])
    twice = replace(
        once,
        images=[
            replace(
                image,
                **{
                    name: np.repeat(getattr(image, name), 2, axis=0)
                    for name in ("boxes", "labels", "crowd", "difficult", "areas")
                },
            )
            for image in once.images
        ],
    )
    settings = ProbeSettings(size=64)
    one, two = (
        probe_encoder(MeanColour(), ProbeDatasets(train, val), SampleSettings(), settings) for val in (once, twice)
    )
    assert one.recall_at_1 == 1
    assert (one.recall_at_1, one.recall_objects) == (two.recall_at_1, two.recall_objects)
    assert two.val.objects == 2 * one.val.objects


def test_images_in_both_splits_are_noted(tmp_path, caplog):
    train = painted(tmp_path / "train", rows(0, 6))
    val = painted(tmp_path / "val", [[(10, 20, 90, 141 + place, 1)] for place in range(3)])
    notice.cache_clear()
    ProbeDatasets.chosen(train, val, ProbeSettings())
    assert not caplog.records
    ProbeDatasets.chosen(train, replace(val, images=[*val.images, *train.images[:2]]), ProbeSettings())
    assert "2 of its 5 images are also in" in caplog.text


def test_a_probe_takes_the_requested_splits(tmp_path):
    for split, names in (("train", ["hopper"]), ("val", ["astronaut"]), ("test", ["astronaut", "chelsea"])):
        coco_file(tmp_path / f"{split}.json", names)
    for asked, expected in (({}, (1, 1)), ({"train_split": "test"}, (2, 1)), ({"val_split": "test"}, (1, 2))):
        sets = open_probe_datasets(ProbeData(tmp_path, **asked))
        assert (len(sets.train), len(sets.val)) == expected


def test_default_workers_fit_into_the_memory(tmp_path, monkeypatch):
    train, val = painted(tmp_path / "train", rows(0, 6)), painted(tmp_path / "val", rows(1, 3))
    chosen, _ = probed_objects(val)
    sample = ProbeDataset(val, chosen, 64, SampleSettings(), all_views=True)[0]
    batch = 32 * sum(view.pixels.nbytes for view in (sample.plain, sample.half, sample.other))
    used = []

    def recorded(encoder, dataset, workers, *more):
        used.append(workers)
        return object_features(encoder, dataset, 0, *more)

    monkeypatch.setattr(probing_scores, "object_features", recorded)
    monkeypatch.setattr(devices, "available_cores", lambda: 64)
    monkeypatch.setattr(devices, "available_memory", lambda: 2 * 3.5 * 4 * batch)
    for asked in (None, 5):
        settings = ProbeSettings(size=64)
        probe_encoder(MeanColour(), ProbeDatasets(train, val), SampleSettings(), settings, workers=asked)
    assert used == [3, 3, 5, 5]  # 3.5 workers of 4 batches fit into half of the memory; as asked
