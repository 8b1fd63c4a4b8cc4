"""Random and grid boxes: their shapes, sizes and positions."""

import numpy as np
import torch
from torchvision.ops import box_iou

from socodet.proposals.baselines import grid_boxes, random_boxes
from socodet.proposals.image_boxes import propose_boxes
from socodet.proposals.settings import ProposalSettings


def test_random_boxes_vary_in_shape_and_position() -> None:
    settings = ProposalSettings(max_aspect=3.0, min_scale=0.3, max_scale=0.8)
    boxes = random_boxes(400, 300, settings, np.random.default_rng(0), count=4000)
    assert boxes.shape == (4000, 4)
    w, h = (boxes[:, 2:] - boxes[:, :2]).T
    side, aspect = np.sqrt(w * h / 120000), np.log(w / h)
    assert 0.3 <= side.min() < 0.31
    assert 0.75 < side.max() <= 0.8 + 1e-6
    assert np.abs(aspect).max() <= np.log(3) + 1e-5
    place = boxes[:, :2] / (np.array([400, 300]) - np.stack((w, h), axis=1))
    np.testing.assert_allclose(place.mean(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(place.std(axis=0), 12**-0.5, atol=0.02)


def test_random_boxes_come_from_the_generator_or_the_seed() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    settings = ProposalSettings("random", seed=3)
    np.testing.assert_array_equal(propose_boxes(image, settings), propose_boxes(image, settings))
    one, other = (propose_boxes(image, settings, np.random.default_rng(n)) for n in (1, 2))
    assert not np.array_equal(one, other)


def test_the_grid_covers_every_object_of_suitable_size() -> None:
    grid = torch.from_numpy(grid_boxes(200, 150, ProposalSettings(min_scale=0.3, max_scale=0.8)))
    fitting = ProposalSettings(max_aspect=2.0, min_scale=0.35, max_scale=0.75)
    objects = torch.from_numpy(random_boxes(200, 150, fitting, np.random.default_rng(1), count=500))
    best = box_iou(objects, grid).amax(dim=1)
    assert best.min() > 0.4
    assert best.mean() > 0.65
    assert len(grid) < 400
