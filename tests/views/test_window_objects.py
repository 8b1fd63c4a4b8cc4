"""objects="each_window": the first view has K boxes for every window, and each window shows its own K."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from socodet.views.batch import collate
from socodet.views.sample import Sample, make_sample, sample_rng
from socodet.views.settings import SampleSettings, ViewSettings

_SETTINGS = SampleSettings(
    views=(
        ViewSettings("whole", 64),
        ViewSettings("crop", 64),
        ViewSettings("previous", 32),
        ViewSettings("crop", 48),
    ),
    boxes_per_image=3,
    objects="each_window",
    jitter=0.0,
    min_visible=0.0,
    min_box_side=1.0,
)
_HEIGHT, _WIDTH = 120, 160


def _proposals() -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    sides = rng.uniform(0.1, 0.4, (30, 2)) * (_WIDTH, _HEIGHT)
    corner = rng.random((30, 2)) * ((_WIDTH, _HEIGHT) - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def _sample(index: int, proposals: NDArray[np.float32] | None = None) -> Sample:
    image = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
    return make_sample(image, _proposals() if proposals is None else proposals, _SETTINGS, sample_rng(0, 0, index))


@pytest.mark.parametrize("index", range(20))
def test_each_view_shows_its_own_objects(index: int) -> None:
    sample = _sample(index)
    assert sample.partners == (0, 0, 0, 3)
    assert [len(boxes) for boxes in sample.boxes] == [6, 3, 3, 3]
    assert [len(levels) for levels in sample.levels] == [6, 3, 3, 3]
    given = {tuple(box) for box in _proposals().round(3).tolist()}
    assert {tuple(box) for box in sample.proposals.round(3).tolist()} <= given
    for v, view in enumerate(_SETTINGS.views):
        left, top, right, bottom = sample.windows[v].astype(np.float64) * (_WIDTH, _HEIGHT, _WIDTH, _HEIGHT)
        for k, box in enumerate(sample.boxes[v]):
            x1, y1, x2, y2 = sample.proposals[sample.partners[v] + k].astype(np.float64)
            x = np.clip((np.array([x1, x2]) - left) / (right - left) * view.size, 0, view.size)
            y = np.clip((np.array([y1, y2]) - top) / (bottom - top) * view.size, 0, view.size)
            if sample.flipped[v]:
                x = view.size - x[::-1]
            assert_allclose(box, [x[0], y[0], x[1], y[1]], atol=1e-3)
            assert min(x[1] - x[0], y[1] - y[0]) >= 1 - 1e-3


def test_windows_draw_independently() -> None:
    """Each window draws three of thirty proposals, so two windows seldom share any."""
    same = sum(
        len({tuple(box) for box in s.proposals[:3].tolist()} & {tuple(box) for box in s.proposals[3:].tolist()})
        for s in map(_sample, range(300))
    )
    # Drawn from about the same thirty, a proposal of one window is among the other's with probability 3 / 30.
    assert 300 * 3 * 0.05 < same < 300 * 3 * 0.2


def test_any_visible_part_is_enough() -> None:
    """Some windows show less than a tenth of a proposal in the corner, but none less than a pixel in each direction."""
    corner, shares = np.array([[0, 0, 40, 30]], np.float32), []
    for sample in (_sample(index, corner) for index in range(300)):
        if np.array_equal(sample.proposals[:1], corner):
            left, top, right, bottom = sample.windows[1] * (_WIDTH, _HEIGHT, _WIDTH, _HEIGHT)
            sides = sample.boxes[1][0, 2:] - sample.boxes[1][0, :2]
            assert_allclose(sides, np.divide((40 - left, 30 - top), (right - left, bottom - top)) * 64, atol=1e-3)
            assert sides.min() >= 1 - 1e-3
            shares.append((40 - left) * (30 - top) / (40 * 30))
    assert min(shares) < 0.1
    assert max(shares) > 0.9


def test_window_that_shows_no_proposal_falls_back_alone() -> None:
    """If a crop misses the proposal in the corner, the crop itself is the object of its set."""
    corner = np.array([[0, 0, 12, 9]], np.float32)
    kinds = set()
    for index in range(200):
        sample = _sample(index, corner)
        found = []
        for objects, window in ((sample.proposals[:3], sample.windows[1]), (sample.proposals[3:], sample.windows[3])):
            is_corner = np.abs(objects - corner).max() < 1e-3
            assert is_corner or np.abs(objects - window * (_WIDTH, _HEIGHT, _WIDTH, _HEIGHT)).max() < 1e-2
            found.append(bool(is_corner))
        kinds.add(tuple(found))
    assert {(True, True), (True, False), (False, True)} <= kinds


def test_crop_aspect_can_be_measured_in_the_image() -> None:
    """In an image four times as wide as high, crops of a tenth to a fifth have aspects of 3/4 to 4/3 in pixels."""
    settings = SampleSettings(views=_SETTINGS.views[:2], crop_aspect_in="image", crop_scale=(0.1, 0.2))
    image, aspects = np.zeros((40, 160, 3), np.uint8), []
    for index in range(300):
        sample = make_sample(image, np.empty((0, 4), np.float32), settings, sample_rng(0, 0, index))
        width, height = (sample.windows[1, 2:] - sample.windows[1, :2]) * (160, 40)
        aspects.append(width / height)
    assert min(aspects) >= 3 / 4 - 1e-4
    assert max(aspects) <= 4 / 3 + 1e-4
    assert_allclose([min(aspects), max(aspects)], [3 / 4, 4 / 3], rtol=0.02)


def test_batch_keeps_the_partners() -> None:
    batch = collate([(index, _sample(index)) for index in range(2)])
    assert [view.partner for view in batch.views] == [0, 0, 0, 3]
    assert [tuple(view.boxes.shape) for view in batch.views] == [(2, 6, 4), *[(2, 3, 4)] * 3]
    assert [len(view.rois.order) for view in batch.views] == [12, 6, 6, 6]
    for other in (batch.to("meta"), *batch.split(2)):
        assert [view.partner for view in other.views] == [0, 0, 0, 3]
