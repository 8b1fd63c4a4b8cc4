"""Whole samples: pixels and boxes agree, objects are the same in every view, and every process draws the same."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from socodet.views.sample import Sample, _shared_region, make_sample, sample_rng
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings

_PLAIN = PhotometricSettings(jitter_probability=0, grayscale_probability=0, blur_probability=0, solarize_probability=0)
_SOCO_STAR = SampleSettings(views=(*SampleSettings().views, ViewSettings("crop", 192)))


def _with_views(settings: SampleSettings, **changes: object) -> SampleSettings:
    views = tuple(dataclasses.replace(view, **changes) for view in settings.views)  # type: ignore[arg-type]
    return dataclasses.replace(settings, views=views)


def _image(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _proposals(height: int = 120, width: int = 160, count: int = 12) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    sides = rng.uniform(0.3, 0.8, (count, 2)) * (width, height)
    corner = rng.random((count, 2)) * ((width, height) - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def _equal(a: Sample, b: Sample) -> bool:
    def views(sample: Sample) -> list[NDArray[np.generic]]:
        return [*sample.pixels, *sample.boxes, *sample.levels]

    rest = ("windows", "flipped", "proposals")
    return all(map(np.array_equal, views(a), views(b))) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in rest
    )


def test_sample_has_the_right_shapes_and_types() -> None:
    sample = make_sample(_image(), _proposals(), _SOCO_STAR, sample_rng(0, 0, 0))
    assert [p.shape for p in sample.pixels] == [(3, 224, 224), (3, 224, 224), (3, 112, 112), (3, 192, 192)]
    assert {p.dtype for p in sample.pixels} == {np.dtype(np.uint8)}
    assert [(boxes.shape, boxes.dtype) for boxes in sample.boxes] == [((4, 4), np.float32)] * 4
    assert [(levels.shape, levels.dtype) for levels in sample.levels] == [((4,), np.int64)] * 4
    assert sample.partners == (0, 0, 0, 0)
    assert (sample.windows.shape, sample.windows.dtype) == ((4, 4), np.float32)
    assert (sample.flipped.shape, sample.flipped.dtype) == ((4,), np.bool_)
    assert (sample.proposals.shape, sample.proposals.dtype) == ((4, 4), np.float32)


@pytest.mark.parametrize("index", range(40))
def test_pixels_and_boxes_agree(index: int) -> None:
    """The proposal is a rectangle of one colour; each view's box is where the view has that colour."""
    rng = np.random.default_rng(index)
    height, width = (int(n) for n in rng.integers(150, 500, 2))
    x1, y1 = (int(n * f) for n, f in zip((width, height), rng.uniform(0.1, 0.5, 2), strict=True))
    x2, y2 = x1 + int(width * 0.4), y1 + int(height * 0.45)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = 255
    image[y1:y2, x1:x2] = (255, 0, 0)
    settings = dataclasses.replace(_with_views(_SOCO_STAR, photometric=_PLAIN), jitter=0.0, boxes_per_image=2)
    sample = make_sample(image, np.array([[x1, y1, x2, y2]], np.float32), settings, sample_rng(1, 0, index))
    assert len({tuple(box) for box in sample.proposals.tolist()}) == 1
    for pixels, boxes in zip(sample.pixels, sample.boxes, strict=True):
        rows, columns = (np.flatnonzero((pixels[0] >= 128).any(axis=axis)) for axis in (1, 0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert_allclose(boxes[0], seen, atol=1.0)


@pytest.mark.parametrize("index", range(20))
def test_box_is_the_same_object_in_every_view(index: int) -> None:
    settings = dataclasses.replace(_SOCO_STAR, jitter=0.0)
    sample = make_sample(_image(), _proposals(), settings, sample_rng(0, 3, index))
    assert len({tuple(box) for box in sample.proposals.tolist()}) == 4
    for v, view in enumerate(settings.views):
        left, top, right, bottom = sample.windows[v].astype(np.float64) * (160, 120, 160, 120)
        x = np.clip((sample.proposals[:, [0, 2]] - left) / (right - left) * view.size, 0, view.size)
        y = np.clip((sample.proposals[:, [1, 3]] - top) / (bottom - top) * view.size, 0, view.size)
        if sample.flipped[v]:
            x = view.size - x[:, ::-1]
        assert_allclose(sample.boxes[v][:, [0, 2]], x, atol=1e-3)
        assert_allclose(sample.boxes[v][:, [1, 3]], y, atol=1e-3)
        sides = sample.boxes[v][:, 2:] - sample.boxes[v][:, :2]
        assert sides.min() >= settings.min_box_side - 1e-3
        shown = sides.prod(axis=1) / (view.size**2) * (right - left) * (bottom - top)
        whole = (sample.proposals[:, 2:] - sample.proposals[:, :2]).prod(axis=1)
        assert (shown / whole).min() >= settings.min_visible - 1e-3


def test_third_view_is_the_second_at_half_size() -> None:
    settings = _with_views(SampleSettings(), photometric=_PLAIN, flip_probability=0.0)
    sample = make_sample(_image(), _proposals(), settings, sample_rng(0, 0, 1))
    assert np.array_equal(sample.windows[1], sample.windows[2])
    assert_allclose(sample.boxes[2], sample.boxes[1] / 2, atol=1e-4)
    # Means of 8 x 8 pixels in V2 and 4 x 4 in V3 differ only because filters reach beyond these squares.
    second = sample.pixels[1].reshape(3, 28, 8, 28, 8).mean(axis=(2, 4))
    third = sample.pixels[2].reshape(3, 28, 4, 28, 4).mean(axis=(2, 4))
    assert np.abs(second - third).mean() < 3


def test_only_half_of_the_first_views_boxes_are_jittered() -> None:
    settings = _with_views(SampleSettings(boxes_per_image=1), flip_probability=0.0, size=32, photometric=_PLAIN)
    x1, y1, x2, y2 = 8, 8, 24, 20  # the image has the view's size, so these are pixels of V1 too
    x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    moved = []
    for index in range(2000):
        proposals = np.array([[x1, y1, x2, y2]], np.float32)
        sample = make_sample(_image(32, 32), proposals, settings, sample_rng(0, 0, index))
        a, b, c, d = sample.boxes[0][0].tolist()
        if max(abs(a - x1), abs(b - y1), abs(c - x2), abs(d - y2)) > 1e-3:
            moved.append([((a + c) / 2 - x) / w, ((b + d) / 2 - y) / h, (c - a) / w - 1, (d - b) / h - 1])
        assert np.array_equal(sample.boxes[1], sample.boxes[2])
    assert abs(len(moved) - 1000) < 4 * np.sqrt(500)
    r = np.array(moved)
    assert np.abs(r).max() <= 0.1 + 1e-4
    assert_allclose(r.mean(axis=0), 0, atol=0.01)
    assert_allclose(r.std(axis=0), 0.2 / np.sqrt(12), rtol=0.1)
    assert np.abs(np.corrcoef(r.T) - np.eye(4)).max() < 0.15


@pytest.mark.parametrize(("anchor", "correlation"), [("centre", -(0.2**0.5)), ("corner", 0.0)])
def test_jitter_follows_its_probability_and_anchor(anchor: str, correlation: float) -> None:
    """A box that grows about its centre by r2 w moves its left side by r1 w - r2 w / 2; from its corner, by r1 w."""
    box = np.array([[8, 8, 24, 20]], np.float32)

    def drawn(probability: float, count: int) -> NDArray[np.float32]:
        settings = _with_views(
            SampleSettings(boxes_per_image=1, jitter_probability=probability, jitter_anchor=anchor),  # type: ignore[arg-type]
            flip_probability=0.0,
            size=32,
            photometric=_PLAIN,
        )
        samples = (make_sample(_image(32, 32), box, settings, sample_rng(0, 0, index)) for index in range(count))
        return np.concatenate([sample.boxes[0] for sample in samples])

    assert_allclose(drawn(0.0, 20), box.repeat(20, axis=0), atol=1e-3)
    moved = drawn(1.0, 800) - box
    assert (np.abs(moved).max(axis=1) > 1e-3).all()
    left, grown = moved[:, 0], moved[:, 2] - moved[:, 0]
    assert abs(np.corrcoef(left, grown)[0, 1] - correlation) < 4 / np.sqrt(800)


def test_jitter_moves_no_box_out_of_the_first_view() -> None:
    """If the first view is a crop, boxes may lie at its edge; a box of minimum size does not become smaller."""
    views = (ViewSettings("crop", 32, _PLAIN), ViewSettings("previous", 32, _PLAIN))
    settings = SampleSettings(
        views, boxes_per_image=1, crop_scale=(0.2, 0.3), min_visible=0.0, min_box_side=4.0, jitter=0.5
    )
    jittered = 0
    for index in range(300):
        sample = make_sample(_image(8, 8), np.array([[2, 2, 6, 6]], np.float32), settings, sample_rng(0, 0, index))
        sides = sample.boxes[0][:, 2:] - sample.boxes[0][:, :2]
        assert sides.min() >= settings.min_box_side - 1e-3
        jittered += bool(np.abs(sides - (sample.boxes[1][:, 2:] - sample.boxes[1][:, :2])).max() > 1e-3)
    assert jittered > 60


def test_flips_are_independent_and_even() -> None:
    settings = _with_views(SampleSettings(), size=16)
    flips = np.array(
        [
            make_sample(_image(4, 4), np.empty((0, 4), np.float32), settings, sample_rng(0, 0, i)).flipped
            for i in range(4000)
        ]
    )
    assert np.abs(flips.mean(axis=0) - 0.5).max() < 4 * 0.5 / np.sqrt(4000)
    assert np.abs(np.corrcoef(flips.T) - np.eye(3)).max() < 0.07


def test_every_proposal_is_drawn_equally_often() -> None:
    settings = dataclasses.replace(_with_views(SampleSettings(), size=16, window="whole"), boxes_per_image=2)
    proposals = np.array([[0, 0, 3, 3], [1, 0, 4, 3], [0, 1, 3, 4], [1, 1, 4, 4], [0, 0, 4, 4]], np.float32)
    drawn = [make_sample(_image(4, 4), proposals, settings, sample_rng(0, 0, i)).proposals for i in range(2000)]
    counts = [sum((box == proposal).all(axis=1).sum() for box in drawn) for proposal in proposals]
    assert max(abs(count - 800) for count in counts) < 4 * np.sqrt(480)
    assert all((a != b).any() for a, b in drawn)


@pytest.mark.parametrize(
    ("objects", "boxes"), [("all_views", [[0, 0, 4, 2], [12, 6, 16, 8]]), ("each_window", [[0, 0, 8, 6]])]
)
def test_best_windows_of_five_are_used(objects: str, boxes: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """One window shows at most one of the opposite corners, so that all five are drawn; or two windows need the one."""
    views = (ViewSettings("whole", 16), *[ViewSettings("crop", 16)] * (3 - len(boxes)))
    settings = SampleSettings(views, len(boxes), objects=objects, crop_scale=(0.2, 0.3), min_box_side=1.0)  # type: ignore[arg-type]
    corners = np.array(boxes, np.float32)

    def shown() -> float:
        samples = [make_sample(_image(8, 16), corners, settings, sample_rng(0, 0, index)) for index in range(600)]
        return float(np.mean([(s.proposals[:, None] == corners).all(axis=2).any(axis=1).all() for s in samples]))

    five = shown()
    monkeypatch.setattr("socodet.views.sample._WINDOW_TRIES", 1)
    missed = (1 - shown()) ** 5
    assert 0.02 < missed < 0.7
    assert abs(1 - five - missed) < 4 * np.sqrt(5 * missed / 600)


def test_too_few_proposals_repeat() -> None:
    proposals = np.array([[40, 30, 120, 90], [50, 40, 110, 80]], np.float32)
    sample = make_sample(_image(), proposals, SampleSettings(boxes_per_image=5), sample_rng(0, 0, 0))
    assert {tuple(box) for box in sample.proposals.tolist()} == {tuple(box) for box in proposals.tolist()}
    small = _with_views(SampleSettings(boxes_per_image=3, min_box_side=1.0), size=16, window="whole")
    drawn = [make_sample(_image(), proposals, small, sample_rng(0, 0, index)).proposals for index in range(200)]
    repeats = [(found == proposals[0]).all(axis=1).sum() - 1 for found in drawn]  # each once, and one of them again
    assert {*repeats} == {0, 1}
    assert abs(sum(repeats) - 100) < 4 * np.sqrt(50)


def test_crops_that_share_no_region_become_the_smallest() -> None:
    windows = np.array([[0, 0, 1, 1], [0, 0, 0.3, 0.3], [0.6, 0.5, 0.8, 0.7]])
    found, region = _shared_region(windows, np.full((3, 1), 64.0), 8.0)
    assert region.tolist() == [0.6, 0.5, 0.8, 0.7]
    assert found.tolist() == [[0, 0, 1, 1], region.tolist(), region.tolist()]


@pytest.mark.parametrize("proposals", [np.empty((0, 4), np.float32), np.array([[0, 0, 2, 2]], np.float32)])
@pytest.mark.parametrize("crop_scale", [(0.5, 1.0), (0.01, 0.02)])
def test_object_without_proposals_is_what_all_windows_share(
    proposals: NDArray[np.float32], crop_scale: tuple[float, float]
) -> None:
    """A single proposal that is too small for any window counts as none."""
    settings = dataclasses.replace(_SOCO_STAR, jitter=0.0, crop_scale=crop_scale)
    for index in range(20):
        sample = make_sample(_image(), proposals, settings, sample_rng(0, 0, index))
        shared = [*sample.windows[:, :2].max(axis=0), *sample.windows[:, 2:].min(axis=0)]
        assert sample.windows[0].tolist() == [0, 0, 1, 1]
        assert_allclose(sample.proposals, [np.multiply(shared, (160, 120, 160, 120))] * 4, rtol=1e-5)
        boxes = np.stack(sample.boxes)
        assert (boxes[..., 2:] - boxes[..., :2]).min() >= 8 - 1e-3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (700, 1), (2, 3), (3001, 4000), (10000, 40)])
def test_images_of_any_size(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : (width + 1) // 2] = 200
    sample = make_sample(image, _proposals(height, width), _SOCO_STAR, sample_rng(0, 0, 0))
    for boxes, view in zip(sample.boxes, _SOCO_STAR.views, strict=True):
        assert (boxes >= 0).all()
        assert (boxes <= view.size).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_levels_follow_the_level_rule() -> None:
    def levels(**changes: object) -> NDArray[np.int64]:
        settings = dataclasses.replace(SampleSettings(jitter=0.0), **changes)  # type: ignore[arg-type]
        return np.stack(make_sample(_image(), _proposals(), settings, sample_rng(0, 0, 0)).levels)

    sample = make_sample(_image(), _proposals(), SampleSettings(jitter=0.0), sample_rng(0, 0, 0))
    boxes = np.stack(sample.boxes)
    sides = np.sqrt((boxes[..., 2:] - boxes[..., :2]).astype(np.float64).prod(axis=-1))
    assert (levels() == sum((sides > limit).astype(int) for limit in (48, 96, 192))).all()
    assert (levels(level_limits=(24.0, 48.0, 96.0)) == sum((sides > n).astype(int) for n in (24, 48, 96))).all()
    assert (levels(level_rule="single") == 0).all()
    assert (levels(level_rule="canonical") == np.clip(np.floor(4 + np.log2(sides / 224)), 2, 5) - 2).all()


def test_generators_differ_by_seed_epoch_and_index() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (3, 2, 1), (1, 2, 3)]
    streams = {tuple(sample_rng(*key).integers(2**63, size=4)) for key in keys}
    plain = {
        tuple(np.random.default_rng(np.random.SeedSequence(key)).integers(2**63, size=4)) for key in [(0, 1), (1, 0)]
    }
    assert len(streams | plain) == len(keys) + 2
    for a, b in pairwise(keys):
        assert sample_rng(*a).random() == sample_rng(*a).random() != sample_rng(*b).random()


class _Samples(torch.utils.data.Dataset[tuple[int, Sample]]):
    def __getitem__(self, index: int) -> tuple[int, Sample]:
        return index, make_sample(_image(), _proposals(), SampleSettings(), sample_rng(5, 2, index))

    def __len__(self) -> int:
        return 6


def test_samples_are_the_same_in_any_thread_or_process() -> None:
    samples = _Samples()
    here = [samples[i][1] for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        assert all(map(_equal, here, pool.map(lambda i: samples[i][1], range(6))))
    loader = torch.utils.data.DataLoader(samples, batch_size=None, num_workers=2, collate_fn=_identity)
    for index, sample in loader:
        assert _equal(here[index], sample)


def _identity(item: tuple[int, Sample]) -> tuple[int, Sample]:
    return item
