"""`socodet probe`: what a run's network knows of annotated objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro


def probe(argv: Sequence[str]) -> None:
    """Measure what a run's network knows of annotated objects, without fine-tuning."""
    from socodet.commands.parsing import Flat, call
    from socodet.probing.measure import ProbeScores, ProbeSettings
    from socodet.probing.run import probe_table

    def arguments(
        run: tyro.conf.Positional[Path],
        dataset: Path,
        val: Path | None = None,
        train_split: str = "train",
        val_split: str = "val",
        images: Path | None = None,
        settings: Annotated[ProbeSettings, Flat] = ProbeSettings(),  # noqa: B008
        untrained: bool = False,
        output: Path | None = None,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        workers: int | None = None,
        overwrite: bool = False,
    ) -> dict[str, ProbeScores]:
        """Measure what a run's network knows of annotated objects, without fine-tuning.

        Nearest neighbours and logistic regression tell the kind of the validation split's objects from features of the
        training split's; objects are looked for in another view, and compared at two scales.

        Args:
            run: Folder that `socodet pretrain` wrote.
            dataset: Annotated set: a folder in COCO's or Pascal VOC's layout, or a training set alone, with --val.
            val: Validation set; by default the validation split of a folder.
            train_split: Which part of a folder to learn from.
            val_split: Which part of a folder to classify.
            images: Folder of the images of .json files, if they are not found nearby.
            untrained: Probe the run's random initialisation, too, and print it beside; takes more than twice the time.
            output: File for the scores, .json.
            device: Where the network runs; auto takes a CUDA device when there is one.
            workers: Processes that read pictures; by default one a core, fewer where the CPU also computes.
            overwrite: Replace the file that --output names, if it exists.
        """
        from socodet.probing.run import probe_and_compare

        return probe_and_compare(
            run,
            dataset,
            val,
            train_split=train_split,
            val_split=val_split,
            images=images,
            settings=settings,
            untrained=untrained,
            output=output,
            device=device,
            workers=workers,
            overwrite=overwrite,
        )

    print(probe_table(call(arguments, "probe", argv)))
