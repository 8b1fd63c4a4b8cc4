"""`socodet inspect`: proposals or views before training, and a detector's detections beside the ground truth."""

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets import DetectionDataset, open_detection_set
from socodet.detection.scores import Detections, read_detections
from socodet.errors import InputError
from socodet.images.source import ImageSelection, ImageSource, open_images
from socodet.proposals.make_table import propose
from socodet.proposals.table import ProposalTable
from socodet.reports.drawing import panel_picture, sheet_figure
from socodet.reports.images import none_readable, readable_images
from socodet.reports.page import Gallery, Section, write_page
from socodet.reports.panels import Panel, labelled_panel, proposal_panel, sample_panels
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
DETECTIONS_TEXT = (
    "Annotations on the left, detections with their scores on the right. A class has one colour on both sides."
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
    path = _checked(output, limit, seed, overwrite=overwrite)
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
    if not _write_sheet(path, rows):
        gallery = Gallery([panel_picture(panel) for panel in panels])
        write_page(path, "Object proposals", [Section(_count(picked), PROPOSALS_TEXT, [gallery])], facts)


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
    if not _write_sheet(path, rows):
        galleries = [Gallery([panel_picture(p, height=230, zoom=2) for p in row], size="small") for row in rows]
        write_page(path, "Views of a sample", [Section(_count(rows), VIEWS_TEXT, galleries)], facts)


def inspect_detections(
    data: str | Path | DetectionDataset,
    predictions: str | Path,
    output: str | Path,
    *,
    split: str = "val",
    images: str | Path | None = None,
    min_score: float = 0.5,
    limit: int = 12,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Draws detections in COCO's result format beside the ground truth of up to `limit` images, as .png or .html.

    data: the annotated set that the detections were made on, as `open_detection_set` takes it; split: which part of a
    folder; images: where the images of a .json file are. Detections of at least `min_score` are shown, and images,
    chosen by `seed`, that have an object or such a detection. Problems of the set, and detections of other images, are
    reported on stderr, one line each. Raises InputError for what cannot be used, and when `output` exists and
    `overwrite` is false.
    """
    path = _checked(output, limit, seed, overwrite=overwrite)
    if not isinstance(data, DetectionDataset):
        data = open_detection_set(data, split=split, images=images)
    elsewhere: Counter[int | str] = Counter()
    found = read_detections(data, Path(predictions), elsewhere=elsewhere)
    for line in data.problems.lines():
        print(f"{data.name}: {line}", file=sys.stderr)
    if elsewhere and not found:
        raise InputError(
            f"{predictions}: none of its {elsewhere.total():,} detections is on an image of {data.name}; give the set "
            "that they were made on"
        )
    if elsewhere:
        what = f"{elsewhere.total():,} × detection of an image that {data.name} lacks or whose file is missing"
        print(f"{predictions}: {what}; left out (first: image {next(iter(elsewhere))})", file=sys.stderr)
    rows: dict[int, list[Panel]] = {}
    unreadable: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(data)).tolist():
        image = data.images[index]
        detections = found.get(image.image_id, Detections.none())
        shown = detections.take(np.flatnonzero(detections.scores >= min_score))
        if not len(image) and not len(shown):
            continue
        try:
            rows[index] = _truth_and_detections(data, index, shown, len(detections))
        except InputError as error:
            unreadable.append(str(error))
        if len(rows) == limit:
            break
    if unreadable:
        print(f"{len(unreadable):,} × image left out (first: {unreadable[0]})", file=sys.stderr)
    if not rows:
        raise InputError(
            f"{predictions}: no image of {data.name} has anything to show; give the set that the detections were "
            "made on, or lower --min-score"
        )
    facts = {
        "Annotated set": f"{data.name} ({len(data)} images)",
        "Detections": f"{Path(predictions).name} ({sum(map(len, found.values()))})",
        "Shown from score": f"{min_score:g}",
        "Seed": str(seed),
    }
    ordered = [rows[index] for index in sorted(rows)]
    if not _write_sheet(path, ordered, side=480):
        galleries = [Gallery([panel_picture(panel, height=340) for panel in row]) for row in ordered]
        write_page(path, "Detections and ground truth", [Section(_count(rows), DETECTIONS_TEXT, galleries)], facts)
    return path


def _truth_and_detections(data: DetectionDataset, index: int, shown: Detections, of: int) -> list[Panel]:
    """An image with its annotations, and with these of its `of` detections. Raises InputError if it is unreadable."""
    pixels, image = data.picture(index), data.images[index]
    names = [category.name for category in data.categories]
    marks = [
        " (crowd)" if c else " (difficult)" if d else "" for c, d in zip(image.crowd, image.difficult, strict=True)
    ]
    truth = [names[label - 1] + mark for label, mark in zip(image.labels, marks, strict=True)]
    scored = [f"{names[label - 1]} {score:.2f}" for label, score in zip(shown.labels, shown.scores, strict=True)]
    objects = f"{len(image)} object{'' if len(image) == 1 else 's'}"
    return [
        labelled_panel(f"{image.file.name} · truth · {objects}", pixels, image.boxes, image.labels.tolist(), truth),
        labelled_panel(f"found · {len(shown)} shown of {of}", pixels, shown.boxes, shown.labels.tolist(), scored),
    ]


def _checked(output: str | Path, limit: int, seed: int, *, overwrite: bool) -> Path:
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


def _write_sheet(path: Path, rows: Sequence[Sequence[Panel]], side: int = 320) -> bool:
    """Writes the panels as one image if the path ends in .png; says whether it did."""
    if path.suffix.lower() != ".png":
        return False
    write_atomically(path, to_png(sheet_figure(rows, side)))
    return True


def _count(shown: Sequence[object] | Mapping[int, object]) -> str:
    return "One image" if len(shown) == 1 else f"{len(shown)} images"


def _facts(source: ImageSource, table: ProposalTable) -> dict[str, str]:
    return {
        "Images": f"{source.location} ({len(source)})",
        "Proposal table": Path(table.path).name,
        "Method": table.settings.method if table.origin is None else f"made elsewhere: {table.origin.file}",
        "Made by": f"socodet {table.version}",
    }
