"""What the figures of studies draw, for hand-written numbers."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from socodet.reports.theme import LIGHT, to_png
from socodet.studies.figure import Bars, Lines, bars_figure, lines_figure
from socodet.studies.table import Spread


def drawn_at(axes, marker):
    return [tuple(map(float, line.get_xydata()[0])) for line in axes.lines if line.get_marker() == marker]


def test_means_are_bars_only_if_the_axis_begins_at_zero():
    """A bar's length shows a magnitude; on a cut axis, 22 could look twice as large as 21."""
    panels = [Bars("recall", [[0.2, 0.3], [0.4]], ["", ""]), Bars("AP", [[20.0, 22.0], [22.5]], ["", ""])]
    near_zero, far = bars_figure(panels, ["one", "two"]).axes
    bars = [patch for patch in near_zero.patches if isinstance(patch, Rectangle)]
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0, 0.25), (0, 0.4)]
    assert near_zero.get_xlim()[0] == 0
    assert far.get_xlim()[0] > 0
    assert not far.patches
    assert drawn_at(far, "s") == [(21.0, 0.0), (22.5, 1.0)]
    assert [text.get_text() for text in far.texts] == ["21", "22.5"]


def test_references_are_within_the_axis():
    panel = Bars("recall", [[0.1], [math.nan]], ["", "not begun"], references=[0.6, math.nan])
    (axes,) = bars_figure([panel], ["one", "two"]).axes
    (line,) = [line for line in axes.lines if to_hex(line.get_color()) == LIGHT.series[1]]
    assert line.get_xdata()[0] == 0.6
    assert axes.get_xlim()[1] > 0.6
    assert [text.get_text() for text in axes.texts] == ["0.1", "not begun"]


def test_a_single_evaluation_is_visible():
    """A line through one point would not be."""
    figure = lines_figure([Lines("a", {"soco": {300: Spread((4.0, 6.0))}})], ["soco"], "step", "box AP")
    assert sorted(drawn_at(figure.axes[0], "o")) == [(300.0, 4.0), (300.0, 5.0), (300.0, 6.0)]


def test_bands_are_sample_standard_deviations_and_panels_share_a_legend():
    values = {10: (1.0, 2.0, 6.0), 20: (4.0, 4.0, 7.0)}
    lines = {at: Spread(seeds) for at, seeds in values.items()}
    figure = lines_figure(
        [Lines("a", {"_scratch": lines}, 3.5, "its end"), Lines("b", {"soco": lines})], ["_scratch", "soco"], "x", "y"
    )
    to_png(figure)
    for axes in figure.axes:
        (band,) = axes.collections
        corners = {tuple(np.round(corner, 9)) for corner in band.get_paths()[0].vertices}
        for at, seeds in values.items():
            mean, deviation = np.mean(seeds), np.std(seeds, ddof=1)
            assert {(at, round(mean - deviation, 9)), (at, round(mean + deviation, 9))} <= corners
        assert axes.lines[0].get_ydata() == pytest.approx([3.0, 5.0])
        assert axes.get_legend() is None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["_scratch", "soco", "its end"]
