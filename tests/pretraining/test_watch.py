import pytest
import torch

from socodet.pretraining.watch import CollapseWatch, DataCost, LogWindow
from socodet.training.loop import LoopResult
from socodet.views.batch import Batch, ViewBatch, group_by_level


def spread_evenly() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(64, 32), dim=1)


def constant() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.ones(64, 32), dim=1)


def test_each_collapse_is_warned_of_once(capsys):
    watch = CollapseWatch(speaks=True)
    sequence = [spread_evenly(), constant(), constant(), spread_evenly(), constant()]
    lines = [watch.figures(embeddings, step) for step, embeddings in enumerate(sequence, 1)]
    assert [line.get("collapsed", False) for line in lines] == [False, True, True, False, True]
    assert lines[0]["embedding_std"] == pytest.approx(32**-0.5, rel=0.05)
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in warnings] == [" collapse at step 2", " collapse at step 5"]
    assert "--base-lr" in warnings[0]
    assert "--variance-weight" in warnings[0]


def test_nearly_one_point_is_collapse_and_a_silent_watch_prints_nothing(capsys):
    nearly = torch.nn.functional.normalize(constant() + 0.05 * spread_evenly(), dim=1)
    assert CollapseWatch(speaks=False).figures(nearly, 1)["collapsed"]
    assert capsys.readouterr().err == ""


def test_two_opposite_points_are_collapse():
    point = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(0)), dim=0)
    opposite = torch.stack([point if row % 2 else -point for row in range(64)])
    opposite = torch.nn.functional.normalize(opposite + 1e-3 * spread_evenly(), dim=1)
    line = CollapseWatch(speaks=False).figures(opposite, 1)
    assert line["embedding_std"] > 0.5 * 32**-0.5
    assert line["collapsed"]


@pytest.mark.parametrize("count", [2, 3])
def test_few_embeddings_with_low_rank_have_not_collapsed(count):
    assert "collapsed" not in CollapseWatch(speaks=False).figures(spread_evenly()[:count], 1)
    assert CollapseWatch(speaks=False).figures(constant()[:count], 1)["collapsed"]


def test_boxes_on_levels_and_skipped_steps_are_added_up():
    window, boxes = LogWindow(), torch.zeros(1, 4, 4)
    for skipped, *levels in ((True, [0, 0, 1, 2], [1, 1, 1, 1]), (True, [3, 3, 0, 0], [1, 2, 2, 2]), (False,)):
        views = [
            ViewBatch(boxes, group_by_level(boxes, one), boxes, one) for one in (torch.tensor([row]) for row in levels)
        ]
        window.add(Batch(tuple(views), torch.zeros(1, 2, 4), torch.arange(1)), skipped=skipped)
    assert window.level_share == [4 / 16, 6 / 16, 4 / 16, 2 / 16]
    assert window.skipped == 2


def test_cores_needed_to_feed_the_steps():
    cost = DataCost()
    for _ in range(5):  # 5 steps of 8 images, which take 20 ms of CPU time each
        cost.add(Batch((), torch.zeros(8, 3, 4), torch.arange(8), cpu_seconds=8 * 0.020))
    # 40 images in 0.4 s are 100 images/s: 100 x 20 ms = 2 cores, or 2.6 to be 1.3 times as fast
    assert cost.cores_needed(0.4) == pytest.approx(2.6)
    note = cost.note(LoopResult(None, seconds=0.5, waited=0.1), workers=1, processes=1)
    assert note == (
        "waiting for data 20% of the time; the data workers need 2.6 cores to be 1.3 times as fast as the steps; "
        "1 worker is running"
    )
    both = cost.note(LoopResult(None, 0.5, 0.1), workers=1, processes=2)
    assert "5.2 cores" in both
    assert "2 workers are" in both
    assert cost.note(LoopResult(None, seconds=0.5, waited=0.02), workers=1, processes=1) is None
