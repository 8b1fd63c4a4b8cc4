"""The paper's filter and the removal of near duplicates, checked by hand and against torchvision."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from socodet.proposals.filters import distinct, object_sized
from socodet.proposals.image_boxes import propose_boxes
from socodet.proposals.settings import ProposalSettings


def test_the_filter_includes_its_limits() -> None:
    boxes = {
        (0, 0, 30, 30): True,  # a relative size of 0.3
        (0, 0, 29, 30): False,
        (0, 0, 80, 80): True,  # 0.8
        (0, 0, 81, 80): False,
        (10, 10, 70, 30): True,  # three to one
        (10, 10, 71, 30): False,
        (10, 10, 30, 70): True,
        (10, 10, 30, 71): False,
    }
    kept = object_sized(
        np.array(list(boxes), np.float32), 100, 100, ProposalSettings(max_aspect=3.0, min_scale=0.3, max_scale=0.8)
    )
    assert kept.tolist() == list(boxes.values())
    halves = ProposalSettings(min_scale=0.25, max_scale=0.5)  # their squares are exact
    sides = np.array([[0, 0, side, side] for side in (24, 25, 50, 51)], np.float32)
    assert object_sized(sides, 100, 100, halves).tolist() == [False, True, True, False]


def test_near_duplicates_are_dropped_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 20, (300, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(60, 100, (300, 2))), axis=1).astype(np.float32)
    kept = distinct(boxes, 0.8)
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(kept)).numpy()
    rows = [int(np.flatnonzero((boxes == box).all(axis=1))[0]) for box in kept]
    assert 10 < len(kept) < 300
    assert (overlaps[rows] - np.eye(len(kept)) <= 0.8 + 1e-5).all()
    assert (np.delete(overlaps, rows, axis=0).max(axis=1) > 0.8 - 1e-5).all()


def test_boxes_at_the_limit_of_overlap_are_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6]], np.float32)  # IoU of 0.5 and 0.6 with the first
    assert distinct(boxes, 0.5).tolist() == boxes[:2].tolist()


def test_at_an_overlap_of_one_only_exact_repeats_are_dropped() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10.5], [0, 0, 10, 10], [0, 0, 10, 10.5]], np.float32)
    assert distinct(boxes, 1.0).tolist() == boxes[:2].tolist()


@pytest.mark.parametrize("method", ["single", "fast", "random", "grid"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (40, 1), (90, 130), (600, 900)])
def test_every_method_keeps_only_boxes_that_pass(method: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (-(-shape[0] // 9), -(-shape[1] // 9), 3), np.uint8)
    image = np.repeat(np.repeat(image, 9, axis=0), 9, axis=1)[: shape[0], : shape[1]]
    boxes = propose_boxes(image, ProposalSettings(method))  # type: ignore[arg-type]
    height, width = shape
    assert boxes.shape == (len(boxes), 4)
    assert boxes.dtype == np.float32
    w, h = (boxes[:, 2:] - boxes[:, :2]).T
    assert ((w <= 3.0001 * h) & (h <= 3.0001 * w)).all()
    side = np.sqrt(w * h / (width * height))
    assert ((side > 0.2999) & (side < 0.8001)).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (width + 1e-3, height + 1e-3)).all()
