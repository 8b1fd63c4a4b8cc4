"""Random and grid boxes: their shapes, sizes and positions."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from socodet.errors import InputError
from socodet.proposals.baselines import grid_boxes, random_boxes
from socodet.proposals.image_boxes import OnlineProposals, image_rng, propose_boxes
from socodet.proposals.settings import ProposalSettings
from socodet.runtime import extensions


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
    assert not np.array_equal(propose_boxes(image, settings), propose_boxes(image, ProposalSettings("random", seed=4)))


def test_overlapping_proposals_are_dropped() -> None:
    boxes = torch.from_numpy(
        propose_boxes(np.zeros((60, 80, 3), np.uint8), ProposalSettings("random", max_overlap=0.3))
    )
    assert len(boxes) > 1
    assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() <= 0.3


def test_boxes_of_a_function_of_ones_own_are_cut_to_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [[-5, -5, 900, 900], [20, 5, 70, 65], [90, 70, 95, 75]]  # the last is outside
    monkeypatch.setattr(extensions, "_REGISTERED", {"mine:boxes": lambda image, rng: given})
    settings = ProposalSettings("mine:boxes", min_scale=0.0, max_scale=1.0)
    boxes = propose_boxes(np.zeros((60, 80, 3), np.uint8), settings)
    assert boxes.tolist() == [[0, 0, 80, 60], [20, 5, 70, 60]]
    given[0][0] = float("nan")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="finite"):
        propose_boxes(np.zeros((60, 80, 3), np.uint8), settings)


def test_boxes_made_online_come_with_the_width_of_their_image() -> None:
    file = io.BytesIO()
    Image.new("RGB", (80, 60)).save(file, "png")
    width, boxes = OnlineProposals(ProposalSettings("grid")).look_up("a.png", file.getvalue())
    assert width == 80
    np.testing.assert_array_equal(boxes, propose_boxes(np.zeros((60, 80, 3), np.uint8), ProposalSettings("grid")))


def test_random_boxes_of_an_image_depend_on_seed_and_name() -> None:
    drawn = [image_rng(*key).random() for key in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))]
    assert drawn[0] == drawn[1]
    assert len({*drawn}) == 3


def test_the_grid_covers_every_object_of_suitable_size() -> None:
    grid = torch.from_numpy(grid_boxes(200, 150, ProposalSettings(min_scale=0.3, max_scale=0.8)))
    fitting = ProposalSettings(max_aspect=2.0, min_scale=0.35, max_scale=0.75)
    objects = torch.from_numpy(random_boxes(200, 150, fitting, np.random.default_rng(1), count=500))
    best = box_iou(objects, grid).amax(dim=1)
    assert best.min() > 0.4
    assert best.mean() > 0.65
    assert len(grid) < 400
    scales = ((grid[:, 2:] - grid[:, :2]).prod(dim=1) / (200 * 150)).sqrt()
    # the middles of four equal parts of 0.3 to 0.8
    assert {round(float(scale), 4) for scale in scales} == {0.3625, 0.4875, 0.6125, 0.7375}
