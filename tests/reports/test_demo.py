"""The demo, shortened to two steps: everything is written, can be loaded, and is not overwritten."""

import html
import re
import shutil
from dataclasses import replace

import pytest
from browser import SCHEMES, check_in_browser, needs_browser
from narrow_models import NARROW
from torchvision.models.detection import MaskRCNN

import socodet
from socodet.cli import main
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.pretraining.pretrain import PretrainResult
from socodet.pretraining.recipes.practical import tiny
from socodet.proposals.table import ProposalTable
from socodet.reports import demo as demonstration
from socodet.reports import networks
from socodet.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    images, output = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("demo") / "out"
    for path in sorted(photographs().glob("*.jpg"))[:3]:
        (images / path.name).write_bytes(path.read_bytes())
    (images / "broken.jpg").write_bytes(b"broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstration, "STEPS", 2)
        patch.setattr(demonstration, "tiny", lambda: replace(tiny(), model=NARROW))
        patch.setattr(networks, "DRAWS", 2)
        patch.setattr(demonstration, "photographs", lambda: images)
        patch.setattr(demonstration, "FINETUNING", replace(demonstration.FINETUNING, iterations=2, size=64))
        return images, demonstration.demo(output=output)


def test_every_output_is_where_the_result_says(finished):
    _, result = finished
    printed = str(result)
    for path in (result.table, result.run, result.weights, result.detector, result.report):
        assert path.exists()
        assert str(path) in printed
    assert len(ProposalTable.read(result.table)) == 4
    assert len(result.verdicts) == 4
    detector = socodet.build_detector(result.run, num_classes=5, show_report=False)
    assert isinstance(detector, MaskRCNN)
    report = socodet.load_pretrained(detector, result.weights, show_report=False)
    assert report.loaded_modules.keys() == {"backbone.body", "backbone.fpn", "roi_heads.box_head"}


def test_the_page_has_every_section_and_figure(finished):
    _, result = finished
    page = result.report.read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == [
        *("What went in", "What the network saw", "What was learned", "The same object in another view"),
        *("Detections", "What to do next"),
    ]
    for verdict in result.verdicts:
        assert all(text in html.unescape(page) for text in (verdict.figure, verdict.good, verdict.poor))
    images_shown = re.findall(r"<img[^>]*>", page)
    assert len(images_shown) == 3 + 2 * 4 + 4 + 3 * 3 + 4  # proposals, samples, curves, similarity maps, detections
    assert all('src="data:image/' in image and 'alt="' in image for image in images_shown)
    assert not re.search(r"(src|href)=\"https?:", page)
    assert re.search(r"untrained</t[hd]><td[^>]*>\d+\.\d%", page)


@needs_browser
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_browser_shows_the_page(finished, tmp_path, scheme):
    _, result = finished
    page = tmp_path / "demo.html"
    page.write_bytes(result.report.read_bytes())
    check_in_browser(page, tmp_path, scheme)


def test_a_finished_demo_is_not_overwritten(finished):
    images, result = finished
    before = result.report.read_bytes()
    with pytest.raises(InputError, match="holds a finished demo"):
        demonstration.demo(images, result.output)
    assert result.report.read_bytes() == before
    with pytest.raises(InputError, match="nowhere: no such"):
        demonstration.demo(images / "nowhere", result.output, overwrite=True)
    assert result.report.read_bytes() == before


def test_a_folder_that_is_not_a_demo_is_left_alone(finished, tmp_path):
    images, _ = finished
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="files that are not of a demo"):
            demonstration.demo(images, tmp_path, overwrite=overwrite)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_a_stopped_demo_says_how_to_resume_and_exits_with_the_signals_code(finished, tmp_path, monkeypatch, capsys):
    images, _ = finished
    stopped = PretrainResult(tmp_path / "run", 1, 2, "SIGTERM", (), 0.5)
    monkeypatch.setattr(demonstration, "pretrain", lambda *_, **__: stopped)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--images", str(images), "--output", str(tmp_path / "out")])
    assert ended.value.code == 143
    assert "stopped by SIGTERM while pretraining; the same command resumes" in capsys.readouterr().out
    tuning = replace(finished[1], stopped_by="SIGTERM")
    monkeypatch.setattr(demonstration, "demo", lambda *_, **__: tuning)
    with pytest.raises(SystemExit):
        main(["demo", "--output", str(tmp_path / "out")])
    assert "while fine-tuning" in capsys.readouterr().out


def test_inspect_draws_proposals_and_views(finished, tmp_path):
    images, result = finished
    sheet = socodet.inspect("proposals", images, tmp_path / "boxes.png", table=result.table)
    assert sheet.read_bytes().startswith(b"\x89PNG")
    page = socodet.inspect("views", images, tmp_path / "views.html")
    assert page.read_text().count("<img") >= 3 * 4
    with pytest.raises(InputError, match="exists"):
        socodet.inspect("views", images, page)
    with pytest.raises(InputError, match="limit must be at least 1"):
        socodet.inspect("views", images, tmp_path / "none.html", limit=0)


def test_a_finished_demo_is_overwritten_on_request(finished, tmp_path, monkeypatch):
    images, result = finished
    shutil.copytree(result.output, tmp_path / "out")
    stopped = PretrainResult(tmp_path / "out" / "run", 1, 2, "SIGTERM", (), 0.5)
    monkeypatch.setattr(demonstration, "photographs", lambda: images)
    monkeypatch.setattr(demonstration, "pretrain", lambda *_, **__: stopped)
    again = demonstration.demo(output=tmp_path / "out", overwrite=True)
    assert again.stopped_by == "SIGTERM"
    assert not again.report.exists()
    for folder in (again.run, again.detector):
        RunFolder(folder).refuse_foreign()  # otherwise the new demo's runs could not start
        assert not RunFolder(folder).checkpoints()
