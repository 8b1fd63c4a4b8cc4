"""`socodet inspect`: images with their proposals, or with the views that a recipe makes of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from socodet.commands.parsing import Flat, reads_images, values_of
from socodet.pretraining.recipes import recipe as recipe_named
from socodet.views.settings import SampleSettings


def defaults(argv: Sequence[str]) -> dict[str, Any]:
    """The views are those of the recipe named by --recipe."""
    names = values_of("--recipe", argv)
    return {"recipe": names[-1], "sample": recipe_named(names[-1]).sample} if names else {}


@reads_images
def inspect(
    what: tyro.conf.Positional[Literal["proposals", "views"]],
    images: tyro.conf.Positional[Path],
    output: Path,
    table: Annotated[Path | None, tyro.conf.arg(name="proposals")] = None,
    recipe: str = "fpn_100ep",
    sample: Annotated[SampleSettings, Flat] = recipe_named("fpn_100ep").sample,
    limit: int = 12,
    seed: int = 0,
    overwrite: bool = False,
) -> Any:
    """Draw images with their proposals, or the crops (views) that a recipe cuts from them for training.

    Args:
        what: proposals: boxes on each image. views: the views side by side, with each object in one colour.
        images: Folder of images, or another source of them.
        output: .png or .html to write.
        table: Proposal table; by default proposals are made on the fly.
        recipe: Recipe that makes the views.
        limit: Number of images to show.
        seed: Random seed for the choice of images and for the views.
        overwrite: Replace an existing file.
    """
    from socodet.reports.inspect import inspect

    path = inspect(what, images, output, table=table, settings=sample, limit=limit, seed=seed, overwrite=overwrite)
    print(f"{path}: written")
    return {"output": path}
