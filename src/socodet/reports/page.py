"""A report as one HTML file that needs nothing else: no script, no network, no second file."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from PIL import Image

STYLESHEET = Path(__file__).with_name("page.css")


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG picture with its words."""

    data: bytes
    alt: str
    """What it shows, for those who cannot see it."""
    title: str = ""
    caption: str = ""
    dark: bytes | None = None
    """The same picture for a dark page."""


@dataclass(frozen=True)
class Gallery:
    """Pictures that belong together; they wrap as the page is narrow or wide."""

    pictures: Sequence[Picture]
    title: str = ""
    caption: str = ""
    size: Literal["small", "medium", "large"] = "medium"
    """small: one row of one height, wrapped on a phone. medium: rows of one height, about three pictures in each on a
    wide screen. large: charts."""


@dataclass(frozen=True)
class Grid:
    """Pictures in columns that stay below each other, each row under its name; a row has pictures of one shape."""

    rows: Sequence[tuple[str, Sequence[Picture]]]
    beside: Picture | None = None
    """What all rows are about: left of them, above them on a phone."""
    title: str = ""
    caption: str = ""
    narrow: int = 3
    """Columns on a phone."""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: frozenset[int] = frozenset()
    """Rows to stand out."""


@dataclass(frozen=True)
class Details:
    """Tables folded away until they are asked for."""

    title: str
    tables: Sequence[Table]


@dataclass(frozen=True)
class Verdict:
    """One figure that says whether it worked."""

    name: str
    figure: str
    passed: bool
    explanation: str


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs parted by empty lines, and what is shown below them."""

    title: str
    text: str = ""
    figures: "Sequence[Figure]" = ()


Figure = Picture | Gallery | Grid | Table | Details


def write_page(
    path: str | Path,
    title: str,
    sections: Sequence[Section],
    facts: Mapping[str, str],
    *,
    lead: str = "",
    verdicts: Sequence[Verdict] = (),
) -> None:
    """Writes the page to `path`, replacing what is there.

    lead: a sentence or two under the title. verdicts: the panel below it. facts: name to value, listed at the
    end (recipe, images, versions, time). All text is plain text; whatever HTML it holds is shown, not obeyed.
    """
    body = "\n".join(_section(number, section) for number, section in enumerate(sections, 1))
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(title)}</title>
<link rel="icon" href="data:,">
<style>
{STYLESHEET.read_text()}
</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
{_paragraphs(lead, "lead")}
{_contents(sections)}
</header>
<main>
{_verdicts(verdicts)}
{body}
{_facts(facts)}
</main>
</body>
</html>
"""
    Path(path).write_text(page, encoding="utf-8")


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _paragraphs(text: str, kind: str = "") -> str:
    mark = f' class="{kind}"' if kind else ""
    return "\n".join(f"<p{mark}>{_text(part.strip())}</p>" for part in text.split("\n\n") if part.strip())


def _contents(sections: Sequence[Section]) -> str:
    if len(sections) < 2:
        return ""
    links = (f'<a href="#s{number}">{_text(section.title)}</a>' for number, section in enumerate(sections, 1))
    return f'<nav aria-label="Contents">{" ".join(links)}</nav>'


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    cards = []
    for verdict in verdicts:
        kind, mark, word = ("pass", "✓", "passed") if verdict.passed else ("fail", "✗", "failed")
        cards.append(
            f'<li class="{kind}"><span class="name">{_text(verdict.name)}'
            f'<span class="mark" role="img" aria-label="{word}">{mark}</span></span>'
            f'<span class="figure">{_text(verdict.figure)}</span>'
            f'<span class="why">{_text(verdict.explanation)}</span></li>'
        )
    return f'<ul class="verdicts">{"".join(cards)}</ul>'


def _section(number: int, section: Section) -> str:
    shown = ""
    for are_tables, figures in groupby(section.figures, key=lambda figure: isinstance(figure, Table)):
        html_of = "\n".join(map(_figure, figures))
        shown += f'<div class="tables">\n{html_of}\n</div>\n' if are_tables else html_of
    words = f"<h2>{_text(section.title)}</h2>\n{_paragraphs(section.text)}"
    return f'<section id="s{number}">\n{words}\n{shown}\n</section>'


def _figure(figure: Figure) -> str:
    if isinstance(figure, Picture):
        return _picture(figure)
    if isinstance(figure, Table):
        return _table(figure)
    if isinstance(figure, Details):
        tables = "\n".join(_table(table) for table in figure.tables)
        return f"<details><summary>{_text(figure.title)}</summary>\n{tables}\n</details>"
    title = f"<h3>{_text(figure.title)}</h3>" if figure.title else ""
    caption = f'<p class="caption">{_text(figure.caption)}</p>' if figure.caption else ""
    return (
        f'<div class="group">{title}\n{_grid(figure) if isinstance(figure, Grid) else _gallery(figure)}{caption}</div>'
    )


def _gallery(gallery: Gallery) -> str:
    pictures = "\n".join(_picture(picture) for picture in gallery.pictures)
    return f'<div class="gallery {gallery.size}">\n{pictures}\n</div>'


def _grid(grid: Grid) -> str:
    rows = []
    for name, pictures in grid.rows:
        heading = f'<p class="row">{_text(name)}</p>' if name else ""
        shape = f"--columns: {len(pictures)}; --narrow: {min(grid.narrow, len(pictures))}"
        cells = "\n".join(_picture(picture) for picture in pictures)
        rows.append(f'{heading}<div class="grid" style="{shape}">\n{cells}\n</div>')
    if grid.beside is None:
        return "\n".join(rows)
    return '<div class="beside">\n' + _picture(grid.beside) + "\n<div>\n" + "\n".join(rows) + "\n</div></div>"


def _picture(picture: Picture) -> str:
    width, height = Image.open(io.BytesIO(picture.data)).size
    source = _data_uri(picture.data)
    image = f'<img src="{source}" alt="{_text(picture.alt)}" width="{width}" height="{height}">'
    if picture.dark is not None:
        dark = f'<source srcset="{_data_uri(picture.dark)}" media="(prefers-color-scheme: dark)">'
        image = f"<picture>{dark}{image}</picture>"
    title = f"<b>{_text(picture.title)}</b>" if picture.title else ""
    caption = f"<span>{_text(picture.caption)}</span>" if picture.caption else ""
    words = f"<figcaption>{title}{caption}</figcaption>" if title or caption else ""
    return f'<figure style="--aspect: {width / height:.3f}">{image}{words}</figure>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.header)
    rows = "\n".join(_row(row, place in table.marked) for place, row in enumerate(table.rows))
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    body = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"
    name = _text(table.caption or "Table")
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">{body}</div>'


def _row(row: Sequence[str], marked: bool) -> str:
    name, *cells = row
    kind = ' class="marked"' if marked else ""
    return f'<tr{kind}><th scope="row">{_text(name)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>'


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    pairs = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    return f'<footer><dl class="facts">{pairs}</dl></footer>'


def _data_uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
