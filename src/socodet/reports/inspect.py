"""`socodet inspect`: proposals or views before training."""

import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.source import ImageSelection, ImageSource, open_images
from socodet.proposals.make_table import propose
from socodet.proposals.table import ProposalTable
from socodet.reports.drawing import panel_picture, sheet_figure
from socodet.reports.images import none_readable, readable_images
from socodet.reports.page import Gallery, Section, write_page
from socodet.reports.panels import Panel, proposal_panel, sample_panels
from socodet.reports.theme import to_png
from socodet.runtime.files import check_output_file, write_atomically
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import SampleSettings

COLUMNS = 4
PROPOSALS_TEXT = "Boxes found by selective search and kept by the filters: pretraining takes its objects from them."
VIEWS_TEXT = (
    "Each row is one sample: the image with the chosen proposals and the windows of the views, then the views. An "
    "object has one colour everywhere, and its box is labelled with the pyramid level that it is pooled from."
)
Picked = Sequence[tuple[int, str, NDArray[np.uint8]]]
"""Index, key and pixels (H, W, 3) of the images shown."""


def inspect(
    what: Literal["proposals", "views"],
    images: str | Path,
    output: str | Path,
    *,
    table: str | Path | None = None,
    settings: SampleSettings | None = None,
    limit: int = 12,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Draws the proposals of up to `limit` images, chosen by `seed`, or the views that a run with that seed makes.

    Writes one .png sheet or one .html page. Without a proposal table, proposals are made for the images shown and not
    kept. Raises InputError when images, table or suffix cannot be used, and when `output` exists and `overwrite` is
    false.
    """
    path = check_output(output, limit, seed, overwrite=overwrite)
    source = open_images(images)
    with tempfile.TemporaryDirectory() as scratch:
        if table is None:
            chosen = sorted(index for index, _, _ in islice(readable_images(source, seed), limit))
            if not chosen:
                raise none_readable(source)
            source = ImageSelection(source, chosen)
            table = Path(scratch) / "proposals.parquet"
            propose(source, table, show_progress=False)
        read = ProposalTable.read(table)
        picked = _pick(source, read, limit, seed)
        if what == "proposals":
            _draw_proposals(path, picked, read, _facts(source, read))
        else:
            facts = {**_facts(source, read), "Seed": str(seed)}
            _draw_views(path, picked, read, settings or SampleSettings(), seed, facts)
    return path


def _draw_proposals(path: Path, picked: Picked, table: ProposalTable, facts: Mapping[str, str]) -> None:
    panels = [proposal_panel(key, pixels, table.boxes(key)) for _, key, pixels in picked]
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    if not write_sheet(path, rows):
        gallery = Gallery([panel_picture(panel) for panel in panels])
        write_page(path, "Object proposals", [Section(count_images(picked), PROPOSALS_TEXT, [gallery])], facts)


def _draw_views(
    path: Path,
    picked: Picked,
    table: ProposalTable,
    settings: SampleSettings,
    seed: int,
    facts: Mapping[str, str],
) -> None:
    rows = [
        sample_panels(key, pixels, make_sample(pixels, table.boxes(key), settings, sample_rng(seed, 0, index)))
        for index, key, pixels in picked
    ]
    if not write_sheet(path, rows):
        galleries = [Gallery([panel_picture(p, height=230, zoom=2) for p in row], size="small") for row in rows]
        write_page(path, "Views of a sample", [Section(count_images(rows), VIEWS_TEXT, galleries)], facts)


def check_output(output: str | Path, limit: int, seed: int, *, overwrite: bool) -> Path:
    """The path, its folder made. Raises InputError when a flag or the path cannot be used."""
    if Path(output).suffix.lower() not in (".png", ".html"):
        raise InputError(f"{output}: ends in neither .png nor .html; name the output image.png or page.html")
    for name, value, least in (("limit", limit, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"--{name} must be at least {least}, not {value}")
    return check_output_file(output, overwrite=overwrite)


def _pick(source: ImageSource, table: ProposalTable, limit: int, seed: int) -> Picked:
    """Up to `limit` readable images, in the source's order, with the indices that a run gives them."""
    table.check_images(source)
    picked = []
    for index, key, pixels in islice(readable_images(source, seed), limit):
        height, width = pixels.shape[:2]
        if (width, height) != table.size(key):
            raise InputError(
                f"{table.path}: made for other images: {key} is {width}x{height}, the table has "
                f"{'x'.join(map(str, table.size(key)))}; make a new table with `socodet propose`"
            )
        picked.append((source.indices[index] if isinstance(source, ImageSelection) else index, key, pixels))
    if not picked:
        raise none_readable(source)
    return sorted(picked, key=lambda entry: entry[0])


def write_sheet(path: Path, rows: Sequence[Sequence[Panel]], side: int = 320) -> bool:
    """Writes the panels as one image if the path ends in .png; says whether it did."""
    if path.suffix.lower() != ".png":
        return False
    write_atomically(path, to_png(sheet_figure(rows, side)))
    return True


def count_images(shown: Sequence[object] | Mapping[int, object]) -> str:
    """How many images are shown, in words."""
    return "One image" if len(shown) == 1 else f"{len(shown)} images"


def _facts(source: ImageSource, table: ProposalTable) -> dict[str, str]:
    return {
        "Images": f"{source.location} ({len(source)})",
        "Proposal table": Path(table.path).name,
        "Method": table.settings.method if table.origin is None else f"made elsewhere: {table.origin.file}",
        "Made by": f"socodet {table.version}",
    }
