import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow_models import NARROW
from PIL import Image, ImageColor

from socodet.detection.detectors.fcos import FCOSFPN
from socodet.detection.detectors.rt_detr_loss import LOSSES
from socodet.detection.detectors.settings import InferenceSettings
from socodet.reports.page import Gallery
from socodet.reports.runs import RunRecord
from socodet.reports.sections import curves
from socodet.reports.sections.curves import (
    FINETUNE_TITLES,
    PROBE_TITLES,
    SCORE_TITLES,
    curve_charts,
    curve_figure,
    curve_sections,
    level_charts,
    level_figure,
)
from socodet.reports.theme import DARK, LIGHT, to_png

LINES = [
    json.loads(
        json.dumps(
            {
                "step": step,
                "epoch": step / 10,
                "loss": -2.0 - step / 50,
                "lr": 0.1 * step,
                "momentum": 0.99,
                "embedding_std": 0.05,
                "effective_rank": 10 + step,
                "level_share": [0.1, 0.2, 0.3, 0.4],
                "images_per_second": 8.5,
                "data_wait": 0.1,
            }
        )
    )
    for step in range(1, 41)
]
NAMES = ["loss", "lr", "momentum", "embedding_std", "effective_rank", "images_per_second", "data_wait"]


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def test_a_curve_goes_through_the_points_of_the_log() -> None:
    for name in NAMES:
        figure = curve_figure({"run": LINES}, name)
        assert figure is not None
        drawn = figure.axes[0].lines[0].get_xydata()
        np.testing.assert_allclose(drawn, [(line["step"], line[name]) for line in LINES])


@pytest.mark.usefixtures("figures_unrendered")
def test_fields_that_are_missing_or_not_finite_are_left_out() -> None:
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}, {"step": 3}, {"step": 4, "loss": 0.5}]
    figure = curve_figure({"run": lines}, "loss")
    assert figure is not None
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 1], [4, 0.5]]
    assert curve_figure({"run": lines}, "lr") is None
    assert level_figure(lines) is None
    assert [chart.title for chart in curve_charts({"run": lines})] == ["Loss"]
    assert curve_charts({"run": []}) == []


@pytest.mark.usefixtures("figures_unrendered")
def test_the_embedding_std_has_reference_lines_at_an_even_spread_and_half_of_it() -> None:
    charts = {chart.title: chart for chart in curve_charts({"run": LINES}, embedding_size=64)}
    assert len(charts) == 7
    figure = curve_figure({"run": LINES}, "embedding_std", references={"even": 1 / 8, "half": 1 / 16})
    assert figure is not None
    heights = [line.get_ydata()[0] for line in figure.axes[0].lines[1:]]
    assert heights == [1 / 8, 1 / 16]
    low, high = figure.axes[0].get_ylim()
    assert low == 0
    assert high > 1 / 8


@pytest.mark.usefixtures("figures_unrendered")
def test_bounds_of_the_effective_rank_are_drawn_once_per_value(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, float]] = []

    def watched(draw: Any, *_: Any) -> list[Any]:
        if draw.args[1] == "effective_rank":
            drawn.append(draw.keywords["references"])
        return []

    monkeypatch.setattr(curves, "light_and_dark", watched)
    runs = {"soco": LINES, "image": LINES}
    curve_charts(runs, rank_bounds={"soco": 47, "image": 47})
    curve_charts(runs, rank_bounds={"soco": 47, "image": 11})
    assert [sorted(one.values()) for one in drawn] == [[47], [11, 47]]
    of_bound = {bound: label for label, bound in drawn[1].items()}
    assert "soco" in of_bound[47]
    assert "image" in of_bound[11]


def test_level_shares_are_stacked_to_one() -> None:
    figure = level_figure(LINES)
    assert figure is not None
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in figure.axes[0].collections]
    np.testing.assert_allclose(tops, [0.1, 0.3, 0.6, 1.0])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["P5", "P4", "P3", "P2"]  # in stacking order


@pytest.mark.usefixtures("figures_unrendered")
def test_runs_have_distinct_names() -> None:
    figure = curve_figure({"first": LINES, "second": LINES[:20]}, "loss")
    assert figure is not None
    first, second = figure.axes[0].lines
    assert len(first.get_xdata()) == 40
    assert len(second.get_xdata()) == 20
    assert first.get_color() != second.get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]
    titles = [chart.title for chart in level_charts({"first": LINES, "second": LINES})]
    assert titles == ["Pyramid levels of first", "Pyramid levels of second"]


def test_one_logged_step_is_a_visible_point() -> None:
    figure = curve_figure({"run": LINES[:1]}, "loss")
    assert figure is not None
    assert figure.axes[0].lines[0].get_marker() == "o"
    assert level_figure(LINES[:1]) is not None


