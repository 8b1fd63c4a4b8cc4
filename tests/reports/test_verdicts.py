import pytest

from socodet.reports.verdicts import embedding_verdict, loss_verdict, recall_verdict


def test_loss_compares_the_first_tenth_with_the_last() -> None:
    lines = [{"step": step, "loss": -float(step)} for step in range(1, 41)]
    verdict = loss_verdict(lines)
    assert verdict.passed
    assert verdict.figure == "−2.50 → −38.50"  # means of 1..4 and 37..40
    assert not loss_verdict(lines[::-1]).passed
    assert loss_verdict(lines[:2]).figure == "−1.00 → −2.00"


@pytest.mark.parametrize(("std", "passed"), [(0.0624, True), (0.03126, True), (0.03124, False), (0.0, False)])
def test_the_standard_deviation_must_be_half_of_the_uniform_one(std: float, passed: bool) -> None:
    assert embedding_verdict(std, 256).passed is passed  # half of 1/16 is 0.03125


@pytest.mark.parametrize(("trained", "untrained", "passed"), [(0.6, 0.4, True), (0.4, 0.4, False), (0.3, 0.4, False)])
def test_training_must_help_to_find_the_same_object(trained: float, untrained: float, passed: bool) -> None:
    verdict = recall_verdict(trained, untrained)
    assert verdict.passed is passed
    assert verdict.figure == f"{trained * 100:.0f}% vs {untrained * 100:.0f}%"
