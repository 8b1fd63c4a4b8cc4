"""The garbage collector is paused only where asked, and afterwards as it was."""

import gc

import pytest

from socodet.runtime.collector import collector_paused


def test_collector_runs_again_afterwards_also_after_an_error():
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()

    @collector_paused()
    def fails():
        assert not gc.isenabled()
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fails()
        assert gc.isenabled()


def test_collector_that_did_not_run_stays_off():
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
