import math

import pytest
import torch
from torch.nn.functional import normalize

from socodet.pretraining.watch import effective_rank, embedding_std


def test_evenly_spread_embeddings_have_std_1_over_root_d():
    torch.manual_seed(0)
    unit = normalize(torch.randn(20_000, 64), dim=1)
    assert embedding_std(unit) == pytest.approx(1 / 8, rel=0.01)
    assert effective_rank(unit) > 60


def test_std_by_hand():
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert embedding_std(points) == pytest.approx((2 / 9) ** 0.5)  # of each dimension, over the points


def test_single_point_has_no_std():
    point = normalize(torch.ones(10, 5), dim=1)
    assert embedding_std(point) == pytest.approx(0, abs=1e-6)


def test_effective_rank_by_hand():
    # centred columns with singular values 3 : 1, so shares of 3/4 and 1/4
    x = torch.tensor([[3.0, 0, 0], [-3.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(x) == pytest.approx(expected, rel=1e-5)
    assert effective_rank(x + 5) == pytest.approx(expected, rel=1e-5)
    line = torch.outer(torch.linspace(-1, 1, 9), torch.tensor([1.0, 2.0, 3.0]))
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-3)
