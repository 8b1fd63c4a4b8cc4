"""`socodet inspect`: proposals or views as a picture, before anything is trained."""

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from socodet.errors import InputError
from socodet.images.source import ImageSelection, open_images
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
    source = open_images(images)
    with tempfile.TemporaryDirectory() as scratch:
        if table is None:
            order = np.random.default_rng(seed).permutation(len(source))[:limit]
            source = ImageSelection(source, sorted(order.tolist()))
            table = Path(scratch) / "proposals.parquet"
            propose(source, table, show_progress=False)
        read = ProposalTable.read(table)
        if what == "proposals":
            inspect_proposals(source, read, path, limit=limit, seed=seed)
        else:
            inspect_views(source, read, settings or SampleSettings(), path, limit=limit, seed=seed)
    return path
