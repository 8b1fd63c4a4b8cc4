"""How results look in a notebook: their text, tables and small images, in self-contained HTML."""

import base64
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

THUMBNAIL = 320
"""Longest side of a thumbnail, in pixels."""
CHART = (260, 56)
"""Width and height of a curve, in pixels."""
LISTED = 5
"""Entries of a list that are shown; the others are counted."""
TEMPLATE = "shown.html"


@dataclass(frozen=True)
class ShownTable:
    """Cells as text; the first column names the row."""

    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    caption: str = ""


@dataclass(frozen=True)
class ShownThumbnail:
    """A small JPEG and what it shows."""

    data: bytes
    alt: str

    @classmethod
    def of(cls, file: Path, alt: str) -> Self:
        """The thumbnail of an image file. OSError when it cannot be read."""
        from PIL import Image

        with Image.open(file) as image, io.BytesIO() as small:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            image.convert("RGB").save(small, "JPEG", quality=85)
            return cls(small.getvalue(), alt)

    @property
    def base64(self) -> str:
        """The JPEG as a data URI contains it."""
        return base64.b64encode(self.data).decode()


@dataclass(frozen=True)
class ShownCurve:
    """A number over the steps, as a small line."""

    title: str
    points: Sequence[tuple[float, float]]
    """(step, value), at least one; values that are not finite are left out."""

    @classmethod
    def of_log(cls, title: str, lines: Iterable[dict[str, Any]], field: str) -> list[Self]:
        """The curve of a log's field; none if no line has a number there."""
        values = ((line["step"], line.get(field)) for line in lines)
        points = [(at, value) for at, value in values if isinstance(value, int | float) and math.isfinite(value)]
        return [cls(title, points)] if points else []

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return CHART

    @property
    def path(self) -> str:
        """The points of an SVG polyline."""
        steps, values = zip(*self.points, strict=True)
        across, up = ((side - 4) / (max(of) - min(of) or 1) for side, of in zip(CHART, (steps, values), strict=True))
        left, low, bottom = min(steps), min(values), CHART[1] - 2
        return " ".join(f"{2 + (x - left) * across:.1f},{bottom - (y - low) * up:.1f}" for x, y in self.points)


ShownPart = ShownTable | ShownThumbnail | ShownCurve


class Shown:
    """A result whose `str` is a text for people, and which a notebook shows as a table, with images if it has any."""

    def shown(self) -> Iterable[ShownPart]:
        """What a notebook shows; by default a table of the fields. A file that is gone may raise OSError."""
        return (facts(self),)

    def headline(self) -> str:
        """The text above the table: by default the first line of `str`."""
        return str(self).partition("\n")[0]

    def _repr_html_(self) -> str:
        from jinja2 import Environment, FileSystemLoader

        parts: list[ShownPart] = []
        try:
            parts.extend(self.shown())
        except OSError as error:
            parts.append(ShownTable([("no longer there", str(error))]))
        environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
        for shape in (ShownTable, ShownThumbnail):
            environment.tests[shape.__name__.lower()] = lambda part, shape=shape: isinstance(part, shape)
        return environment.get_template(TEMPLATE).render(headline=self.headline(), parts=parts)


def facts(result: Any, **written: str) -> ShownTable:
    """The fields of a dataclass that hold numbers, texts, paths, or lists of such; what is empty is left out.

    written: the text of a field whose value alone would say too little.
    """
    rows = []
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if value is None or value == () or value == "" or (isinstance(value, bool) and not value):
            continue
        if field.name in written:
            rows.append((field.name.replace("_", " "), written[field.name]))
        elif isinstance(value, int | float | str | Path | tuple) and field.name != "is_first":
            rows.append((field.name.replace("_", " "), _written(value)))
    return ShownTable(rows)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, tuple):
        entries = [": ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value[:LISTED]]
        return "; ".join([*entries, *([f"and {len(value) - LISTED:,} more"] if len(value) > LISTED else [])])
    return str(value)
