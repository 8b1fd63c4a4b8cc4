"""What a proposal table holds and what samples are made of it, before training; what a detector finds, after it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import decode_image
from socodet.images.source import ImageSelection, ImageSource
from socodet.proposals.table import ProposalTable
from socodet.reports.drawing import Panel, panel_figure, proposal_panel, sample_panels, sheet_figure
from socodet.reports.page import Gallery, Picture, Section, write_page
from socodet.reports.theme import to_jpeg, to_png
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import SampleSettings

COLUMNS = 4
PROPOSALS_TEXT = "Boxes that selective search found and the filters kept: the objects that pretraining draws from."
VIEWS_TEXT = (
    "Each row is one sample: the image with the proposals that were drawn and the windows of the views, then "
    "the views. An object has the same colour everywhere; on its box stands the pyramid level that it is "
    "pooled from."
)
DETECTIONS_TEXT = (
    "On the left what is annotated, on the right what the detector found, with its score. A kind of object has the "
    "same colour on both sides."
)


def inspect_proposals(
    images: ImageSource, table: ProposalTable, output: str | Path, *, limit: int = 12, seed: int = 0
) -> None:
    """Draws the proposals of up to `limit` images, picked by `seed`, as one .png sheet or one .html page.

    Replaces what is at `output`. InputError for another suffix, or when the table is not of these images.
    """
    path = check_output(output)
    panels = [proposal_panel(key, image, table.boxes(key)) for _, key, image in _pick(images, table, limit, seed)]
    if path.suffix.lower() == ".png":
        path.write_bytes(to_png(sheet_figure([panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)])))
        return
    section = Section(_shown(panels), PROPOSALS_TEXT, [proposal_gallery(panels)])
    write_page(path, "Object proposals", [section], _facts(images, table))


def inspect_views(
    images: ImageSource,
    table: ProposalTable,
    settings: SampleSettings,
    output: str | Path,
    *,
    limit: int = 6,
    seed: int = 0,
    epoch: int = 0,
) -> None:
    """Draws the samples that a run with this seed makes of up to `limit` images in an epoch: .png or .html.

    Replaces what is at `output`. InputError for another suffix, or when the table is not of these images.
    """
    path = check_output(output)
    rows = [
        sample_panels(key, image, make_sample(image, table.boxes(key), settings, sample_rng(seed, epoch, index)))
        for index, key, image in _pick(images, table, limit, seed)
    ]
    if path.suffix.lower() == ".png":
        path.write_bytes(to_png(sheet_figure(rows)))
        return
    section = Section(_shown(rows), VIEWS_TEXT, [sample_gallery(row) for row in rows])
    facts = {**_facts(images, table), "Seed": str(seed), "Epoch": str(epoch)}
    write_page(path, "Views of a sample", [section], facts)


def inspect_detections(rows: Sequence[Sequence[Panel]], output: str | Path, facts: Mapping[str, str]) -> None:
    """A row of panels a picture, the truth and what was found, as one .png sheet or one .html page.

    Replaces what is at `output`. InputError for another suffix.
    """
    path = check_output(output)
    if path.suffix.lower() == ".png":
        path.write_bytes(to_png(sheet_figure(rows, side=480)))
        return
    galleries = [Gallery([panel_picture(panel, height=340) for panel in row]) for row in rows]
    write_page(path, "Detections and truth", [Section(_shown(rows), DETECTIONS_TEXT, galleries)], facts)


def proposal_gallery(panels: Sequence[Panel]) -> Gallery:
    """Panels as a page shows them, each above its title."""
    return Gallery([panel_picture(panel) for panel in panels])


def sample_gallery(panels: Sequence[Panel]) -> Gallery:
    """A sample's panels in one row of small pictures."""
    return Gallery([panel_picture(panel, height=230, zoom=2) for panel in panels], size="small")


def panel_picture(panel: Panel, height: int = 260, zoom: float = 1.6) -> Picture:
    """A panel as a picture of a page, about `height` pixels high there."""
    return Picture(to_jpeg(panel_figure(panel, height, zoom)), alt=panel.alt, title=panel.title)


def check_output(output: str | Path) -> Path:
    """The path, its folder made. InputError for a suffix that is neither .png nor .html."""
    path = Path(output)
    if path.suffix.lower() not in (".png", ".html"):
        raise InputError(f"{path}: ends in neither .png nor .html; name the output picture.png or page.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _pick(images: ImageSource, table: ProposalTable, limit: int, seed: int) -> list[tuple[int, str, NDArray[np.uint8]]]:
    """(index, key, pixels) of up to `limit` readable images in the source's order; the index a run gives them."""
    table.check_images(images)
    picked: list[tuple[int, str, NDArray[np.uint8]]] = []
    for index in np.random.default_rng(seed).permutation(len(images)).tolist():
        key = images.key(index)
        try:
            image = decode_image(images.read(index))
        except (UnreadableImageError, OSError):
            continue
        if (image.shape[1], image.shape[0]) != table.size(key):
            width, height = table.size(key)
            raise InputError(
                f"{table.path}: made for other images: {key} is {image.shape[1]}x{image.shape[0]}, the table "
                f"has {width}x{height}; make a new table with `socodet propose`"
            )
        picked.append((images.indices[index] if isinstance(images, ImageSelection) else index, key, image))
        if len(picked) == limit:
            break
    if not picked:
        raise InputError(f"{images.location}: none of its images can be read; check the files")
    return sorted(picked, key=lambda entry: entry[0])


def _shown(entries: Sequence[object]) -> str:
    return "One image" if len(entries) == 1 else f"{len(entries)} images"


def _facts(images: ImageSource, table: ProposalTable) -> dict[str, str]:
    return {
        "Images": f"{images.location} ({len(images)})",
        "Proposal table": Path(table.path).name,
        "Method": table.settings.method if table.origin is None else f"made elsewhere: {table.origin.file}",
        "Made by": f"socodet {table.version}",
    }
