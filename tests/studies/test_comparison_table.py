"""Means, standard deviations, and which init is above which, from hand-written logs."""

import csv
import itertools
import json
import math
import re

import numpy as np
import pytest
from browser import SCHEMES, check_in_browser, needs_browser

from socodet.studies.comparison import Comparison
from socodet.studies.comparison_page import write_comparison_page
from socodet.studies.detector_table import FIGURES, _by_chance, curve, scores
from socodet.studies.runner import Job, JobResult, Study
from socodet.training.learner import DivergedError

STEPS = (10, 20, 30, 40)
SOCO = ([5, 21, 30, 41], [7, 25, 34, 40], [6, 20, 32, 39])
"""AP at those steps, one list per seed."""
SUPERVISED = ([4, 16, 28, 37], [4, 17, 27, 40], [4, 18, 29, 37])
SCRATCH = ([1, 5, 12, 20], [2, 7, 14, 22], [0, 6, 13, 24])
ASKED = {
    "settings": {"detector": "fcos_fpn", "schedule": "coco_1x", "epochs": None},
    "schedule": {"iterations": 40, "batch_size": 16, "lr": 0.01, "test_short_side": 800},
    "train": {"images": 12},
    "val": {"images": 5, "style": "coco"},
}
MORE = {
    "names": {"train": "train2017", "val": "val2017"},
    "inits": {
        "soco": {"from": "/runs/soco", "loaded": ["backbone.body", "backbone.fpn"]},
        "supervised": {"from": "/r50.pth", "loaded": ["backbone.body"]},
        "scratch": {"from": "scratch", "loaded": []},
    },
}


def job(init, seed, curve=None, *, fraction=1.0, diverges=None):
    """A run with these AP at the steps; it may diverge at a step, or not finish."""

    def run(_folder):
        if diverges is not None:
            raise DivergedError("the loss is NaN", diverges)
        if curve is None:
            return JobResult(None)
        points = [{"step": s, "box_AP": ap, "box_AP50": 1.5 * ap} for s, ap in zip(STEPS, curve, strict=False)]
        scores = {name: value for name, value in points[-1].items() if name != "step"}
        return JobResult({"steps": points[-1]["step"], "scores": scores, "curve": points})

    name = f"runs/{init}/fraction-{fraction:g}/seed-{seed}"
    return Job(name, {"init": init, "fraction": fraction, "seed": seed}, name, run)


def comparison_of(folder, *more, **curves):
    """A comparison of these runs, given as curves or jobs."""
    jobs = [job(init, seed, curve) for init, runs in curves.items() for seed, curve in enumerate(runs)]
    study = Study(folder, "comparison", show_progress=False)
    study.begin(ASKED, [], **MORE)
    study.run([*jobs, *more], lambda: None)
    return Comparison(study, study.outcomes([*jobs, *more]))


@pytest.fixture
def three(tmp_path):
    return comparison_of(tmp_path, soco=SOCO, supervised=SUPERVISED, scratch=SCRATCH)


def test_mean_and_sample_standard_deviation_over_seeds(three):
    assert [row.labels["init"] for row in three.detectors.rows] == ["soco", "supervised", "scratch"]
    for row, runs in zip(three.detectors.rows, (SOCO, SUPERVISED, SCRATCH), strict=True):
        last = [run[-1] for run in runs]
        found = scores(row)
        assert found["box_AP"].values == tuple(last)
        assert found["box_AP"].mean == pytest.approx(np.mean(last))
        assert found["box_AP"].deviation == pytest.approx(np.std(last, ddof=1))
        assert found["box_AP50"].mean == pytest.approx(1.5 * np.mean(last))
        assert set(found) == {"box_AP", "box_AP50"}
        assert [spread.mean for spread in curve(row).values()] == pytest.approx(np.mean(runs, axis=0))


def test_the_step_at_which_scratchs_final_ap_is_reached(three):
    """Scratch ends at 22; SoCo's means are 6, 22 and 32, the supervised network's 4, 17 and 28."""
    table = three.detectors
    assert table.scratch_ap(1.0) == pytest.approx(22)
    assert [table.reaches_scratch_at(row) for row in table.rows] == [20, 30, 40]


