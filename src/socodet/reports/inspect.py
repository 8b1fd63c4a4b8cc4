"""`socodet inspect`: proposals or views before training."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.dataset_split import is_dataset
from socodet.images.folder import is_read_from
from socodet.images.source import ImageSelection, ImageSource, open_images
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable
from socodet.reports.drawing import panel_image, sheet_figure
from socodet.reports.images import none_readable, readable_images
from socodet.reports.page import Gallery, Section, write_page
from socodet.reports.panels import Panel, proposal_panel, sample_panels
from socodet.reports.theme import to_png
from socodet.runtime.files import check_output_file, write_atomically
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import SampleSettings

COLUMNS = 4
PROPOSALS_TEXT = "Boxes from which pretraining takes its objects. The end of the page says how they were made."
VIEWS_TEXT = (
    "Each row is one sample: the image with the chosen proposals and the windows of the views, then the views. An "
    "object has one colour everywhere, and its box is labelled with the pyramid level that it is pooled from."
)
Picked = Sequence[tuple[int, str, NDArray[np.uint8]]]
"""Index, key and pixels (H, W, 3) of the chosen images."""


def inspect(
    what: Literal["proposals", "views"],
    images: str | Path,
    output: str | Path,
    *,
    table: str | Path | None = None,
    settings: SampleSettings | None = None,
    proposals: ProposalSettings = ProposalSettings(),
    limit: int = 12,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Draws the proposals of up to `limit` images, chosen by `seed`, or the views that a run with that seed makes.

    Writes one .png sheet or one .html page. Without a proposal table, proposals for the shown images are made with the
    settings `proposals` and not kept. Raises InputError when images, table or suffix cannot be used, when `output`
    exists and `overwrite` is false, and for a sheet that would be read as one of the images.
    """
    path = check_output(output, limit, seed, overwrite=overwrite)
    source = open_images(images)
    count = len(source)
    if path.suffix.lower() == ".png" and _is_image_of(path, source.location):
        raise InputError(f"{path}: would be read as one of the images; write it elsewhere, or as .html")
    with tempfile.TemporaryDirectory() as scratch:
        if table is None:
            chosen = sorted(index for index, _, _ in islice(readable_images(source, seed), limit))
            if not chosen:
                raise none_readable(source)
            source = ImageSelection(source, chosen)
            table = Path(scratch) / "proposals.parquet"
            propose(source, table, settings=proposals, show_progress=False)
        read = ProposalTable.read(table)
        picked = _pick(source, read, limit, seed)
    facts = {
        "Images": f"{source.location} ({count:,})",
        "Proposal table": Path(read.path).name,
        "Method": read.settings.method if read.origin is None else f"made elsewhere: {read.origin.file}",
        "Made by": f"socodet {read.version}",
    }
    if what == "proposals":
        panels = [proposal_panel(key, pixels, read.boxes(key)) for _, key, pixels in picked]
        rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
        galleries = (Gallery([panel_image(panel) for panel in one]) for one in [panels])
        write_panels(path, "Object proposals", PROPOSALS_TEXT, rows, galleries, facts, len(picked))
        return path
    settings = settings or SampleSettings()
    rows = [
        sample_panels(key, pixels, make_sample(pixels, read.boxes(key), settings, sample_rng(seed, 0, index)))
        for index, key, pixels in picked
    ]
    galleries = (Gallery([panel_image(p, height=230, zoom=2) for p in row], size="small") for row in rows)
    write_panels(path, "Views of a sample", VIEWS_TEXT, rows, galleries, {**facts, "Seed": str(seed)}, len(picked))
    return path


def check_output(output: str | Path, limit: int, seed: int, *, overwrite: bool) -> Path:
    """The output path, whose folder is created. Raises InputError when a flag or the path cannot be used."""
    if Path(output).suffix.lower() not in (".png", ".html"):
        raise InputError(f"{output}: ends in neither .png nor .html; name the output image.png or page.html")
    for name, value, least in (("limit", limit, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"--{name} must be at least {least}, not {value}")
    return check_output_file(output, overwrite=overwrite)


def _is_image_of(path: Path, location: str) -> bool:
    """Whether the file would be read as one of the images there or, in a folder of tar shards, instead of them."""
    return os.path.isdir(location) and not is_dataset(Path(location)) and is_read_from(Path(location), path)


def _pick(source: ImageSource, table: ProposalTable, limit: int, seed: int) -> Picked:
    """Up to `limit` readable images in the source's order, with the same indices as in a run."""
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


def write_panels(
    path: Path,
    title: str,
    text: str,
    rows: Sequence[Sequence[Panel]],
    galleries: Iterable[Gallery],
    facts: Mapping[str, str],
    count: int,
    *,
    side: int = 320,
    lead: str = "",
) -> None:
    """Writes the panels of `count` images: as one sheet for .png, otherwise as a page with these galleries."""
    if path.suffix.lower() == ".png":
        write_atomically(path, to_png(sheet_figure(rows, side)))
    else:
        heading = "One image" if count == 1 else f"{count} images"
        write_page(path, title, [Section(heading, text, list(galleries))], facts, lead=lead)
