"""Names in any script are drawn, with a font that has their letters if one is installed."""

import logging
import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from socodet.detection.scores import Detections
from socodet.prediction.drawing import draw_objects
from socodet.reports import fonts
from socodet.reports.drawing import panel_figure
from socodet.reports.fonts import families_for, font_for
from socodet.reports.panels import labelled_panel
from socodet.reports.theme import to_png
from socodet.runtime.notices import notice

BOX = np.array([[4, 20, 60, 40]], np.float32)
RING = "a\u20dd"  # DejaVu lacks the ring; matplotlib's STIX and TeX Gyre have it
NOBODY = "\U0001f9ff\uab70"


@pytest.fixture
def own_fonts_alone(monkeypatch):
    """Hides the fonts of this machine."""
    entries = [entry for entry in font_manager.fontManager.ttflist if "matplotlib" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    fonts._other.cache_clear()
    notice.cache_clear()
    yield
    fonts._other.cache_clear()


def test_letters_beyond_ascii_are_drawn_on_images():
    """Pillow's default font lacks them and would draw the same box for each."""
    gray = np.full((60, 80, 3), 128, np.uint8)
    found = Detections(BOX, np.array([0.5], np.float32), np.array([1]))
    names = ["é", "ß", "ñ", "Ł", "Ж", "я", "Ω", "ع"]
    assert len({draw_objects(gray, found, [name]).tobytes() for name in names}) == len(names)


@pytest.mark.usefixtures("own_fonts_alone")
def test_a_font_with_the_letters_replaces_one_that_lacks_them():
    assert families_for("any étude, Ж") == ["DejaVu Sans"]
    first, second = families_for(RING)
    assert first == "DejaVu Sans"
    there = FT2Font(font_manager.findfont(second)).get_charmap()
    assert ord(RING[1]) in there
    assert {ord(letter) for letter in RING} <= set(FT2Font(font_for(RING)).get_charmap())


@pytest.mark.usefixtures("own_fonts_alone")
def test_letters_in_no_font_are_reported_once_and_drawn_as_boxes(caplog):
    panel = labelled_panel("", np.zeros((60, 80, 3), np.uint8), BOX, ["#ffffff"], [NOBODY])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert to_png(panel_figure(panel))
    assert font_for(NOBODY) == font_for("a")
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert set(NOBODY) <= set(said[0])
