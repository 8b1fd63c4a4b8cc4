"""`socodet inspect`: images with their proposals, or with the views that a recipe makes from them."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from socodet.commands.parsing import HELP, Flat, parse, reads_images, values_of
from socodet.errors import InputError
from socodet.images.reading import read_images_as
from socodet.images.source import open_images
from socodet.pretraining.recipes import AUTO, Recipe
from socodet.pretraining.recipes import recipe as recipe_named
from socodet.proposals.settings import ProposalSettings
from socodet.views.settings import SampleSettings


def defaults(argv: Sequence[str]) -> dict[str, Any]:
    """Defaults for views and proposals are those of --recipe; `auto` is planned for the images."""
    name = (values_of("--recipe", argv) or [""])[-1]
    if not name or (name == AUTO and HELP & set(argv)):
        return {}
    chosen = _planned(argv) if name == AUTO else recipe_named(name)
    return {"recipe": name, "sample": chosen.sample, "proposals": chosen.proposals}


def _planned(argv: Sequence[str]) -> Recipe:
    """The views and the proposals that `pretrain` plans for the images."""
    from socodet.pretraining.planning import views_planned_for

    given = parse(inspect, "inspect", argv, {})
    asked = signature(inspect).bind(*given.args, **given.keywords)
    asked.apply_defaults()
    with read_images_as(asked.arguments["pixels"]):
        return views_planned_for(open_images(asked.arguments["images"]))


@reads_images
def inspect(
    what: tyro.conf.Positional[Literal["proposals", "views", "detections"]],
    images: tyro.conf.Positional[Path],
    output: Path,
    table: Annotated[Path | None, tyro.conf.arg(name="proposals")] = None,
    recipe: str = "fpn_100ep",
    sample: Annotated[SampleSettings, Flat] = recipe_named("fpn_100ep").sample,
    proposals: ProposalSettings = ProposalSettings(),
    limit: int = 12,
    seed: int = 0,
    overwrite: bool = False,
) -> Any:
    """Draw images with their proposals, or the crops (views) that a recipe cuts from them for training.

    Args:
        what: proposals: boxes on each image. views: the views side by side, with each object in one colour.
            detections: see `socodet inspect detections --help`.
        images: Folder of images, or anything else that `socodet pretrain` reads.
        output: .png or .html to write.
        table: Proposal table; by default proposals are made on the fly, as the flags --proposals.* say.
        recipe: Recipe that makes the views and the proposals; auto plans both for the images, as pretrain does.
        limit: Number of images to show.
        seed: Random seed for the choice of images and for the views.
        overwrite: Replace an existing file.
    """
    from socodet.reports.inspect import inspect

    if what == "detections":
        raise InputError("inspect: detections comes before the flags: socodet inspect detections SET --output FILE …")
    if table is not None and recipe != AUTO and proposals != recipe_named(recipe).proposals:
        raise InputError("inspect: --proposals.… has no effect if --proposals gives a table; leave out one of them")
    path = inspect(
        what,
        images,
        output,
        table=table,
        settings=sample,
        proposals=proposals,
        limit=limit,
        seed=seed,
        overwrite=overwrite,
    )
    print(f"{path}: written")
    return {"output": path}
