"""Notes about work that takes long."""

import io
import logging
import sys
import time

import pytest

from socodet.images import source
from socodet.images.photographs import photographs
from socodet.images.source import open_images
from socodet.runtime import notices
from socodet.runtime.log import LOGGER


@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_the_first_process_reports_a_long_listing(rank, monkeypatch, capsys):
    plain = source.open_folder

    def slow(root):
        time.sleep(0.1)
        return plain(root)

    world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(source, "open_folder", slow)
    open_images(photographs())
    assert "listing" not in capsys.readouterr().err
    monkeypatch.setattr(notices, "QUIET", 0.02)
    assert len(open_images(photographs())) > 5
    assert (f"{photographs()}: listing its images" in capsys.readouterr().err) == (rank == "0")


def test_notes_on_slow_work_become_rarer_and_can_be_silenced(monkeypatch, capsys):
    monkeypatch.setattr(notices, "QUIET", 0.02)
    with notices.log_if_slow("sorting"):
        time.sleep(0.5)
    assert 1 <= capsys.readouterr().err.count("sorting, for") <= 5
    before = LOGGER.level
    LOGGER.setLevel(logging.WARNING)  # as --quiet does
    try:
        with notices.log_if_slow("sorting"):
            time.sleep(0.1)
    finally:
        LOGGER.setLevel(before)
    assert not capsys.readouterr().err


def test_a_closed_standard_error_is_no_error(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    notices.log_note("lost")
