"""The page of `socodet report`: its text, and how it looks in a browser."""

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import SCHEMES, check_in_browser, needs_browser
from narrow_models import NARROW

from socodet.cli import main
from socodet.errors import InputError
from socodet.images.decode import decode_image
from socodet.images.photographs import photographs
from socodet.images.source import open_images
from socodet.pretraining import recipes
from socodet.pretraining.pretrain import pretrain
from socodet.proposals.image_boxes import propose_boxes
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.reports import networks
from socodet.reports import report as reporting
from socodet.reports.images import notes_on_images, proposer_of
from socodet.reports.report import ReportResult, report
from socodet.reports.runs import read_records
from socodet.reports.sections import neighbours, retrieval
from socodet.runtime.serialization import from_json
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks", "figures_unrendered")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first` has a checkpoint; `second` has none, and fewer boxes; `tuned` has a fine-tuning run's records only."""
    root = tmp_path_factory.mktemp("runs")
    images = root / "images"
    images.mkdir()
    for path in sorted(photographs().glob("*.jpg"))[:5]:
        (images / path.name).write_bytes(path.read_bytes())
    chosen = recipes.recipe("tiny")
    small = {"epochs": 2, "warmup_epochs": 0, "batch_size": 5}
    chosen = recipes.Recipe("tiny", chosen.sample, NARROW, type(chosen.training)(**small), chosen.proposals)
    execution = ExecutionSettings(workers=0, log_every=1)
    pretrain(images, chosen, root / "first", execution=execution, show_progress=False)
    with (root / "first" / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 2, "probe_knn_balanced": 0.5, "probe_recall_at_1": 0.25}) + "\n")
    shutil.copytree(root / "first", root / "second", ignore=shutil.ignore_patterns("checkpoints"))
    described = json.loads((root / "second" / "run.json").read_text())
    described["recipe"]["sample"]["boxes_per_image"] = 3
    (root / "second" / "run.json").write_text(json.dumps(described))
    tuned = root / "tuned"
    tuned.mkdir()
    settings, schedule = {"detector": "faster_rcnn_fpn", "seed": 0}, {"iterations": 2, "batch_size": 2, "lr": 0.02}
    model = {"backbone": "resnet18"}
    recipe = {"name": "finetune", "settings": settings, "model": model, "schedule": schedule}
    about = {"recipe": recipe, "start": {"from": "first"}, "versions": {"socodet": "1", "torch": "2"}}
    (tuned / "run.json").write_text(json.dumps(about))
    lines = [{"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 2, "loss": 1.0, "lr": 0.1}, {"step": 2, "box_AP": 3.5}]
    (tuned / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def show_less(patch: pytest.MonkeyPatch, queries: int) -> None:
    """Reduces a page to what takes seconds."""
    for module, name, value in (
        (networks, "DRAWS", 1),
        (neighbours, "QUERIES", queries),
        (retrieval, "MAPS", 1),
        (reporting, "VIEWS", 1),
    ):
        patch.setattr(module, name, value)


@pytest.fixture(scope="module")
def page(runs: Path) -> ReportResult:
    with pytest.MonkeyPatch.context() as patch:
        show_less(patch, queries=2)
        return report([runs / "first", runs / "second", runs / "tuned"], runs / "report.html", device="cpu")


def test_the_page_has_every_section_and_notes_what_is_missing(page: ReportResult) -> None:
    text = page.path.read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        *("Pretraining: the recipe", "Pretraining: the curves", "Probe"),
        *("Fine-tuning: the recipe", "Fine-tuning: the curves", "Average precision", "Timeline"),
        *("Proposals", "Views", "The same object in another view", "Nearest neighbours", "Features as colours"),
    ]
    assert page.notes == ("second: has no checkpoint yet, so only its settings and curves are shown",)
    assert page.notes[0] in text
    assert re.search(r"sample.boxes_per_image</th><td>4</td><td>3</td>", text)
    for level in ("P3", "P4", "P5"):
        assert text.count(f'alt="{level} of first as colours: ') == 4
        assert text.count(f'alt="{level} of untrained as colours: ') == 4
    assert text.count('alt="neighbour ') == 2 * 2 * 4  # queries, networks, other images
    assert 'alt="kNN accuracy over the steps: first from 0.5 to 0.5' in text
    assert 'alt="Boxes, AP over IoU 0.50:0.95 over the steps: tuned from 3.5 to 3.5"' in text


def test_the_page_is_self_contained(page: ReportResult) -> None:
    text = page.path.read_text()
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    assert "<script" not in text
    assert page.path.stat().st_size < 5_000_000


def test_without_the_images_the_page_has_only_curves_and_a_note(runs: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(runs / "first", alone)
    described = json.loads((alone / "run.json").read_text())
    described["location"] = str(tmp_path / "gone")
    (alone / "run.json").write_text(json.dumps(described))
    result = report([alone], tmp_path / "r.html")
    (note,) = result.notes
    assert str(tmp_path / "gone") in note
    assert "--images" in note
    text = result.path.read_text()
    assert "<h2>Pretraining: the curves</h2>" in text
    assert "<h2>Proposals</h2>" not in text
    assert html.escape(note) in text
    with pytest.raises(InputError, match="nowhere"):
        report([alone], tmp_path / "r2.html", images=tmp_path / "nowhere")


def test_other_images_and_new_proposals_are_noted(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_less(monkeypatch, queries=1)
    (tmp_path / "others").mkdir()
    for name in ("hopper", "rocket"):
        shutil.copy(photographs() / f"{name}.jpg", tmp_path / "others")
    result = report([runs / "first"], tmp_path / "r.html", images=tmp_path / "others", device="cpu")
    (note,) = result.notes
    assert "first was trained on different images" in note
    assert html.escape(note) in result.path.read_text()
    (record,) = read_records([runs / "first"])
    own = open_images(runs / "images")
    assert notes_on_images(record, own) == []
    shutil.copytree(runs / "first", tmp_path / "first", ignore=shutil.ignore_patterns("*.parquet"))
    (moved,) = read_records([tmp_path / "first"])
    (note,) = notes_on_images(moved, own)
    assert "first's proposals are no longer at" in note
    made = proposer_of(moved, own)
    there = proposer_of(record, own)
    pixels = decode_image(own.read(0))
    assert made(own.key(0), pixels).tolist() == there(own.key(0), pixels).tolist()


def test_an_unfinished_run_is_marked_as_such(runs: Path, tmp_path: Path) -> None:
    assert "first: tiny, 2 steps." in reporting._lead(read_records([runs / "first"]))
    shutil.copytree(runs / "first", tmp_path / "half")
    first, *_ = (runs / "first" / "log.jsonl").read_text().splitlines()
    (tmp_path / "half" / "log.jsonl").write_text(first + "\n")
    shutil.copytree(runs / "tuned", tmp_path / "tuned")
    (tmp_path / "tuned" / "log.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    lead = reporting._lead(read_records([tmp_path / "half", tmp_path / "tuned"]))
    assert "half: tiny, 1 of 2 steps" in lead
    assert "tuned: faster_rcnn_fpn, 1 of 2 steps" in lead


def test_other_initial_weights_and_other_images_are_noted(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that started from other weights are still compared with random ones; all runs see the first one's images."""
    show_less(monkeypatch, queries=1)
    begun, elsewhere = (tmp_path / name for name in ("begun", "elsewhere"))
    for run, change in ((begun, {"start": {"from": "imagenet.pth"}}), (elsewhere, {"images": {"count": 5}})):
        shutil.copytree(runs / "first", run)
        described = json.loads((run / "run.json").read_text())
        named = {"names_sha256": "0"} if run == elsewhere else {}
        described |= {part: {**value, **named} for part, value in change.items()}
        (run / "run.json").write_text(json.dumps(described))
    result = report([begun, elsewhere], tmp_path / "r.html", device="cpu")
    of_images, of_start = result.notes
    assert of_images.startswith("elsewhere was trained on different images")
    assert of_start.startswith("begun started from imagenet.pth")
    assert html.escape(of_start) in result.path.read_text()


def test_a_given_table_is_found_from_any_working_directory_unless_replaced(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (record,) = read_records([runs / "first"])
    chosen = from_json(recipes.Recipe, record.description["recipe"], "")
    propose(runs / "images", "boxes.parquet", settings=ProposalSettings("grid"), workers=1, show_progress=False)
    execution = ExecutionSettings(workers=0, max_steps=1)
    given = {"proposals": "boxes.parquet", "execution": execution, "show_progress": False}
    pretrain(runs / "images", chosen, tmp_path / "given", **given)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (record,) = read_records([tmp_path / "given"])
    own = open_images(runs / "images")
    assert notes_on_images(record, own) == []
    settings = ProposalSettings("random")
    propose(runs / "images", tmp_path / "boxes.parquet", settings=settings, overwrite=True, show_progress=False)
    (note,) = notes_on_images(record, own)
    assert "given's proposals are no longer at" in note
    key, pixels = own.key(0), decode_image(own.read(0))
    grid = propose_boxes(pixels, ProposalSettings("grid"))
    assert proposer_of(record, own)(key, pixels).tolist() == grid.tolist()


def test_mistakes_are_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error_of(*argv: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["report", *map(str, argv)])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "not a run" in error_of(tmp_path, "--output", tmp_path / "r.html")
    assert f"holds some; name one or more of them, such as {runs}" in error_of(runs, "--output", tmp_path / "r.html")
    assert "is given twice" in error_of(runs / "first", runs / "first", "--output", tmp_path / "r.html")
    assert "does not end in .html" in error_of(runs / "tuned", "--output", tmp_path / "r.png")
    assert "no run is given" in error_of("--output", tmp_path / "r.html")
    main(["report", str(runs / "tuned"), "--output", str(tmp_path / "r.html")])
    assert "written in" in capsys.readouterr().out
    assert "exists" in error_of(runs / "tuned", "--output", tmp_path / "r.html")


@needs_browser
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_figure_is_visible_in_a_browser(page: ReportResult, tmp_path: Path, scheme: str) -> None:
    _, wide = said = check_in_browser(page.path, tmp_path, scheme)
    assert [len(one["seen"]) for one in said] == [page.path.read_text().count("<img ")] * 2
    assert len(wide["seen"]) > 50
    for row in wide["rows"]:  # a sample's views are in one row, with the same height
        tops, heights = zip(*row, strict=True)
        assert len(row) == 4
        assert max(tops) - min(tops) < 2
        assert max(heights) - min(heights) < 2
