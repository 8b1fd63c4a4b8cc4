"""What counts as time of training, by a clock that is moved by hand."""

import pytest

from socodet.training import clock as module
from socodet.training.clock import Clock


@pytest.fixture
def hand(monkeypatch):
    class Hand:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Hand()
    monkeypatch.setattr(module, "time", made)
    return made


def test_the_first_wait_with_the_start_of_the_workers_does_not_count(hand):
    """Or the first line of a log, after every resumption, would say that the run was slow and waited for data."""

    def batches():
        for seconds in (60.0, 1.0, 1.0):  # the first takes a minute
            hand.now += seconds
            yield seconds

    clock, made = Clock(), batches()
    for _ in range(2):
        clock.wait_for(made)
        hand.now += 3.0  # a step
    assert clock.window() == (7.0, 1.0)
    assert clock.whole() == (7.0, 1.0)
    clock.next_window()
    clock.wait_for(made)
    with clock.stopped():
        hand.now += 500.0  # an evaluation
    hand.now += 3.0
    assert clock.window() == (4.0, 1.0)
    assert clock.whole() == (11.0, 2.0)
