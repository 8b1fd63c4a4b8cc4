import math

import pytest

from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import learning_rate, target_momentum


def test_learning_rate_rises_linearly_then_falls_along_a_cosine():
    rates = [learning_rate(k, total=50, warmup=10, peak=8.0) for k in range(50)]
    assert rates[:10] == pytest.approx([0.8 * (k + 1) for k in range(10)])
    for k in range(10, 50):  # cos² of the half angle is the same curve
        assert rates[k] == pytest.approx(8.0 * math.cos(math.pi * (k - 10) / 80) ** 2)
    assert max(rates) == rates[9] == rates[10] == 8.0
    assert 0 < rates[-1] < 0.02


def test_no_warmup_starts_at_the_peak():
    assert learning_rate(0, total=5, warmup=0, peak=3.0) == 3.0


def test_target_momentum_rises_from_its_base_towards_one():
    values = [target_momentum(k, total=40, base=0.99) for k in range(40)]
    assert values[0] == pytest.approx(0.99)
    assert values[20] == pytest.approx(0.995)
    for k, value in enumerate(values):
        assert 1 - value == pytest.approx(0.01 * math.cos(math.pi * k / 80) ** 2)
    assert values == sorted(values)
    assert values[-1] < 1


def test_target_momentum_may_end_below_one():
    values = [target_momentum(k, total=10, base=0.0, final=0.0) for k in range(10)]
    assert values == [0.0] * 10
    assert target_momentum(5, total=10, base=0.2, final=0.6) == pytest.approx(0.4)


def test_papers_lr_and_steps():
    paper = TrainingSettings()
    assert paper.lr == 8.0  # 1.0 x 2048 / 256
    assert paper.steps(paper.epochs, 1_281_167) == 62_556  # 100 x 1281167 / 2048, rounded down
    assert paper.steps(paper.warmup_epochs, 1_281_167) == 6_255
    assert TrainingSettings(batch_size=1).steps(0.29, 100) == 29  # 0.29 * 100 is 28.999…


def test_warmup_takes_at_most_a_tenth_of_a_shorter_run():
    settings = TrainingSettings(epochs=100, warmup_epochs=20)
    assert [settings.warmup_for(epochs) for epochs in (50, 99.0, 100, 200)] == [5, 9.9, 20, 20]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 2e9),
        ("batch_size", 0),
        ("base_lr", -1),
        ("target_momentum", 1.0),
        ("weight_decay", -1e-9),
        ("norm_lr", -1),
        ("optimizer", "adam"),
        ("final_target_momentum", 2),
    ],
)
def test_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        TrainingSettings(**{"warmup_epochs": 0, field: value})
    with pytest.raises(ValueError, match="warmup_epochs must be at most epochs"):
        TrainingSettings(epochs=5, warmup_epochs=6)
