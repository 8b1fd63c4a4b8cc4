"""How results are displayed in a notebook."""

import base64
import io
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from photograph_sets import coco_file
from PIL import Image

import socodet
from socodet.runtime.shown import LISTED, THUMBNAIL, Shown, ShownCurve, ShownTable, ShownThumbnail

NASTY = '<script>alert("&amp;")</script>'


class Reader(HTMLParser):
    """Collects texts with their tags, and the tags' attributes."""

    def __init__(self, result: Shown) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.html = result._repr_html_()
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def row(self, name):
        """The cells of the row of that name."""
        start = self.html.index(f">{name}</th>")
        return re.findall(r"<td[^>]*>(.*?)</td>", self.html[start : self.html.index("</tr>", start)])


@dataclass(frozen=True)
class Something(Shown):
    path: Path
    count: int
    share: float
    nothing: str | None
    failures: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.path}: {NASTY}\nsecond line"


def test_fields_become_a_table_and_all_text_is_escaped() -> None:
    shown = Reader(Something(Path(NASTY), 12345, 0.25, None, ((NASTY, "torn"),) * 7))
    assert not shown.all("script")
    assert shown.texts[0] == f"{NASTY}: {NASTY}"  # only the first line is the heading
    assert shown.row("count") == ["12,345"]
    assert "nothing" not in shown.texts
    assert shown.row("failures")[0].count("torn") == LISTED
    assert "and 2 more" in shown.row("failures")[0]


def test_curves_and_images_are_embedded(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    Image.new("RGBA", (2000, 1000), "red").save(file)

    class WithImage(Shown):
        def shown(self):
            lines = [{"step": 0, "loss": 4.0}, {"step": 5}, {"step": 10, "loss": 2.0}, {"step": 11, "loss": 9e999}]
            yield from ShownCurve.of_log("loss", lines, "loss")
            yield ShownThumbnail.of(file, NASTY)
            yield ShownTable([("a", NASTY)], ("name", "value"), NASTY)

    shown = Reader(WithImage())
    (image,) = shown.all("img")
    assert image["alt"] == NASTY
    kind, data = image["src"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (THUMBNAIL, THUMBNAIL // 2)
    (line,) = shown.all("polyline")
    assert line["points"] == "2.0,2.0 258.0,54.0"  # from 4 at the top left to 2 at the bottom right of 260 x 56
    assert "loss: 4 → 2" in shown.texts
    assert ShownCurve.of_log("rank", [{"step": 1, "rank": "x"}], "rank") == []
    file.unlink()
    assert str(file) in Reader(WithImage()).html  # the text says what is missing


def test_a_runs_curve_and_a_detectors_scores_are_shown(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 8.0 / step, "effective_rank": float(step)} for step in (1, 2, 4)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = Reader(socodet.PretrainResult(tmp_path, 4, 4, None, (), 0.5))
    assert "loss: 8 → 2" in run.texts
    assert "effective rank: 1 → 4" in run.texts
    scores = socodet.Evaluation({"box_AP": 12.345}, (), {NASTY: {"objects": 3, "box_AP": 7.25}}, about="on cats")
    tuned = socodet.FinetuneResult(tmp_path, "rt_detr", 4, 4, None, None, scores, (), 1.0, (2, 7.256))
    for shown in (Reader(scores), Reader(tuned)):
        assert shown.row("box AP") == ["12.35"]
        assert "7.25" in shown.texts
        assert NASTY in shown.texts
    assert "loss: 8 → 2" in Reader(tuned).texts
    assert Reader(tuned).row("best") == ["box AP 7.26 at step 2"]


@pytest.mark.parametrize("draw", [True, False])
def test_predictions_are_counted_by_class_and_drawn(tmp_path: Path, draw: bool) -> None:
    drawing = tmp_path / "drawn" / "a.jpg"
    drawing.parent.mkdir()
    Image.new("RGB", (64, 32)).save(drawing)
    result = socodet.PredictResult(
        *(tmp_path, 3, 3, 5, (("b.jpg", "torn"),), None, 1.0),
        of_classes={"cat": 4, NASTY: 1},
        drawn=(drawing,) * draw,
    )
    shown = Reader(result)
    assert shown.row("cat") == ["4"]
    assert shown.row("b.jpg") == ["torn"]
    assert len(shown.all("img")) == draw


def test_a_conversion_is_shown_as_a_table(tmp_path: Path) -> None:
    result = socodet.convert(coco_file(tmp_path / "set.json", ("chelsea", "rocket"), masks=False))
    (part,), read = result.parts, Reader(result)
    assert [int(cell) for cell in read.row(part)[:3]] == [2, 2, 3]
