"""`socodet inspect`: pictures of proposals and views."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from socodet.commands.parsing import Flat, call, value_of


def inspect(argv: Sequence[str]) -> None:
    """Draw proposals on images, or the views a recipe makes of them."""
    from socodet.recipes import recipe as recipe_of
    from socodet.views.settings import SampleSettings

    base = recipe_of(value_of("--recipe", argv) or "fpn_100ep")

    def arguments(
        what: tyro.conf.Positional[Literal["proposals", "views"]],
        images: tyro.conf.Positional[Path],
        output: Path,
        table: Annotated[Path | None, tyro.conf.arg(name="proposals")] = None,
        recipe: str = base.name,
        sample: Annotated[SampleSettings, Flat] = base.sample,
        limit: int = 12,
        seed: int = 0,
        overwrite: bool = False,
    ) -> Path:
        """Draw proposals on images, or the views a recipe makes of them.

        Args:
            what: proposals: boxes on each image. views: the views side by side, an object in one colour.
            images: Folder of images, or another source of them.
            output: .png or .html to write.
            table: Proposal table; by default proposals are made for the images shown.
            recipe: Whose views.
            limit: Images shown.
            seed: Of the choice of images and of the views.
            overwrite: Replace a file that exists.
        """
        from socodet.inspection import inspect

        return inspect(what, images, output, table=table, settings=sample, limit=limit, seed=seed, overwrite=overwrite)

    print(f"{call(arguments, 'inspect', argv)}: written")
