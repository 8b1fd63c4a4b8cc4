import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import browser_reports, needs_browser
from PIL import Image

from socodet.reports.page import (
    Commands,
    Gallery,
    Grid,
    PageImage,
    Section,
    Table,
    Verdict,
    Verdicts,
    write_page,
)

FLAWED = """<!doctype html><html><head></head><body style="background: #fff"><main>
<p style="color: #ddd">faint</p><p>plain</p><div style="width: 2000px">wide</div>
<img src="http://elsewhere.invalid/a.png"><img src="data:,">
<script>console.error("complaint")</script></main></body></html>"""

VOID = {"meta", "link", "img", "source", "br"}


class Reader(HTMLParser):
    """Checks that tags are closed in order, and collects tags with their attributes and texts with their tag."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def encoded(format: str, size: tuple[int, int] = (30, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, format)
    return file.getvalue()


NASTY = "<script>alert(\"&amp;\")</script> & 'quotes'"


@pytest.fixture
def page(tmp_path: Path) -> Reader:
    image = PageImage(encoded("PNG"), alt=f"red {NASTY}", title=NASTY, caption=NASTY, dark=encoded("PNG"))
    photograph = PageImage(encoded("JPEG", (90, 30)), alt="a photograph")
    sections = [
        Section(
            NASTY,
            f"First {NASTY}.\n\nSecond.",
            [image, Gallery([photograph, image], NASTY, NASTY, "small")],
        ),
        Section("Numbers", figures=[Table([NASTY, "value"], [["loss", NASTY], ["rank", "3"]], NASTY)]),
    ]
    verdicts = [
        Verdict("Loss", NASTY, True, NASTY, NASTY, NASTY),
        Verdict("Spread", "0.01", False, "high", "low", "measured"),
        Verdict("Rank", "7", None, "high", "low", "measured"),
    ]
    path = tmp_path / "report.html"
    write_page(path, NASTY, sections, {"Recipe": NASTY, "Images": "12"}, lead=NASTY, verdicts=verdicts)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def test_all_text_is_escaped(page: Reader) -> None:
    assert page.all("script") == []
    shown = [text for _, text in page.texts]
    assert sum(NASTY in text for text in shown) == 20  # everywhere text is accepted
    assert ("title", NASTY) in page.texts
    assert ("h1", NASTY) in page.texts


def test_names_that_are_not_utf_8_are_shown_with_backslashes(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xfe.jpg")
    image = PageImage(encoded("PNG"), alt=name, title=name)
    write_page(tmp_path / "report.html", name, [Section("Images", name, [image])], {"Images": name})
    assert (tmp_path / "report.html").read_bytes().decode().count("\\udcfe.jpg") >= 5


def test_every_image_is_inside_the_file_and_described(page: Reader) -> None:
    images = page.all("img")
    assert len(images) == 3
    for image in images:
        assert image["alt"]
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", image["src"]).groups()
        decoded = Image.open(io.BytesIO(base64.b64decode(data)))
        assert decoded.format == kind.upper()
        assert decoded.size == (int(image["width"]), int(image["height"]))
    assert images[0]["alt"] == f"red {NASTY}"
    assert all(source["srcset"].startswith("data:image/png;base64,") for source in page.all("source"))
    assert [source["media"] for source in page.all("source")] == ["(prefers-color-scheme: dark)"] * 2


def test_nothing_is_fetched(page: Reader) -> None:
    for _, attributes in page.tags:
        for name in ("src", "srcset", "href", "action", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#"))
    (style,) = [text for tag, text in page.texts if tag == "style"]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_the_contents_link_to_the_sections(page: Reader) -> None:
    targets = [link["href"].removeprefix("#") for link in page.all("a")]
    assert targets == [section["id"] for section in page.all("section")] == ["s1", "s2"]


def test_the_page_fits_a_phone(page: Reader) -> None:
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert page.all("html") == [{"lang": "en"}]
    tables = [place for place, (tag, _) in enumerate(page.tags) if tag == "table"]
    assert tables
    assert all(page.tags[place - 1][1]["class"] == "scroll" for place in tables)


def test_tables_have_row_and_column_headers(page: Reader) -> None:
    assert [cell["scope"] for cell in page.all("th")] == ["col", "col", "row", "row"]
    assert [text for tag, text in page.texts if tag == "td"] == [NASTY, "3"]


def test_verdicts_are_readable_without_colour(page: Reader) -> None:
    marks = [attributes["aria-label"] for attributes in page.all("span") if attributes.get("class") == "mark"]
    assert marks == ["passed", "failed"]
    assert [text for _, text in page.texts if text in "✓✗"] == ["✓", "✗"]
    assert [item["class"] for item in page.all("li")] == ["pass", "fail", "open"]  # no mark without a verdict


def test_verdicts_and_commands_may_appear_in_a_section(tmp_path: Path) -> None:
    verdict = Verdict("Rank", "7", None, f"good {NASTY}", "poor", "why")
    figures = [Verdicts([verdict]), Commands([(f"socodet {NASTY}", f"Does {NASTY}.")])]
    write_page(tmp_path / "v.html", "V", [Section("Learned", figures=figures)], {})
    reader = Reader()
    reader.feed((tmp_path / "v.html").read_text(encoding="utf-8"))
    assert reader.open == []
    assert ("dd", f"good {NASTY}") in reader.texts
    assert ("code", f"socodet {NASTY}") in reader.texts
    assert ("dt", f"Does {NASTY}.") in reader.texts


def test_an_empty_page_is_valid(tmp_path: Path) -> None:
    write_page(tmp_path / "empty.html", "Empty", [], {})
    reader = Reader()
    reader.feed((tmp_path / "empty.html").read_text(encoding="utf-8"))
    assert reader.open == []
    assert ("h1", "Empty") in reader.texts


def test_a_grid_keeps_its_columns_and_shrinks_on_a_phone(tmp_path: Path) -> None:
    image = PageImage(encoded("PNG"), alt="red")
    grid = Grid([(NASTY, [image] * 5), ("second", [image] * 2)], beside=image, narrow=3)
    write_page(tmp_path / "grid.html", "Grid", [Section("Grid", figures=[grid])], {})
    reader = Reader()
    reader.feed((tmp_path / "grid.html").read_text(encoding="utf-8"))
    assert reader.open == []
    styles = [place["style"] for place in reader.all("div") if place.get("class") == "grid"]
    assert styles == ["--columns: 5; --narrow: 3", "--columns: 2; --narrow: 2"]
    assert len(reader.all("img")) == 8
    assert [text for tag, text in reader.texts if tag == "p"] == [NASTY, "second"]


def test_details_are_folded_and_marked_rows_are_highlighted(tmp_path: Path) -> None:
    rows = [["seed", "0", "0"], ["rate", "1", "2"]]
    table = Table(["setting", "a", "b"], rows, marked=frozenset({1}), folded=NASTY)
    write_page(tmp_path / "d.html", "Details", [Section("All", figures=[table])], {})
    reader = Reader()
    reader.feed((tmp_path / "d.html").read_text(encoding="utf-8"))
    assert reader.open == []
    assert reader.all("details") == [{}]
    assert ("summary", NASTY) in reader.texts
    assert [row.get("class") for row in reader.all("tr")] == [None, None, "marked"]


@needs_browser
def test_the_browser_check_finds_flaws_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "flawed.html"
    page.write_text(FLAWED)
    for said in browser_reports(page, tmp_path, "light"):
        assert "complaint" in said["wrong"]  # images fail asynchronously, before or after the others
        assert len(said["wrong"]) == 3  # and two broken images
        assert said["faint"] == ["P.: faint"]
        assert said["beyond"] == ["DIV.: wide"]
        assert said["scroll"] == 2000 + 8  # and the body's margin
        assert len(said["fetched"]) == 1
        assert said["dark"] is False
