"""Box functions, against hand-worked cases and torchvision, with properties that hold for any box."""

import numpy as np
import pytest
import torch
import torchvision.ops
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from socodet.views import geometry

_share = st.floats(0.0, 1.0, width=32)


@st.composite
def _boxes(draw: st.DrawFn) -> np.ndarray:
    x, y = sorted((draw(_share), draw(_share))), sorted((draw(_share), draw(_share)))
    return np.array([[x[0], y[0], x[1], y[1]]])


@st.composite
def _windows(draw: st.DrawFn) -> np.ndarray:
    side = st.floats(0.3, 1.0)
    width, height = draw(side), draw(side)
    x, y = draw(_share) * (1 - width), draw(_share) * (1 - height)
    return np.array([x, y, x + width, y + height])


def test_to_view_by_hand() -> None:
    # The window is the right half; the box in the middle of the image starts to its left.
    box, window = np.array([[0.25, 0.25, 0.75, 0.5]]), np.array([0.5, 0.0, 1.0, 1.0])
    assert_allclose(geometry.to_view(box, window, 100.0), [[-50, 25, 50, 50]])
    assert_allclose(geometry.clip(geometry.to_view(box, window, 100.0), 100.0), [[0, 25, 50, 50]])


@given(_boxes(), _windows(), st.sampled_from([48.0, 112.0, 224.0]))
def test_to_view_and_back(box: np.ndarray, window: np.ndarray, size: float) -> None:
    there = geometry.to_view(box, window, size)
    left, top, right, bottom = window
    width, height = right - left, bottom - top
    back = there / size * [width, height, width, height] + [left, top, left, top]
    assert_allclose(back, box, atol=1e-12)
    assert_allclose(geometry.to_view(box, window, size / 2), there / 2, atol=1e-9)


@given(_boxes(), st.sampled_from([48.0, 224.0]))
def test_flipping_boxes_twice_restores_them(box: np.ndarray, size: float) -> None:
    box = box * size
    once = geometry.flip(box, size)
    assert_allclose(geometry.flip(once, size), box, atol=1e-9)
    assert_allclose(once[..., [1, 3]], box[..., [1, 3]])
    assert_allclose(once[..., 0] + box[..., 2], size)
    assert np.all(once[..., 0] <= once[..., 2])


def test_flip_by_hand() -> None:
    assert_allclose(geometry.flip(np.array([[10.0, 20.0, 30.0, 40.0]]), 100.0), [[70, 20, 90, 40]])


@given(_boxes())
def test_clip_and_area_match_torchvision(box: np.ndarray) -> None:
    box = box * 300 - 50
    clipped = torchvision.ops.clip_boxes_to_image(torch.tensor(box), (224, 224))
    assert_allclose(geometry.clip(box, 224.0), clipped.numpy())
    assert_allclose(geometry.areas(box), torchvision.ops.box_area(torch.tensor(box)).numpy())


def test_intersection_by_hand() -> None:
    boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.2, 0.0, 0.8, 0.5], [0.5, 0.1, 1.0, 1.0]])
    assert_allclose(geometry.intersection(boxes), [0.5, 0.1, 0.8, 0.5])


def test_kept_by_hand() -> None:
    boxes = np.array(
        [
            [-80.0, 0.0, 20.0, 50.0],  # a fifth of it is in the view
            [-81.0, 0.0, 19.0, 50.0],  # less
            [90.0, 90.0, 98.0, 98.0],  # just large enough
            [90.0, 90.0, 97.0, 98.0],  # too narrow
            [200.0, 0.0, 300.0, 50.0],  # outside
        ]
    )
    assert geometry.visible(boxes, 100.0, 0.2, 8.0).tolist() == [True, False, True, False, False]


def test_jitter_by_hand() -> None:
    # x, y, w, h = 50, 60, 20, 40 -> 52, 56, 22, 36
    jittered = geometry.jitter(np.array([[40.0, 40.0, 60.0, 80.0]]), np.array([[0.1, -0.1, 0.1, -0.1]]))
    assert_allclose(jittered, [[41, 38, 63, 74]])
    # The corner moves from 40, 40 to 42, 36, from where the box is 22 wide and 36 high.
    from_corner = geometry.jitter(np.array([[40.0, 40.0, 60.0, 80.0]]), np.array([[0.1, -0.1, 0.1, -0.1]]), "corner")
    assert_allclose(from_corner, [[42, 36, 64, 72]])


