"""Collated samples: boxes grouped by level and restored to (image, box) order."""

import numpy as np
import torch

from socodet.views.batch import Batch, collate, group_by_level
from socodet.views.sample import Sample, make_sample, sample_rng
from socodet.views.settings import SampleSettings, ViewSettings


def test_group_by_level_by_hand() -> None:
    boxes = torch.arange(16, dtype=torch.float32).reshape(2, 2, 4)
    grouped = group_by_level(boxes, torch.tensor([[2, 0], [0, 3]]))
    assert grouped.counts == (2, 0, 1, 1)
    assert grouped.rois.tolist() == [[0, 4, 5, 6, 7], [1, 8, 9, 10, 11], [0, 0, 1, 2, 3], [1, 12, 13, 14, 15]]
    assert grouped.order.tolist() == [2, 0, 1, 3]


def test_order_restores_image_and_box_order() -> None:
    rng = torch.Generator().manual_seed(0)
    boxes, levels = torch.rand(5, 7, 4, generator=rng), torch.randint(0, 4, (5, 7), generator=rng)
    grouped = group_by_level(boxes, levels)
    back = grouped.rois[grouped.order].reshape(5, 7, 5)
    assert (back[..., 1:] == boxes).all()
    assert (back[..., 0] == torch.arange(5)[:, None]).all()
    level_of_row = torch.repeat_interleave(torch.arange(4), torch.tensor(grouped.counts))
    assert (level_of_row[grouped.order] == levels.reshape(-1)).all()
    assert sum(grouped.counts) == 35


def _samples() -> list[tuple[int, Sample]]:
    settings = SampleSettings(
        views=(ViewSettings("whole", 32), ViewSettings("crop", 32), ViewSettings("previous", 16)),
        boxes_per_image=3,
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    proposals = np.array([[5, 5, 30, 30], [10, 10, 40, 35]], np.float32)
    return [(index, make_sample(image, proposals, settings, sample_rng(0, 0, index))) for index in (7, 3)]


def test_collate_stacks_samples() -> None:
    samples = _samples()
    batch = collate(samples)
    assert batch.indices.tolist() == [7, 3]
    assert [tuple(v.pixels.shape) for v in batch.views] == [(2, 3, 32, 32), (2, 3, 32, 32), (2, 3, 16, 16)]
    for b, (_, sample) in enumerate(samples):
        assert np.array_equal(batch.windows[b].numpy(), sample.windows)
        for v, view in enumerate(batch.views):
            assert np.array_equal(view.pixels[b].numpy(), sample.pixels[v])
            assert np.array_equal(view.boxes[b].numpy(), sample.boxes[v])
            assert np.array_equal(view.levels[b].numpy(), sample.levels[v])
    assert all(view.rois.rois.shape == (6, 5) for view in batch.views)


def test_to_moves_only_what_the_networks_read() -> None:
    moved = collate(_samples()).to("meta")
    assert isinstance(moved, Batch)
    read = [t for view in moved.views for t in (view.pixels, view.rois.rois, view.rois.order)]
    kept = [moved.windows, moved.indices, *(t for view in moved.views for t in (view.boxes, view.levels))]
    assert {t.device.type for t in read} == {"meta"}
    assert {t.device.type for t in kept} == {"cpu"}
