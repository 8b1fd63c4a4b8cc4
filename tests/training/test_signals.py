"""Stop requests by any signal, in nested contexts, and a second signal that stops at once."""

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
def test_first_signal_requests_a_stop_and_a_second_one_interrupts(name, code):
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


def test_handler_not_set_by_python_is_left_alone(monkeypatch):
    """It belongs to a program that embeds Python and could not be restored."""
    get, there = signal.getsignal, signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGUSR1 else get(number))
    with stop_requests() as requests:
        assert get(signal.SIGUSR1) is there
        signal.raise_signal(signal.SIGTERM)
        assert requests == ["SIGTERM"]
    assert get(signal.SIGUSR1) is there


def test_request_before_an_inner_context_is_not_lost():
    with stop_requests() as outer:
        signal.raise_signal(signal.SIGTERM)
        with stop_requests() as inner:
            assert inner == ["SIGTERM"]
        assert outer == ["SIGTERM"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with stop_requests() as later:
        assert later == []


def test_forked_process_neither_blocks_the_exit_nor_requests_a_stop(monkeypatch):
    """A data worker inherits the socket: the thread would keep waiting, and take the worker's signals for its own."""
    died, ended = [], []
    monkeypatch.setattr(threading, "excepthook", died.append)
    monkeypatch.setattr(signals, "GRACE", 0.05)
    monkeypatch.setattr(os, "_exit", ended.append)
    known, context = threading.active_count(), multiprocessing.get_context("fork")
    started = context.Event()
    child = context.Process(target=lambda: started.set() or time.sleep(100))
    try:
        with stop_requests() as requests:
            child.start()
            assert started.wait(30)
            os.kill(child.pid, signal.SIGHUP)
            time.sleep(0.1)
            assert requests == []
            signal.raise_signal(signal.SIGTERM)  # the first one of this process
            time.sleep(0.3)
        assert threading.active_count() == known
    finally:
        child.kill()
        child.join()
    assert not died
    assert not ended
    assert requests == ["SIGTERM"]


def test_closing_terminal_may_send_the_hangup_twice(monkeypatch):
    with stop_requests() as requests:
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        assert requests == ["SIGHUP"]
        monkeypatch.setattr(signals, "SAME_HANGUP", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)


def test_signal_ignored_by_nohup_stays_ignored():
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
    signals.signal.signal(signals.signal.SIGTERM, lambda *_: None)  # as if the main thread never handled it
    print("within", flush=True)
    while True:
        ours.recv(1)
"""


def test_second_signal_ends_a_hanging_process():
    process = subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert process.poll() is None
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)  # two signals merge into one if the process does not run in between
        time.sleep(0.3)
    process.kill()
    assert process.wait() == 143
    process.stdout.close()


def test_repeated_signals_do_not_delay_the_end():
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