@given(_boxes(), st.tuples(*[st.floats(-0.1, 0.1)] * 4))
def test_jitter_in_centre_form_matches_torchvision(box: np.ndarray, r: tuple[float, ...]) -> None:
    x, y, w, h = torchvision.ops.box_convert(torch.tensor(box), "xyxy", "cxcywh")[0].tolist()
    expected = torch.tensor([[x + r[0] * w, y + r[1] * h, w + r[2] * w, h + r[3] * h]])
    expected = torchvision.ops.box_convert(expected, "cxcywh", "xyxy")
    assert_allclose(geometry.jitter(box, np.array([r])), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("side", "scale_aware", "canonical"),
    [
        (10, 0, 0),
        (48, 0, 0),
        (48.01, 1, 0),
        (96, 1, 0),
        (96.01, 2, 0),
        (111.9, 2, 0),
        (112, 2, 1),
        (192, 2, 1),
        (192.01, 3, 1),
        (224, 3, 2),
        (500, 3, 3),
    ],
)
def test_levels_at_their_bounds(side: float, scale_aware: int, canonical: int) -> None:
    box = np.array([[5.0, 7.0, 5 + side / 2, 7 + side * 2]])  # equal area, not square
    assert geometry.scale_aware_levels(box, (48, 96, 192)).tolist() == [scale_aware]
    assert geometry.canonical_levels(box).tolist() == [canonical]


def test_canonical_levels_match_torchvision() -> None:
    rng = np.random.default_rng(0)
    sides = rng.uniform(4, 1800, (1000, 2))
    boxes = np.concatenate([np.zeros((1000, 2)), sides], axis=1)
    theirs = torchvision.ops.poolers.initLevelMapper(2, 5)([torch.tensor(boxes)])
    assert (geometry.canonical_levels(boxes) == theirs.numpy()).all()


def test_windows_have_the_stated_areas_and_aspects() -> None:
    rng = np.random.default_rng(0)
    windows = np.stack([geometry.draw_window((0.5, 1.0), (3 / 4, 4 / 3), rng) for _ in range(10_000)])
    width, height = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
    area, aspect = width * height, width / height
    assert windows.min() >= 0
    assert windows.max() <= 1
    assert area.min() >= 0.5 - 1e-9
    assert aspect.min() >= 3 / 4 - 1e-9
    assert aspect.max() <= 4 / 3 + 1e-9
    # Below an area of 3/4 every window fits, so area and log-aspect are uniform and independent there.
    small = area < 0.75
    counts, _ = np.histogram(area[small], 5, (0.5, 0.75))
    assert np.all(np.abs(counts - small.sum() / 5) < 4 * np.sqrt(small.sum() / 5))
    counts, _ = np.histogram(np.log(aspect[small]), 5, (np.log(3 / 4), np.log(4 / 3)))
    assert np.all(np.abs(counts - small.sum() / 5) < 4 * np.sqrt(small.sum() / 5))
    # The position is uniform where it fits; one draw in 10⁶ is the whole image, without a position.
    moves = (width < 1) & (height < 1)
    assert (~moves).sum() < 3
    width, height, windows = width[moves], height[moves], windows[moves]
    place = windows[:, 0] / (1 - width)
    counts, _ = np.histogram(place, 10, (0, 1))
    assert np.all(np.abs(counts - 1000) < 4 * np.sqrt(1000))
    assert abs(np.corrcoef(place, windows[:, 1] / (1 - height))[0, 1]) < 0.04


@pytest.mark.parametrize(
    ("aspect", "window"),
    [
        ((2.0, 2.0), [0, 0.25, 1, 0.75]),
        ((2.0, 4.0), [0, 0.25, 1, 0.75]),
        ((0.25, 0.5), [0.25, 0, 0.75, 1]),
        ((0.5, 2.0), [0, 0, 1, 1]),
    ],
)
def test_window_that_does_not_fit_is_the_largest_of_the_aspect_nearest_to_1(
    aspect: tuple[float, float], window: list[float]
) -> None:
    assert_allclose(geometry.draw_window((1.0, 1.0), aspect, np.random.default_rng(0)), window)
