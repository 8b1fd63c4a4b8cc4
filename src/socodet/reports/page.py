"""A report as one self-contained HTML file: no script, no network, no second file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader
from PIL import Image

from socodet.runtime.files import write_atomically

FOLDER = Path(__file__).parent
STYLESHEET, TEMPLATE = "page.css", "page.html"


@dataclass(frozen=True)
class PageImage:
    """A PNG or JPEG image with its texts."""

    data: bytes
    alt: str
    """What it shows, for screen readers."""
    title: str = ""
    caption: str = ""
    dark: bytes | None = None
    """The same image for a dark page."""

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return Image.open(io.BytesIO(self.data)).size

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size[0] / self.size[1]


@dataclass(frozen=True)
class Gallery:
    """Images that belong together; they wrap with the width of the page."""

    images: Sequence[PageImage]
    title: str = ""
    caption: str = ""
    size: Literal["small", "medium", "large"] = "medium"
    """small: one row of equal height, wrapped on a phone. medium: rows of equal height, with about three images each on
    a wide screen. large: charts."""


@dataclass(frozen=True)
class Grid:
    """Images in aligned columns, with a name above each row; all images of a row have the same shape."""

    rows: Sequence[tuple[str, Sequence[PageImage]]]
    beside: PageImage | None = None
    """The image that all rows refer to, shown to the left of them, or above them on a phone."""
    title: str = ""
    caption: str = ""
    narrow: int = 3
    """Number of columns on a phone."""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: frozenset[int] = frozenset()
    """Indices of the rows to highlight."""
    folded: str = ""
    """The line to click on if the table is initially folded."""


@dataclass(frozen=True)
class Verdict:
    """One number that says how training went, with good and poor values to compare with."""

    name: str
    figure: str
    """The value of this run."""
    passed: bool | None
    """Whether it passes a justified threshold; None if there is no such threshold, and the page then shows no mark."""
    good: str
    poor: str
    explanation: str
    """How the number was measured, and the reason for the threshold."""


@dataclass(frozen=True)
class Verdicts:
    """A panel of numbers, each on a card."""

    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Commands:
    """Commands to copy, each with what it does."""

    commands: Sequence[tuple[str, str]]


Figure = PageImage | Gallery | Grid | Table | Verdicts | Commands


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs separated by empty lines, and figures."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()

    @property
    def blocks(self) -> list[tuple[bool, list[Figure]]]:
        """The figures in order, with consecutive open tables grouped: (whether it is a group of tables, figures)."""
        groups = groupby(self.figures, key=lambda figure: isinstance(figure, Table) and not figure.folded)
        return [(are_tables, list(figures)) for are_tables, figures in groups]


def write_page(
    path: str | Path,
    title: str,
    sections: Sequence[Section],
    facts: Mapping[str, str],
    *,
    lead: str = "",
    verdicts: Sequence[Verdict] = (),
) -> None:
    """Writes the page to `path`, replacing any file there.

    lead: a sentence or two under the title. verdicts: the panel below it. facts: names and values listed at the end
    (recipe, images, versions, time). All text is plain and gets escaped; bytes of names that are not UTF-8 are written
    with backslashes.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = _data_uri
    for shape in (PageImage, Gallery, Table, Verdicts, Commands):
        environment.tests[shape.__name__.lower()] = lambda figure, shape=shape: isinstance(figure, shape)
    html = environment.get_template(TEMPLATE).render(
        title=title,
        lead=lead,
        verdicts=verdicts,
        sections=sections,
        facts=facts,
        stylesheet=(FOLDER / STYLESHEET).read_text(encoding="utf-8"),
    )
    write_atomically(Path(path), html.lstrip().encode(errors="backslashreplace"))


def _data_uri(data: bytes) -> str:
    suffix = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{suffix};base64,{base64.b64encode(data).decode()}"
