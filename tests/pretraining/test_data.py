import io
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import socodet.pretraining.trainer as trainer_module
from socodet.errors import ArgumentError, InputError, UnreadableImageError
from socodet.images.source import open_images
from socodet.models.architectures import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.pretraining.data import SampleDataset, replaced_images
from socodet.pretraining.recipes import recipe
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import Trainer, run_training
from socodet.proposals.image_boxes import OnlineProposals
from socodet.proposals.settings import ProposalSettings
from socodet.runtime import extensions
from socodet.training import devices
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.streams import Stream
from socodet.training.workers import make_batches
from socodet.views.batch import collate
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings

INDICES = np.array([0, 2, 3, 5, 7], dtype=np.int64)
SMALL = SampleSettings(
    views=(
        ViewSettings("whole", 32),
        ViewSettings("crop", 32, PhotometricSettings()),
        ViewSettings("previous", 16),
    ),
    boxes_per_image=2,
    min_box_side=2,
)


class NoisyImages:
    """Eight noisy images in memory, some of them broken."""

    location = "memory"

    def __init__(self, broken=()):
        rng = np.random.default_rng(0)
        self.files = []
        for index in range(8):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(file, "PNG")
            self.files.append(b"broken" if index in broken else file.getvalue())

    def __len__(self):
        return len(self.files)

    def key(self, index):
        return f"{index}.png"

    def read(self, index):
        return self.files[index]


class Table:
    """The part of a proposal table that a dataset needs."""

    def look_up(self, key, data):
        if key == "7.png":
            raise UnreadableImageError("of another size")
        return 48, np.array([[2, 3, 30, 33], [10, 10, 40, 36], [5, 0, 25, 20]], dtype=np.float32) + len(key) % 2


def stream(batch_size=3, seed=0):
    return Stream(INDICES, batch_size, seed)


def test_every_epoch_shows_every_image_once_in_a_new_order():
    positions = [pair for step in range(15) for pair in stream().batch(step)]  # 45 positions: 9 epochs of 5
    passes = [[index for epoch, index in positions if epoch == e] for e in range(9)]
    assert [epoch for epoch, _ in positions] == sorted(epoch for epoch, _ in positions)
    for shown in passes:
        assert sorted(shown) == INDICES.tolist()
    assert len({tuple(shown) for shown in passes}) > 3


def test_images_fewer_than_a_batch_are_repeated():
    batch = stream(batch_size=12).batch(0)
    assert Counter(epoch for epoch, _ in batch) == {0: 5, 1: 5, 2: 2}


def test_seed_determines_the_order():
    assert stream(seed=1).batch(4) == stream(seed=1).batch(4)
    assert [stream(seed=1).batch(k) for k in range(4)] != [stream(seed=2).batch(k) for k in range(4)]


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_no_sample(workers):
    dataset = SampleDataset(NoisyImages(), Table(), INDICES[:4], SMALL, seed=3)
    few = Stream(INDICES[:4], 3, 3)
    here = list(make_batches(dataset.batch, map(few.batch, range(1, 4)), 0))
    there = list(make_batches(dataset.batch, map(few.batch, range(1, 4)), workers))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.windows, b.windows)
        for x, y in zip(a.views, b.views, strict=True):
            assert torch.equal(x.pixels, y.pixels)
            assert torch.equal(x.rois.rois, y.rois.rois)
            assert x.rois.counts == y.rois.counts


def test_unreadable_image_is_replaced_by_the_next_and_recorded():
    # 2 is broken and 3 is fine; 7 does not have the size of its boxes, and 0 comes after it
    dataset = SampleDataset(NoisyImages(broken=(2,)), Table(), INDICES, SMALL, seed=0)
    assert dataset[(0, 0)][0] == 0
    assert dataset[(0, 2)][0] == 3
    assert dataset[(0, 7)][0] == 0
    whole_pass = Stream(INDICES, 5, 0)
    (batch,) = make_batches(dataset.batch, map(whole_pass.batch, range(1)), 0)
    assert replaced_images(batch, whole_pass.batch(0)) == {2, 7}


@pytest.mark.usefixtures("narrow_networks")
def test_images_of_a_step_are_drawn_once(tmp_path, monkeypatch):
    """With a GPU a thread prepares batches ahead, and a stream must not be used by two threads."""
    drawn, batch = [], Stream.batch
    monkeypatch.setattr(Stream, "batch", lambda stream, step: drawn.append(step) or batch(stream, step))
    torch.manual_seed(0)
    model = ModelSettings("fpn", "resnet18", 8, 1, 8, 8, 7, 16, 8)
    settings = TrainingSettings(epochs=2, warmup_epochs=0, batch_size=4)
    trainer = Trainer(SoCo(build_encoder(model), model), settings, len(INDICES))
    dataset = SampleDataset(NoisyImages(broken=(2,)), Table(), INDICES, SMALL, seed=0)
    execution = ExecutionSettings("cpu", workers=1)
    _, unreadable = run_training(
        trainer, dataset, Stream(INDICES, 4, 0), RunFolder(tmp_path), execution, show_progress=False
    )
    assert trainer.total == 2
    assert drawn == [0, 1]
    assert unreadable == {2, 7}  # 7 does not have the size of its boxes


