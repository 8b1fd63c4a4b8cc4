"""`socodet inspect`: proposals or views as a picture, before anything is trained."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import decode_image
from socodet.images.source import ImageSelection, ImageSource, open_images
from socodet.proposals import ProposalTable, propose
from socodet.reports.inspect import check_output, inspect_proposals, inspect_views
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
    path = check_output(output)
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; give another --output or pass --overwrite")
    if limit < 1:
        raise InputError(f"--limit must be at least 1, not {limit}")
    if seed < 0:
        raise InputError(f"--seed must be at least 0, not {seed}")
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
