"""Requests to stop: by any signal, in nested contexts, and a second signal that stops at once."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from socodet.commands.messages import exit_if_stopped
from socodet.training import signals
from socodet.training.signals import stop_requests

pytestmark = pytest.mark.usefixtures("signals_heard")
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


@pytest.mark.parametrize(("name", "code"), list(zip(NAMES, (130, 143, 129, 138), strict=True)))
def test_every_signal_asks_to_stop_and_a_second_one_ends_it_at_once(name, code):
    before = {other: signal.getsignal(getattr(signal, other)) for other in NAMES}
    with stop_requests() as requests:
        signal.raise_signal(getattr(signal, name))
        assert requests == [name]
        for other in NAMES:
            if other != name:
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(getattr(signal, other))
    assert {other: signal.getsignal(getattr(signal, other)) for other in NAMES} == before
    with pytest.raises(SystemExit) as ended:
        exit_if_stopped(requests[0])
    assert ended.value.code == code


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch):
    """Of a program that Python is embedded in; it could not be set again."""
    get, there = signal.getsignal, signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGUSR1 else get(number))
    with stop_requests() as requests:
        assert get(signal.SIGUSR1) is there
        signal.raise_signal(signal.SIGTERM)
        assert requests == ["SIGTERM"]
    assert get(signal.SIGUSR1) is there


def test_what_was_asked_before_an_inner_context_is_not_lost():
    with stop_requests() as outer:
        signal.raise_signal(signal.SIGTERM)
        with stop_requests() as inner:
            assert inner == ["SIGTERM"]
        assert outer == ["SIGTERM"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with stop_requests() as later:
        assert later == []


def test_a_forked_process_that_lives_on_does_not_hold_it_up_nor_speak_for_it(monkeypatch):
    """A data worker, which has the socket too: the thread would wait on, and take its signal for one of ours."""
    died, ended = [], []
    monkeypatch.setattr(threading, "excepthook", died.append)
    monkeypatch.setattr(signals, "GRACE", 0.05)
    monkeypatch.setattr(os, "_exit", ended.append)
    known, context = threading.active_count(), multiprocessing.get_context("fork")
    begun = context.Event()
    child = context.Process(target=lambda: begun.set() or time.sleep(100))
    try:
        with stop_requests() as requests:
            child.start()
            assert begun.wait(30)
            os.kill(child.pid, signal.SIGHUP)
            time.sleep(0.1)
            assert requests == []
            signal.raise_signal(signal.SIGTERM)  # the first one
            time.sleep(0.3)
        assert threading.active_count() == known
    finally:
        child.kill()
        child.join()
    assert not died
    assert not ended
    assert requests == ["SIGTERM"]


def test_a_terminal_that_closes_may_send_the_hangup_twice(monkeypatch):
    with stop_requests() as requests:
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        assert requests == ["SIGHUP"]
        monkeypatch.setattr(signals, "SAME_HANGUP", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)


def test_what_nohup_ignores_remains_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as requests:
            signal.raise_signal(signal.SIGHUP)
            assert requests == []
    finally:
        signal.signal(signal.SIGHUP, before)


HANGING = """
import socket, threading
from socodet.training import signals
signals.GRACE = 0.2
ours, theirs = socket.socketpair()
with signals.stop_requests():
    signals.signal.signal(signals.signal.SIGTERM, lambda *_: None)  # as if the main thread never came to it
    print("within", flush=True)
    while True:
        ours.recv(1)
"""


def test_a_second_signal_ends_a_process_that_hangs():
    process = subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert process.poll() is None
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)  # two at once are one to a process that has not run in between
        time.sleep(0.3)
    process.kill()
    assert process.wait() == 143
    process.stdout.close()


def test_signals_that_keep_coming_do_not_put_off_the_end():
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING.replace("GRACE = 0.2", "GRACE = 0.6")], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    process.kill()
    assert process.wait() == 143
    process.stdout.close()
