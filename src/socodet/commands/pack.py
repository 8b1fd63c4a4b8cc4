"""`socodet pack`: pictures made small once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from socodet.commands.parsing import Flat, call, list_unreadable


def pack(argv: Sequence[str]) -> None:
    """Make pictures small once, into tar shards that are read in sequence."""
    import socodet.images.pack as packing

    def arguments(
        images: tyro.conf.Positional[Path],
        output: Path,
        settings: Annotated[packing.PackSettings, Flat] = packing.PackSettings(),  # noqa: B008
        workers: int | None = None,
        overwrite: bool = False,
    ) -> packing.PackSummary:
        """Make pictures small once, into tar shards that are read in sequence.

        Interrupted, the same command goes on where it was.

        Args:
            images: Folder of images, tar shards, a list of images, a COCO file or a saved dataset.
            output: Folder for the shards.
            workers: Images under way at once; by default one a core.
            overwrite: Replace the packed images in the folder.
        """
        return packing.pack(images, output, settings=settings, workers=workers, overwrite=overwrite)

    summary = call(arguments, "pack", argv)
    print(
        f"{summary.output}: {summary.images} images ({summary.copied} as they were) in {summary.shards} shards, "
        f"{summary.bytes / 1e6:.1f} MB, in {summary.seconds:.1f} s"
    )
    list_unreadable(summary.unreadable)
