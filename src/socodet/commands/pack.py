"""`socodet pack`: images shrunk once."""

from pathlib import Path
from typing import Annotated, Any

import tyro

import socodet.images.pack as packing
from socodet.commands.messages import list_unreadable
from socodet.commands.parsing import Flat


def pack(
    images: tyro.conf.Positional[Path],
    output: Path,
    settings: Annotated[packing.PackSettings, Flat] = packing.PackSettings(),
    workers: int | None = None,
    overwrite: bool = False,
) -> Any:
    """Shrink images once, into tar shards that are read in sequence.

    If interrupted, the same command resumes.

    Args:
        images: Folder of images, nested or not; pattern such as '*.jpg', list of paths, COCO file, tar shards, or saved
            Hugging Face dataset.
        output: Folder for the shards.
        workers: Number of images processed at once; by default one per core.
        overwrite: Replace the packed images in the folder.
    """
    summary = packing.pack(images, output, settings=settings, workers=workers, overwrite=overwrite)
    print(summary)
    list_unreadable(summary.unreadable)
    return summary
