"""`socodet inspect`: proposals or views as a picture before anything is trained, and a detector's findings after."""

import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from socodet.detection.datasets import DetectionDataset, open_detection_set
from socodet.detection.scores import Detections, read_detections
from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import decode_image
from socodet.images.source import ImageSelection, ImageSource, open_images
from socodet.proposals.make_table import propose
from socodet.proposals.table import ProposalTable
from socodet.reports.drawing import Panel, labelled_panel
from socodet.reports.inspect import check_output, inspect_proposals, inspect_views
from socodet.reports.inspect import inspect_detections as draw_detections
from socodet.views.settings import SampleSettings


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
    """Draws up to `limit` images' proposals, or the views that `settings` make of them, as .png or .html.

    Without a proposal table, proposals are made for the images shown, and kept nowhere. InputError for a bad
    folder, table or suffix, and when `output` exists and `overwrite` is false.
    """
    path = _checked(output, limit, seed, overwrite=overwrite)
    source = open_images(images)
    with tempfile.TemporaryDirectory() as scratch:
        if table is None:
            source = ImageSelection(source, sorted(_some_readable(source, limit, seed)))
            table = Path(scratch) / "proposals.parquet"
            propose(source, table, show_progress=False)
        read = ProposalTable.read(table)
        if what == "proposals":
            inspect_proposals(source, read, path, limit=limit, seed=seed)
        else:
            inspect_views(source, read, settings or SampleSettings(), path, limit=limit, seed=seed)
    return path


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
    """Draws detections in COCO's result format beside the truth, of up to `limit` pictures, as .png or .html.

    `data` is the annotated set they were made on, as `open_detection_set` takes it, `split` its part and `images` where
    the pictures of a .json file lie. Shown are detections of `min_score` or more, and pictures, chosen by the seed, in
    which there is something to show. What is wrong in the set, or is not of it, is said in a line each on stderr.
    InputError for what cannot be used, and when `output` exists and `overwrite` is false.
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
            f"{predictions}: none of its {elsewhere.total():,} detections is of a picture of {data.name}; give the set "
            "that they were made on"
        )
    if elsewhere:
        what = f"{elsewhere.total():,} × detection of an image that {data.name} lacks or whose file is missing"
        print(f"{predictions}: {what}; left out (first: image {next(iter(elsewhere))})", file=sys.stderr)
    rows: dict[int, list[Panel]] = {}
    unreadable: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(data)).tolist():
        image = data.images[index]
        there = found.get(image.image_id, Detections.none())
        shown = there.take(np.flatnonzero(there.scores >= min_score))
        if not len(image) and not len(shown):
            continue
        try:
            rows[index] = _beside(data, index, shown, of=len(there))
        except InputError as error:
            unreadable.append(str(error))
        if len(rows) == limit:
            break
    if unreadable:
        print(f"{len(unreadable):,} × image left out (first: {unreadable[0]})", file=sys.stderr)
    if not rows:
        raise InputError(
            f"{predictions}: no picture of {data.name} has anything to show; give the set that the detections were "
            "made on, or lower --min-score"
        )
    facts = {
        "Annotated set": f"{data.name} ({len(data)} images)",
        "Detections": f"{Path(predictions).name} ({sum(map(len, found.values()))})",
        "Shown from score": f"{min_score:g}",
        "Seed": str(seed),
    }
    draw_detections([rows[index] for index in sorted(rows)], path, facts)
    return path


def _beside(data: DetectionDataset, index: int, shown: Detections, *, of: int) -> list[Panel]:
    """A picture with its truth, and with the detections shown, out of so many. InputError if it cannot be read."""
    pixels, image = data.picture(index), data.images[index]
    names = [category.name for category in data.categories]
    marks = [
        " (crowd)" if c else " (difficult)" if d else "" for c, d in zip(image.crowd, image.difficult, strict=True)
    ]
    truth = [names[label - 1] + mark for label, mark in zip(image.labels, marks, strict=True)]
    said = [f"{names[label - 1]} {score:.2f}" for label, score in zip(shown.labels, shown.scores, strict=True)]
    objects = f"{len(image)} object{'' if len(image) == 1 else 's'}"
    return [
        labelled_panel(f"{image.file.name} · truth · {objects}", pixels, image.boxes, image.labels.tolist(), truth),
        labelled_panel(f"found · {len(shown)} shown of {of}", pixels, shown.boxes, shown.labels.tolist(), said),
    ]


def _checked(output: str | Path, limit: int, seed: int, *, overwrite: bool) -> Path:
    path = check_output(output)
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; give another --output or pass --overwrite")
    if limit < 1:
        raise InputError(f"--limit must be at least 1, not {limit}")
    if seed < 0:
        raise InputError(f"--seed must be at least 0, not {seed}")
    return path


def _some_readable(source: ImageSource, limit: int, seed: int) -> list[int]:
    """Up to `limit` images that can be read, the first of a shuffle; all where none can, to be told why."""
    readable = []
    for index in np.random.default_rng(seed).permutation(len(source)).tolist():
        with suppress(UnreadableImageError, OSError):
            decode_image(source.read(index))
            readable.append(index)
        if len(readable) == limit:
            break
    return readable or list(range(min(limit, len(source))))