def test_indices_may_be_in_any_order():
    ordered = SampleDataset(NoisyImages(), Table(), INDICES, SMALL, seed=0)
    shuffled = SampleDataset(NoisyImages(), Table(), INDICES[::-1].tolist(), SMALL, seed=0)
    assert len(shuffled) == len(INDICES)
    for index in INDICES[INDICES != 7]:
        found, sample = shuffled[(1, index)]
        assert found == index
        assert all(map(np.array_equal, sample.pixels, ordered[(1, index)][1].pixels))


@pytest.mark.parametrize(("place", "message"), [(3, "not 3"), ((0, 1, 2), "not"), ((0, 8), "index 8"), ((0, -1), "-1")])
def test_index_without_an_image_is_refused(place, message):
    dataset = SampleDataset(NoisyImages(), Table(), INDICES, SMALL, seed=0)
    with pytest.raises(InputError, match=message):
        dataset[place]
    with pytest.raises(InputError, match=message):
        dataset.batch([place])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((None, Table(), SMALL), "source"),
        ((NoisyImages(), SMALL, SMALL), "proposals"),
        ((NoisyImages(), Table(), 3), "settings"),
    ],
)
def test_arguments_of_the_wrong_type_are_named(wrong, message):
    source, proposals, settings = wrong
    with pytest.raises(InputError, match=f"^SampleDataset: {message} must be"):
        SampleDataset(source, proposals, INDICES, settings, seed=0)


def test_online_proposals_need_proposal_settings():
    for wrong in ("grid", recipe("tiny")):
        with pytest.raises(ArgumentError, match="settings must be"):
            OnlineProposals(wrong)


@pytest.mark.parametrize("indices", [np.arange(8) != 3, [0.5, 1.5], [0, 8], [-1, 0], [[0, 1], [2, 3]], [[0], [1, 2]]])
def test_invalid_indices_are_refused(indices):
    """A boolean mask of images would be taken for images 0 and 1."""
    with pytest.raises(ArgumentError, match=r"^SampleDataset: ind(ex|ices)"):
        SampleDataset(NoisyImages(), Table(), indices, SMALL, seed=0)


def test_invalid_numbers_and_places_are_refused():
    for wrong in ({"seed": -1}, {"seed": 1.5}, {"seed": 0, "shown": -1}):
        with pytest.raises(ArgumentError, match=f"^SampleDataset: {[*wrong][-1]} must be"):
            SampleDataset(NoisyImages(), Table(), INDICES, SMALL, **wrong)
    dataset = SampleDataset(NoisyImages(), Table(), INDICES, SMALL, seed=0)
    for place in ((-1, 0), (0, 0.7)):
        with pytest.raises(ArgumentError, match="a place is"):
            dataset[place]
    with pytest.raises(ArgumentError, match="sample"):
        dataset.batch([])
    assert dataset[(np.int64(1), torch.tensor(2))][0] == 2


class OwnBoxes:
    """A user's own source of boxes."""

    def __init__(self, found):
        self.found = found

    def look_up(self, key, data):
        return self.found


@pytest.mark.parametrize(
    "found", [None, 48, (48, [1, 2, 3, 4]), (48, [[1, 2, 3]]), (48, [[0, 0, np.nan, 9]]), (96, [[2, 3, 30, 33]])]
)
def test_look_up_must_return_width_and_boxes(found):
    """With a wrong width, boxes would be scaled as if a smaller version of the image had been decoded."""
    dataset = SampleDataset(NoisyImages(), OwnBoxes(found), INDICES, SMALL, seed=0)
    with pytest.raises(ArgumentError, match=r"look_up .*0\.png"):
        dataset[(0, 0)]


@pytest.mark.parametrize(
    "boxes",
    [
        [[0.1, 0.2, 0.7, 0.8], [0, 0, 1, 1]],  # shares of the image
        [[4, 6, 30, 33], [30, 6, 12, 20]],  # the second is x, y, width, height
        [[4, 20, 30, 8]],
        [[48, 10, 90, 30], [60, 60, 80, 80]],  # pixels of a larger version
    ],
)
def test_boxes_in_other_coordinates_are_refused(boxes):
    """Views show none of them, so the whole image would silently be the object."""
    dataset = SampleDataset(NoisyImages(), OwnBoxes((48, boxes)), INDICES, SMALL, seed=0)
    with pytest.raises(ArgumentError, match=r"look_up .*0\.png.*48x"):
        dataset[(0, 0)]


