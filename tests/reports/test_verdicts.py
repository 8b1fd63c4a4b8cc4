import numpy as np
import pytest

from socodet.reports.verdicts import log_verdicts, loss_verdict, rank_verdict, recall_verdict, spread_verdict


def test_the_loss_verdict_compares_the_first_and_last_tenth_and_never_passes() -> None:
    lines = [{"step": step, "loss": -float(step)} for step in range(1, 41)]
    verdict = loss_verdict(lines, -8.0)
    assert verdict.passed is None
    assert verdict.figure == "−2.50 → −38.50"  # means of 1..4 and 37..40
    assert "−8" in verdict.good
    assert loss_verdict(lines[::-1], -8.0).passed is False
    assert loss_verdict(lines[:1], -8.0).passed is None  # nothing to compare with
    assert loss_verdict(lines[:2], -8.0).figure == "−1.00 → −2.00"


@pytest.mark.parametrize(("std", "passed"), [(0.0624, True), (0.03126, True), (0.03124, False), (0.0, False)])
def test_the_standard_deviation_must_be_half_of_the_uniform_one(std: float, passed: bool) -> None:
    assert spread_verdict([0.0, std], 256).passed is passed  # half of an even spread of 1/16 is 0.03125


@pytest.mark.parametrize("pull", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_a_passing_spread_bounds_the_mean_cosine(pull: float) -> None:
    """For vectors pulled towards one direction: if the spread passes, the mean cosine is at most 0.75."""
    vectors = np.random.default_rng(0).normal(size=(2000, 16)) / 4
    vectors[:, 0] += pull
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    verdict = spread_verdict([float(vectors.std(axis=0).mean())], 16)
    cosine = (vectors @ vectors.T).mean()
    assert cosine <= 0.75 or not verdict.passed
    assert verdict.passed is (pull <= 1.0)


@pytest.mark.parametrize(("ranks", "passed"), [([41.0, 40.0], None), ([41.0, 2.1], None), ([41.0, 1.4], False)])
def test_the_effective_rank_never_passes_and_fails_at_collapse(ranks: list[float], passed: bool | None) -> None:
    verdict = rank_verdict(ranks, 128)
    assert verdict.passed is passed
    assert rank_verdict(ranks, 128, 47).figure == f"{verdict.figure} of at most 47"
    assert verdict.figure == f"{ranks[0]:g} → {ranks[-1]:g}"  # 1.96 is below 2


@pytest.mark.parametrize(
    ("trained", "untrained", "objects", "passed"),
    [
        (0.6, 0.4, 100, True),  # the standard error is 0.069
        (0.5, 0.4, 100, None),
        (0.5, 0.4, 1000, True),  # 0.022
        (0.4, 0.4, 100, False),
        (0.3, 0.4, 100, False),
        (1.0, 1.0, 100, None),  # no network could be better
        (0.98, 0.99, 100, None),
        (0.2, 1.0, 100, False),
    ],
)
def test_recall_must_beat_untrained_by_more_than_chance(
    trained: float, untrained: float, objects: int, passed: bool | None
) -> None:
    verdict = recall_verdict(trained, untrained, objects)
    assert verdict.passed is passed
    assert verdict.figure == f"{trained * 100:.0f}% vs {untrained * 100:.0f}%"


def test_a_missing_value_has_no_verdict() -> None:
    assert [v.name for v in log_verdicts([{"step": 1, "loss": 1.0}, {"step": 2, "effective_rank": 3.0}], 8, -4)] == [
        "Loss",
        "Effective rank",
    ]
    assert log_verdicts([], 8, -4) == []
