"""What counts as training time, with a clock that the test advances."""

import pytest

from socodet.training import clock as module
from socodet.training.clock import Clock


@pytest.fixture
def clock_by_hand(monkeypatch):
    class ClockByHand:
        now = 100.0

        def monotonic(self):
            return self.now

    made = ClockByHand()
    monkeypatch.setattr(module, "time", made)
    return made


def test_first_wait_for_starting_workers_does_not_count(clock_by_hand):
    """Otherwise the first log line after every resume would show a slow run that waits for data."""

    def batches():
        for seconds in (60.0, 1.0, 1.0, 2.0):  # the first takes a minute
            clock_by_hand.now += seconds
            yield seconds

    clock, made = Clock(), batches()
    for _ in range(2):
        clock.wait_for(made)
        clock_by_hand.now += 3.0  # a step
    assert clock.window() == (7.0, 1.0)
    assert clock.whole() == (7.0, 1.0)
    clock.next_window()
    clock.wait_for(made)
    with clock.stopped():
        clock_by_hand.now += 500.0  # an evaluation
    clock_by_hand.now += 3.0
    assert clock.window() == (4.0, 1.0)
    assert clock.whole() == (11.0, 2.0)
    clock.wait_for(made)
    assert clock.window() == (6.0, 3.0)  # both waits since the last log line
    assert clock.whole() == (13.0, 4.0)