@pytest.mark.parametrize(
    "boxes", [[[-5, -2, 60, 70]], [[4, 6, 30, 33], [60, 60, 80, 80]], [[4, 6, 30, 33], [9, 9, 9, 9]]]
)
def test_boxes_may_reach_outside(boxes):
    sample = SampleDataset(NoisyImages(), OwnBoxes((48, boxes)), INDICES, SMALL, seed=0)[(0, 0)][1]
    assert (sample.proposals == boxes[0]).all()


def test_empty_list_of_boxes_is_accepted():
    one, other = (
        SampleDataset(NoisyImages(), OwnBoxes((48, none)), INDICES, SMALL, seed=0) for none in ([], np.empty((0, 4)))
    )
    assert np.array_equal(one[(0, 0)][1].boxes[1], other[(0, 0)][1].boxes[1])


@pytest.mark.parametrize("size", [(2001, 1999), (1999, 2001)])
def test_boxes_of_a_large_jpeg_are_in_pixels_of_the_whole_image(tmp_path, size):
    """It is decoded at a fraction of its size, but its boxes are in pixels of the whole image."""
    Image.new("RGB", size).save(tmp_path / "large.jpg")
    boxes = np.array([[100, 200, 1500, 1900]], np.float32)
    dataset = SampleDataset(open_images(tmp_path), OwnBoxes((size[0], boxes)), [0], SMALL, seed=0)
    found = dataset[(0, 0)][1].proposals
    assert np.allclose(found * (boxes[0, 2] / found[0, 2]), boxes, atol=2)


def test_torchs_data_loader_needs_a_sampler_of_places():
    dataset = SampleDataset(NoisyImages(), Table(), INDICES, SMALL, seed=3)
    places = [(0, 0), (0, 3), (2, 0)]
    batches = [*DataLoader(dataset, 2, sampler=places, collate_fn=collate)]
    expected = dataset.batch(places[:2])
    assert torch.equal(batches[0].views[1].pixels, expected.views[1].pixels)
    assert len(batches) == 2
    with pytest.raises(InputError, match=r"a place is \(epoch, image index\)"):
        next(iter(DataLoader(dataset, 2, shuffle=True, collate_fn=collate)))


def brightest(image, rng):
    """A box whose width depends on the image's brightness."""
    return [[0, 0, 10 + image.max() // 8, 30]]


def test_online_proposals_see_images_as_the_source_reads_them(tmp_path, monkeypatch):
    """Images of 12 bits, which read as 16 bits would be nearly black."""
    monkeypatch.setattr(extensions, "_REGISTERED", {})
    for name in "abc":
        Image.fromarray(np.full((40, 48), 4095, np.uint16)).save(tmp_path / f"{name}.png")
    settings = ProposalSettings(extensions.register(brightest), min_scale=0, max_scale=1)
    samples = SampleDataset(open_images(tmp_path), OnlineProposals(settings), range(3), SMALL, seed=0)
    assert {tuple(box) for box in samples[(0, 1)][1].proposals.tolist()} == {(0, 0, 10 + 255 // 8, 30)}


def test_dataset_without_readable_images_is_an_error():
    dataset = SampleDataset(NoisyImages(broken=range(8)), Table(), INDICES, SMALL, seed=0)
    with pytest.raises(UnreadableImageError, match="none of its images"):
        dataset[(0, 0)]


@pytest.mark.usefixtures("narrow_networks")
@pytest.mark.parametrize(("memory", "asked", "workers"), [(1e12, None, 4), (2.5, None, 2), (2.5, 3, 3)])
def test_run_has_fewer_workers_if_their_batches_would_fill_the_memory(tmp_path, monkeypatch, memory, asked, workers):
    """Eight cores, with room in half of the memory for the batches of `memory` workers, which hold four each."""
    dataset = SampleDataset(NoisyImages(), Table(), INDICES, SMALL, seed=0)
    batch = dataset.batch([(0, index) for index in (0, 2, 3, 5)])
    size = sum(view.pixels.numel() * view.pixels.element_size() for view in batch.views)
    counts = []

    def make(function, tasks, count, **_):
        counts.append(count)
        return make_batches(function, tasks, 0)

    monkeypatch.setattr(devices, "available_cores", lambda: 8)
    monkeypatch.setattr(devices, "available_memory", lambda: memory * 4 * size / 0.5)
    monkeypatch.setattr(trainer_module, "make_batches", make)
    model = ModelSettings("fpn", "resnet18", 8, 1, 8, 8, 7, 16, 8)
    settings = TrainingSettings(epochs=1, warmup_epochs=0, batch_size=4)
    trainer = Trainer(SoCo(build_encoder(model), model), settings, len(INDICES), ExecutionSettings("cpu"))
    execution = ExecutionSettings("cpu", workers=asked)
    run_training(trainer, dataset, Stream(INDICES, 4, 0), RunFolder(tmp_path), execution, show_progress=False)
    assert counts == [workers]
