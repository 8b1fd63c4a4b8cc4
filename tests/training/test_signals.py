"""Requests to stop, in contexts within each other."""

import signal

from socodet.training.signals import stop_requests


def test_what_was_asked_before_an_inner_context_is_not_lost():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as outer:
        signal.raise_signal(signal.SIGTERM)
        with stop_requests() as inner:
            assert inner == ["SIGTERM"]
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert outer == ["SIGTERM"] * 3
    assert signal.getsignal(signal.SIGTERM) == before
    with stop_requests() as later:
        assert later == []
