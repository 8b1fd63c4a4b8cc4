"""Ablations on the shipped photographs: whole tables, interruptions, divergence, and the files written."""

import csv
import dataclasses
import html
import json
import re
import shutil
import signal

import pyarrow.parquet as pq
import pytest
import torch

import socodet
import socodet.studies.ablation.running as running
import socodet.studies.pretraining_runs as pretraining_runs
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.images.reading import PixelSettings, read_images_as
from socodet.pretraining.data import SampleDataset
from socodet.pretraining.pretrain import PretrainResult
from socodet.pretraining.recipes import recipe
from socodet.proposals.settings import ProposalSettings
from socodet.studies.ablation.budget import Budget, family_rows
from socodet.studies.ablation.running import ablate
from socodet.training.settings import ExecutionSettings
from socodet.views.geometry import canonical_levels, scale_aware_levels

pytestmark = pytest.mark.usefixtures("narrow_networks", "figures_unrendered")

SMALL = Budget(epochs=2, batch_size=4, base_lr=10, backbone="resnet18", width=1 / 32, size=48, limit=6)
"""Three steps per row."""
HERE = ExecutionSettings(device="cpu", workers=0, log_every=1)


@pytest.fixture(autouse=True, scope="module")
def _one_draw():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "DRAWS", 1)
        yield


@pytest.fixture(scope="module")
def table4(tmp_path_factory):
    return ablate(
        "table4", photographs(), tmp_path_factory.mktemp("table4"), SMALL, execution=HERE, show_progress=False
    )


def log_of(table, row):
    file = table.folder / row.name / f"seed-{row.seed}" / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def checkpoint_of(folder, name):
    newest = max((folder / name / "seed-0" / "checkpoints").glob("*.pt"))
    return newest.name, torch.load(newest, weights_only=True)["model"]


def test_table_4_has_the_papers_seven_rows_each_measured(table4):
    assert [row.paper_ap for row in table4.rows] == ["38.1", "40.6", "40.2", "41.2", "41.6", "41.7", "42.3"]
    assert all(row.status == "finished" for row in table4.rows)
    for row in table4.rows:
        lines, views = log_of(table4, row), 3 if row.name == "table4_multi_view" else 2
        assert [line["step"] for line in lines] == [1, 2, 3]
        assert row.figures["lowest_loss"] == -4 * (views - 1) <= row.figures["loss"]
        for name in ("loss", "embedding_std", "effective_rank"):
            assert row.figures[name] == lines[-1][name]
        assert row.figures["seconds"] == pytest.approx(sum(4 / line["images_per_second"] for line in lines))
        assert row.figures["images_per_second"] == pytest.approx(12 / row.figures["seconds"])
    assert "recall" not in table4.rows[0].figures  # a whole image has no objects
    for row in table4.rows[1:]:
        for name in ("recall", "recall_untrained"):
            assert row.figures[name] * 24 == pytest.approx(round(row.figures[name] * 24))
        assert 0 <= row.figures["recall_untrained"] <= 1


