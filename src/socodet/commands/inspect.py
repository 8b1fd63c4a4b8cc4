"""`socodet inspect`: pictures of proposals, of views, and of detections beside the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from socodet.commands.parsing import Flat, call, value_of


def inspect(argv: Sequence[str]) -> None:
    """Draw proposals on images, the views a recipe makes of them, or detections beside the truth."""
    if argv and argv[0] == "detections":
        _detections(argv[1:])
        return
    from socodet.pretraining.recipes import recipe as recipe_of
    from socodet.views.settings import SampleSettings

    base = recipe_of(value_of("--recipe", argv) or "fpn_100ep")

    def arguments(
        what: tyro.conf.Positional[Literal["proposals", "views", "detections"]],
        images: tyro.conf.Positional[Path],
        output: Path,
        table: Annotated[Path | None, tyro.conf.arg(name="proposals")] = None,
        recipe: str = base.name,
        sample: Annotated[SampleSettings, Flat] = base.sample,
        limit: int = 12,
        seed: int = 0,
        overwrite: bool = False,
    ) -> Path:
        """Draw proposals on images, or the views a recipe makes of them; see also `socodet inspect detections --help`.

        Args:
            what: proposals: boxes on each image. views: the views side by side, an object in one colour.
                detections: what a detector found beside what is annotated; it has its own flags.
            images: Folder of images, or another source of them.
            output: .png or .html to write.
            table: Proposal table; by default proposals are made for the images shown.
            recipe: Whose views.
            limit: Images shown.
            seed: Of the choice of images and of the views.
            overwrite: Replace a file that exists.
        """
        from socodet.errors import InputError
        from socodet.reports.inspect import inspect

        if what == "detections":
            raise InputError("inspect: write `detections` first: socodet inspect detections SET --predictions FILE")
        return inspect(what, images, output, table=table, settings=sample, limit=limit, seed=seed, overwrite=overwrite)

    print(f"{call(arguments, 'inspect', argv)}: written")


def _detections(argv: Sequence[str]) -> None:
    def arguments(
        data: tyro.conf.Positional[Path],
        predictions: Path,
        output: Path,
        split: str = "val",
        images: Path | None = None,
        min_score: float = 0.5,
        limit: int = 12,
        seed: int = 0,
        overwrite: bool = False,
    ) -> Path:
        """Draw what a detector found beside what is annotated.

        Args:
            data: Annotated set: a COCO or LVIS .json, a folder in COCO's or Pascal VOC's layout, or a VOC list.
            predictions: File of detections in COCO's result format, as finetune and evaluate save them.
            output: .png or .html to write.
            split: Which part of a folder.
            images: Folder of the images of a .json file, if they are not found nearby.
            min_score: Show detections of this score or more.
            limit: Images shown.
            seed: Of the choice of images.
            overwrite: Replace a file that exists.
        """
        from socodet.reports.inspect import inspect_detections

        return inspect_detections(
            data,
            predictions,
            output,
            split=split,
            images=images,
            min_score=min_score,
            limit=limit,
            seed=seed,
            overwrite=overwrite,
        )

    print(f"{call(arguments, 'inspect detections', argv)}: written")