def test_one_is_above_another_only_if_every_seed_is(three, tmp_path):
    table = three.detectors
    soco, supervised, scratch = table.rows
    assert scores(soco)["box_AP"].mean > scores(supervised)["box_AP"].mean + 1  # since 39 is below 40
    assert table.above(soco) == ["scratch"]
    assert table.above(supervised) == ["scratch"]
    assert table.above(scratch) == []
    one = comparison_of(tmp_path / "one", soco=SOCO[:1], scratch=SCRATCH[:1]).detectors
    assert one.above(one.rows[0]) == []  # a single run has no spread
    assert scores(one.rows[0])["box_AP"].deviation is None
    assert scores(one.rows[0])["box_AP"].written() == "41.00"


def test_a_missing_or_diverged_run_is_reported_and_no_init_is_above(tmp_path):
    others = [job("soco", 2, diverges=27), job("supervised", 0), job("supervised", 1)]
    comparison = comparison_of(tmp_path, *others, soco=SOCO[:2], scratch=SCRATCH)
    soco, supervised, _ = comparison.detectors.rows
    assert [run.status for run in soco.runs] == ["finished", "finished", "diverged at step 27"]
    assert [run.status for run in supervised.runs] == ["not begun", "not begun"]
    assert scores(soco)["box_AP"].values == (41, 40)  # over the finished ones
    assert comparison.detectors.above(soco) == []
    text = comparison.as_markdown()
    assert "| soco | 2, 1 diverged | 40.50 ± 0.71 |" in text
    assert "| supervised | 0, 2 to go | – | – | – | – |" in text


def test_fractions_of_the_labels_are_not_compared_with_each_other(tmp_path):
    few = [job("soco", seed, np.divide(curve, 10).tolist(), fraction=0.05) for seed, curve in enumerate(SOCO)]
    comparison = comparison_of(tmp_path, *few, scratch=SCRATCH, soco=SOCO)
    table = comparison.detectors
    found = [(row.labels["fraction"], row.labels["init"]) for row in table.rows]
    assert found == [(0.05, "soco"), (1, "soco"), (1, "scratch")]
    assert table.scratch_ap(0.05) is None
    assert table.above(table.rows[0]) == []
    text = comparison.as_markdown()
    assert text.index("## 5% of the training images") < text.index("## 100% of the training images")


def test_markdown_csv_and_json_agree(three):
    three.write()
    with (three.study.folder / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    written = json.loads((three.study.folder / "table.json").read_text())
    text = three.markdown.read_text()
    assert "- soco: /runs/soco (backbone.body, backbone.fpn)" in text
    assert "- scratch: nothing pretrained" in text
    for line, row, runs in zip(lines, written["rows"], (SOCO, SUPERVISED, SCRATCH), strict=True):
        last = [run[-1] for run in runs]
        assert float(line["box_AP_mean"]) == pytest.approx(row["scores"]["box_AP"]["mean"], abs=1e-4)
        assert float(line["box_AP_std"]) == pytest.approx(np.std(last, ddof=1), abs=1e-4)
        assert row["scores"]["box_AP"]["values"] == last
        assert [point["values"] for point in row["curve"]] == np.transpose(runs).tolist()
        assert (line["reaches_scratch_at"], line["above"]) == (str(row["reaches_scratch_at"]), " ".join(row["above"]))
        assert f"| {row['init']} | 3 | {np.mean(last):.2f} ± {np.std(last, ddof=1):.2f} |" in text
        assert f"| step {row['reaches_scratch_at']} of 40 | {', '.join(row['above']) or '–'} |" in text
    assert [run["scores"]["box_AP"] for run in written["runs"]] == [run[-1] for run in (*SOCO, *SUPERVISED, *SCRATCH)]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_probability_that_equal_inits_separate_by_chance(n, tmp_path):
    """Counts all ways to assign the ranks of 2n equal runs to two inits."""
    deals = list(itertools.combinations(range(2 * n), n))
    apart = sum(max(deal) == n - 1 or min(deal) == n for deal in deals)
    assert f"1 time in {len(deals) / apart:g}." in _by_chance([n, n])
    assert _by_chance([n, n + 1]) == ""


def test_the_curves_show_every_run_and_the_means(three):
    figure, none = three.detectors.figures().values()
    assert none is None  # a single fraction makes no curve
    (axes,) = figure.axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == len(STEPS)]
    shown = {tuple(line.get_ydata()) for line in curves}
    assert {tuple(run) for run in (*SOCO, *SUPERVISED, *SCRATCH)} <= shown
    means = {line.get_label(): line.get_ydata() for line in curves if not line.get_label().startswith("_")}
    assert list(means) == ["soco", "supervised", "scratch"]
    assert means["soco"] == pytest.approx(np.mean(SOCO, axis=0))
    (edges,) = axes.collections[0].get_paths()  # the band of the first init: along the lower edge, back along the upper
    for sign in (-1, 1):
        for step, values in zip(STEPS, np.transpose(SOCO), strict=True):
            edge = [step, np.mean(values) + sign * np.std(values, ddof=1)]
            assert np.abs(edges.vertices - edge).sum(axis=1).min() < 1e-6