def test_charts_exist_for_light_and_dark_pages() -> None:
    runs = {"run": LINES[:5]}
    for chart in [*curve_charts(runs, embedding_size=256), *level_charts(runs)]:
        assert chart.dark is not None
        light, dark = decoded(chart.data), decoded(chart.dark)
        assert light.shape == dark.shape == (480, 800, 4)
        assert light[0, 0, 3] == 0  # transparent: the page's background shows through
        assert light[light[..., 3] > 250][:, :3].min() < 100  # letters
        assert dark[dark[..., 3] > 250][:, :3].max() > 150
        assert chart.alt.startswith(chart.title)
        if "Pyramid" not in chart.title:
            for pixels, theme in ((light, LIGHT), (dark, DARK)):
                assert (pixels[..., :3] == ImageColor.getrgb(theme.series[0])).all(axis=2).sum() > 300


@pytest.mark.usefixtures("figures_unrendered")
def test_alt_text_says_where_a_curve_begins_and_ends() -> None:
    assert curve_charts({"run": LINES})[0].alt == "Loss over the steps: run from -2.02 to -2.8"


@pytest.mark.usefixtures("figures_unrendered")
def test_probes_and_evaluations_have_charts_of_their_own() -> None:
    lines = [*LINES, {"step": 20, "probe_knn_balanced": 0.25}, {"step": 40, "probe_knn_balanced": 0.5}]
    (probe,) = curve_charts({"run": lines}, PROBE_TITLES)
    assert probe.alt.endswith("run from 0.25 to 0.5")
    figure = curve_figure({"run": lines}, "probe_knn_balanced")
    assert figure is not None
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[20, 0.25], [40, 0.5]]
    assert figure.axes[0].yaxis.get_major_formatter()(0.25, None) == "25%"
    (score,) = curve_charts({"run": [{"step": 9, "box_AP": 1.5, "box_AP50": None}]}, SCORE_TITLES)
    assert score.title == "Boxes, AP over IoU 0.50:0.95"


@pytest.mark.usefixtures("figures_unrendered")
def test_every_loss_of_a_single_stage_detector_and_of_rt_detr_has_a_chart() -> None:
    torch.manual_seed(0)
    target = {"boxes": torch.tensor([[1.0, 1, 30, 30]]), "labels": torch.tensor([1])}
    names = [
        f"loss_{name}" for name in FCOSFPN().build(NARROW, 3, InferenceSettings())([torch.rand(3, 64, 64)], [target])
    ]
    lines = [{"step": step, **dict.fromkeys([*names, *LOSSES], 1.0)} for step in (1, 2)]
    charts = curve_charts({"run": lines}, FINETUNE_TITLES)
    assert len(charts) == len(names) + len(LOSSES) == 6


NAMES_OF_RUNS = ["plain", "_hidden", "$x$ and $y$", "$\\bad$", "<b>", "a\nb", "seventh", "eighth", "ninth"]


def test_lines_are_distinguishable_and_names_are_shown_verbatim() -> None:
    """There are nine runs but six colours; matplotlib hides names beginning with _ and reads $...$ as a formula."""
    lines = [{"step": step, "loss": 1 / step} for step in range(1, 60)]
    figure = curve_figure(dict.fromkeys(NAMES_OF_RUNS, lines), "loss")
    assert figure is not None
    drawn = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == len(NAMES_OF_RUNS)
    to_png(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [name.replace("\n", "\\n") for name in NAMES_OF_RUNS]
    assert not any(text.get_parse_math() for text in legend.get_texts())
    shown = [line.get_color() for line in legend.get_lines()]
    assert shown == [line.get_color() for line in drawn]
    box, chart = legend.get_window_extent(), figure.axes[0].get_window_extent()
    assert box.y0 >= chart.y1 - 1  # it does not cover the lines
    assert box.x1 <= figure.bbox.x1
    assert chart.height > 250


@pytest.mark.parametrize(
    ("architecture", "rule", "drawn"),
    [("fpn", "scale_aware", True), ("image", "single", False), ("c4", "scale_aware", False), ("fpn", "single", False)],
)
def test_levels_are_drawn_only_for_runs_with_a_pyramid(architecture: str, rule: str, drawn: bool) -> None:
    model = {"architecture": architecture, "embedding_size": 8}
    recipe = {"model": model, "sample": {"level_rule": rule}, "training": {"batch_size": 4}}
    (section, *_) = curve_sections([RunRecord("run", Path(), {"recipe": recipe}, LINES)], "Pretraining")
    (gallery,) = section.figures
    assert isinstance(gallery, Gallery)
    assert ("Pyramid levels" in [chart.title for chart in gallery.images]) == drawn
