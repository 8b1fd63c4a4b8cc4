"""The note printed while importing modules takes long."""

import logging
import sys
import time

import pytest

from socodet.runtime import notices
from socodet.runtime.log import LOGGER


@pytest.fixture
def import_slowly(tmp_path, monkeypatch):
    """Imports a module that takes a fifth of a second; the note is due after a twentieth."""
    (tmp_path / "slow_to_load.py").write_text("import time\ntime.sleep(0.2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(notices, "LOADING_AFTER", 0.05)
    monkeypatch.setattr(notices, "LOOKED_EVERY", 0.01)

    def load():
        sys.modules.pop("slow_to_load", None)
        __import__("slow_to_load")

    return load


def test_a_long_import_is_noted_once(import_slowly, capsys):
    with notices.log_slow_imports():
        import_slowly()
        import_slowly()
    assert capsys.readouterr().err.count("loading the package") == 1


def test_no_note_for_other_work_after_another_line_or_with_quiet(import_slowly, capsys, monkeypatch):
    with notices.log_slow_imports():
        time.sleep(0.15)
    with notices.log_slow_imports():
        LOGGER.info("a line")
        import_slowly()
    monkeypatch.setattr(LOGGER, "isEnabledFor", lambda level: level >= logging.WARNING)
    with notices.log_slow_imports():
        import_slowly()
    assert capsys.readouterr().err == "a line\n"