def test_a_length_that_depends_on_the_images_is_not_claimed_for_every_run(three):
    assert "Every run: 40 steps of" in three.shared
    note = json.loads(three.study.note.read_text())
    note["asked"]["settings"] |= {"schedule": "auto", "iterations": None}
    three.study.note.write_text(json.dumps(note))
    shared = Comparison(three.study, three.outcomes).shared
    assert "Every run: 40 steps" not in shared
    assert "40 steps for all" in shared


def test_the_page_has_the_tables_and_the_curves(three):
    write_comparison_page(three.detectors, three.study.folder, three.headline(), three.shared, three.origins)
    text = (three.study.folder / "comparison.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == ["Curves", "100% of the training images", "Inits"]
    assert "<h1>fcos_fpn from soco, supervised, scratch</h1>" in text
    assert text.count('<tr class="marked">') == 2  # soco and supervised are above scratch
    assert f"<td>{np.mean([run[-1] for run in SOCO]):.2f} ± " in text
    assert "/runs/soco (backbone.body, backbone.fpn)" in text
    assert text.count("<img ") == 1
    assert text.count("<source ") == 1  # and another for dark pages


@needs_browser
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_browser_shows_the_page(three, tmp_path, scheme):
    write_comparison_page(three.detectors, three.study.folder, three.headline(), three.shared, three.origins)
    check_in_browser(three.study.folder / "comparison.html", tmp_path, scheme)


def test_label_efficiency_shows_the_final_ap_of_all_runs(tmp_path):
    few = [job("soco", seed, np.divide(curve, 2).tolist(), fraction=0.1) for seed, curve in enumerate(SOCO)]
    table = comparison_of(tmp_path, *few, soco=SOCO, scratch=SCRATCH).detectors
    (axes,) = table.figures()["labels"].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["soco"] == [[0.1, 20.0], [1.0, 40.0]]
    assert lines["scratch"] == [[1.0, pytest.approx(22)]]
    dots = [point for line in axes.lines if line.get_linestyle() == "None" for point in line.get_xydata().tolist()]
    assert sorted(dots)[:3] == [[0.1, 19.5], [0.1, 20.0], [0.1, 20.5]]
    table.write_figures(tmp_path)
    for name in FIGURES:
        begins = b"\x89PNG" if name.endswith("png") else b"<?xml"
        assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize("end", [0, 0.004])
def test_a_scratch_ap_of_zero_is_no_target(end, tmp_path):
    table = comparison_of(tmp_path, soco=SOCO[:1], scratch=[[0, 0, 0, end]]).detectors
    assert [table.reaches_scratch_at(row) for row in table.rows] == [None, None]
    assert math.isclose(scores(table.rows[1])["box_AP"].mean, end)
