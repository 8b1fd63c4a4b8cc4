"""Cutout: probability, size, position and colour."""

import numpy as np
import torch
from numpy.testing import assert_allclose

from socodet.models.normalization import normalize
from socodet.views.cutout import MEAN_COLOR, draw_cutouts, paint_over
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings

_BOX = np.array([[20, 40, 84, 72]], np.float32)  # 64 x 32


def test_half_of_the_boxes_get_squares_with_a_share_of_their_area() -> None:
    boxes = np.repeat(_BOX, 40_000, axis=0)
    squares = draw_cutouts(boxes, ViewSettings(cutout_probability=0.5), np.random.default_rng(0))
    assert abs(len(squares) - 20_000) < 4 * 100
    sides = squares[:, 2:] - squares[:, :2]
    assert (sides[:, 0] == sides[:, 1]).all()
    # The side is round(√area) made odd; areas are uniform in [0.1, 0.3] of 64 x 32.
    shares = np.linspace(0.1, 0.3, 100_001)
    wanted = 2 * (np.round(np.sqrt(shares * 64 * 32)) // 2) + 1
    assert (sides.min(), sides.max()) == (wanted.min(), wanted.max()) == (15, 25)
    assert_allclose(sides[:, 0].mean(), wanted.mean(), rtol=0.005)
    centres = (squares[:, :2] + squares[:, 2:] - 1) / 2
    assert centres.min(axis=0).tolist() == [20, 40]
    assert centres.max(axis=0).tolist() == [83, 71]
    assert_allclose(centres.mean(axis=0), [51.5, 55.5], atol=0.5)


def test_painting_stays_in_the_view_and_is_normalised_to_zero() -> None:
    pixels = np.full((3, 16, 16), 200, np.uint8)
    paint_over(pixels, np.array([[-3, 12, 4, 19], [8, -5, 11, -2]]))
    painted = np.zeros((16, 16), bool)
    painted[12:, :4] = True
    assert (pixels[:, ~painted] == 200).all()
    assert (pixels[:, painted] == MEAN_COLOR[:, None]).all()
    on_device = normalize(torch.from_numpy(pixels)[None])[0][:, torch.from_numpy(painted)]
    assert float(on_device.abs().max()) < 0.5 / 255 / 0.22


def test_flipped_boxes_are_painted_only_in_the_chosen_views() -> None:
    """In a grey image without colour changes, whatever is not grey was painted."""
    plain = PhotometricSettings(jitter_probability=0, grayscale_probability=0, blur_probability=0)
    views = [ViewSettings("whole", 64, plain), ViewSettings("crop", 64, plain, cutout_probability=1.0)]
    settings = SampleSettings(views=tuple(views), boxes_per_image=1, jitter=0.0)
    image, proposals = np.full((90, 120, 3), 10, np.uint8), np.array([[10, 10, 70, 60]], np.float32)
    flips = set()
    for index in range(40):
        sample = make_sample(image, proposals, settings, sample_rng(0, 0, index))
        flips.add(bool(sample.flipped[1]))
        assert (sample.pixels[0] == 10).all()
        rows, columns = (np.flatnonzero((sample.pixels[1][0] == MEAN_COLOR[0]).any(axis=axis)) for axis in (1, 0))
        x1, y1, x2, y2 = sample.boxes[1][0].tolist()
        side = max(len(rows), len(columns))
        assert side <= 2 * (round(np.sqrt(0.3 * (x2 - x1) * (y2 - y1))) // 2) + 1
        assert len(rows) * len(columns) == (sample.pixels[1][0] != 10).sum()
        assert x1 - side / 2 - 1 <= columns[0] <= columns[-1] <= x2 + side / 2
        assert y1 - side / 2 - 1 <= rows[0] <= rows[-1] <= y2 + side / 2
    assert flips == {True, False}