def test_csv_markdown_and_logs_agree(table4):
    with table4.csv.open() as file:
        rows = list(csv.DictReader(file))
    text = table4.markdown.read_text()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    header, body = cells[0], cells[2:]
    assert len(rows) == len(body) == 7
    for row, line in zip(rows, body, strict=True):
        assert [row[name] or "–" for name in header] == line
    for name in set(rows[0]) - set(header):  # noted once for all rows
        assert {row[name] for row in rows} == {rows[0][name]}
        assert f"{name} {rows[0][name]}" in text
    for row in rows:
        run = json.loads((table4.folder / row["row"] / "seed-0" / "run.json").read_text())["recipe"]
        assert row["encoder"] == run["model"]["architecture"]
        assert row["views"] == "/".join(str(view["size"]) for view in run["sample"]["views"])
        assert (int(row["batch"]), float(row["lr"])) == (run["training"]["batch_size"], 10 * 4 / 256)
        assert (
            (row["hidden_size"], row["fpn_channels"])
            == ("128", "8")
            == (str(run["model"]["hidden_size"]), str(run["model"]["fpn_channels"]))
        )
        last = json.loads((table4.folder / row["row"] / "seed-0" / "log.jsonl").read_text().splitlines()[-1])
        assert float(row["loss"]) == pytest.approx(last["loss"], abs=5e-5)
    assert len({(table4.folder / row["row"] / "seed-0" / "proposals.parquet").exists() for row in rows} - {False}) == 0
    notebook = table4._repr_html_()
    for line in body:
        assert all(f">{html.escape(cell)}</t" in notebook for cell in line if cell != "–")
    png, svg = table4.figure, table4.figure.with_suffix(".svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()


def test_a_finished_ablation_is_not_repeated(table4, monkeypatch):
    def pretrain(*_args, **_kwargs):
        raise AssertionError("a finished row was run again")

    monkeypatch.setattr(pretraining_runs, "pretrain", pretrain)
    again = ablate("table4", photographs(), table4.folder, SMALL, execution=HERE, show_progress=False)
    assert again == table4


def test_a_resumed_ablation_equals_an_uninterrupted_one(table4, tmp_path, monkeypatch):
    fetch, fetched = SampleDataset.sample, []

    def interrupting(self, place, *more):
        fetched.append(place)
        if len(fetched) == 12 + 2:  # in the second row; the first, on whole images, is not measured
            signal.raise_signal(signal.SIGINT)
        return fetch(self, place, *more)

    def go_on():
        return ablate("table4", photographs(), tmp_path, SMALL, execution=HERE, show_progress=False)

    with monkeypatch.context() as patch:
        patch.setattr(SampleDataset, "sample", interrupting)
        stopped = go_on()
    assert stopped.stopped_by == "SIGINT"
    assert [row.status for row in stopped.rows][2:] == ["not begun"] * 5
    assert stopped.rows[0].finished
    assert re.fullmatch(r"step [12] of 3", stopped.rows[1].status)
    assert "not begun" in stopped.csv.read_text()
    assert stopped.figure.exists()
    resumed = go_on()
    assert resumed.stopped_by is None
    timed = {"seconds", "images_per_second"}
    for ours, theirs in zip(resumed.rows, table4.rows, strict=True):
        assert {k: v for k, v in ours.figures.items() if k not in timed} == {
            k: v for k, v in theirs.figures.items() if k not in timed
        }
        assert dataclasses.replace(ours, figures={}) == dataclasses.replace(theirs, figures={})
    name, weights = checkpoint_of(tmp_path, "table4_selective_search")
    other_name, others = checkpoint_of(table4.folder, "table4_selective_search")
    assert name == other_name
    assert all(torch.equal(weights[key], others[key]) for key in others)


def test_a_signal_in_the_last_step_of_a_row_is_not_lost(tmp_path, monkeypatch):
    called = []

    def last_step(_source, asked, output, **_options):
        called.append(asked.name)
        return PretrainResult(output, 3, 3, "SIGTERM", (), 1.0)

    monkeypatch.setattr(pretraining_runs, "pretrain", last_step)
    monkeypatch.setattr(running, "object_recall", lambda *_: {"recall": 0.5})
    table = ablate("table5d", photographs(), tmp_path, SMALL, execution=HERE, show_progress=False)
    assert table.stopped_by == "SIGTERM"
    assert called == ["table5d_0980"]
    assert [row.status for row in table.rows] == ["finished", "not begun", "not begun"]


def test_a_diverged_row_is_recorded_and_the_others_continue(tmp_path, monkeypatch):
    rows = running.family_rows

    def one_too_fast(family, budget):
        first, *others = rows(family, budget)
        fast = dataclasses.replace(
            first.recipe, training=dataclasses.replace(first.recipe.training, base_lr=1e30, warmup_epochs=0)
        )
        return [dataclasses.replace(first, recipe=fast), *others]

    def run(**options):
        return ablate("table5d", photographs(), tmp_path, SMALL, execution=HERE, show_progress=False, **options)

    monkeypatch.setattr(running, "family_rows", one_too_fast)
    table = run()
    found = re.fullmatch(r"diverged at step ([1-3])", table.rows[0].status)
    assert found
    logged = [line["step"] for line in log_of(table, table.rows[0])]
    assert int(found[1]) == (logged[-1] if logged else 0) + 1  # the step after the last finite one
    assert [row.status for row in table.rows[1:]] == ["finished", "finished"]
    assert table.rows[0].status in table.csv.read_text()
    assert table.rows[0].status in table.markdown.read_text()
    tried = []
    pretrain = pretraining_runs.pretrain
    monkeypatch.setattr(pretraining_runs, "pretrain", lambda *a, **k: tried.append(a[1].name) or pretrain(*a, **k))
    assert run() == table
    assert tried == []
    assert run(retry_diverged=True) == table
    assert tried == ["table5d_0980"]
    more = ablate(
        "table5d",
        photographs(),
        tmp_path,
        dataclasses.replace(SMALL, seeds=(1,)),
        execution=HERE,
        show_progress=False,
    )  # the same images; seed 0's results stay in the table
    assert [row for row in more.rows if row.seed == 0] == list(table.rows)
    assert [row.status for row in more.rows if row.seed == 1] == [found[0], "finished", "finished"]


def test_rows_share_proposal_tables(tmp_path):
    small = dataclasses.replace(SMALL, epochs=1)
    table = ablate("table5c", photographs(), tmp_path, small, execution=HERE, show_progress=False)
    assert [row.settings["proposals"] for row in table.rows] == ["single"] * 4 + ["random"] * 3
    assert [row.settings["K"] for row in table.rows] == ["1", "4", "8", "16", "1", "4", "8"]
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == [
        "proposals-random.parquet",
        "proposals-single.parquet",
    ]


def test_rows_of_another_ablation_are_refused(table4):
    before = table4.csv.read_bytes()
    for family, budget in (("table5a", SMALL), ("table4", dataclasses.replace(SMALL, epochs=4))):
        with pytest.raises(InputError, match="holds an ablation of other settings"):
            ablate(family, photographs(), table4.folder, budget, execution=HERE, show_progress=False)
    assert table4.csv.read_bytes() == before


def test_images_read_differently_and_other_proposals_are_refused(table4, tmp_path, monkeypatch):
    """Including another table at the same path."""
    call = {"execution": HERE, "show_progress": False}
    with read_images_as(PixelSettings(bands=(3, 2, 1))), pytest.raises(InputError, match=r"bands .*3 2 1 now"):
        ablate("table4", photographs(), table4.folder, SMALL, **call)
    boxes = shutil.copy(table4.folder / "proposals-single.parquet", tmp_path)
    monkeypatch.setattr(running.Study, "run", lambda *_, **__: None)  # trains nothing
    for _ in range(2):
        ablate("table4", photographs(), tmp_path / "out", SMALL, proposals=boxes, **call)
    boxes = shutil.move(boxes, tmp_path / "moved.parquet")
    ablate("table4", photographs(), tmp_path / "out", SMALL, proposals=boxes, **call)
    pq.write_table(pq.read_table(boxes), boxes, compression="gzip")
    with pytest.raises(InputError, match="--proposals"):
        ablate("table4", photographs(), tmp_path / "out", SMALL, proposals=boxes, **call)


def test_rows_with_selective_search_refuse_random_boxes(tmp_path):
    boxes = tmp_path / "random.parquet"
    socodet.propose(photographs(), boxes, settings=ProposalSettings("random"), show_progress=False)
    with pytest.raises(InputError, match="its boxes are random"):
        ablate("table5c", photographs(), tmp_path / "out", SMALL, proposals=boxes, execution=HERE)
    assert not (tmp_path / "out").exists()


def test_the_papers_budget_gives_the_papers_recipes():
    for family in ("table4", "table5a", "table5b", "table5c", "table5d"):
        for row in family_rows(family, Budget()):
            assert row.recipe == recipe(row.name)


def test_a_budget_scales_settings_in_proportion():
    half = Budget(epochs=10, batch_size=64, size=112, width=0.25, backbone="resnet34", base_lr=2)
    assert [row.recipe.training.batch_size for row in family_rows("table5b", half)] == [16, 32, 64, 128]
    assert [row.recipe.training.lr for row in family_rows("table5b", half)] == [0.125, 0.25, 0.5, 1.0]
    assert [row.recipe.sample.views[2].size for row in family_rows("table5a", half)] == [48, 56, 64, 80, 96]
    row = family_rows("table4", half)[-1].recipe
    assert (row.sample.level_limits, row.sample.min_box_side) == ((24, 48, 96), 4)
    assert [view.photometric.blur_sigma for view in row.sample.views] == [(0.1, 1.0)] * 3
    assert (row.training.warmup_epochs, row.model.hidden_size, row.model.backbone) == (1, 1024, "resnet34")
    with pytest.raises(InputError, match="batch_size"):
        family_rows("table5b", Budget(batch_size=2))
    with pytest.raises(InputError, match="no such ablation"):
        family_rows("table9", half)


def test_a_row_too_short_for_a_step_is_refused_before_any_run(tmp_path):
    costly = dataclasses.replace(SMALL, epochs=1, batch_size=8)
    with pytest.raises(InputError, match="6 images give table5b_2048 no step of batch size 8 in 1 epochs"):
        ablate("table5b", photographs(), tmp_path / "out", costly, execution=HERE)
    assert not (tmp_path / "out").exists()


def test_the_canonical_rule_scales_with_the_view_size():
    """A box shrunk together with its view keeps its level; a box of the whole view, 224 pixels, is on P4."""
    sides = torch.arange(20, 224.5, 0.5).double().numpy()
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in sides]).double().numpy()
    levels = canonical_levels(boxes)
    assert [levels[sides == side].item() for side in (111.5, 112, 223.5, 224)] == [0, 1, 1, 2]
    for size in (64, 96, 112, 160):
        limits = family_rows("table4", Budget(size=size))[2].recipe.sample.level_limits
        smaller = (boxes * (size / 224)).astype("float32").astype("float64")  # samples hold float32
        assert (scale_aware_levels(smaller, limits) == levels).all()
