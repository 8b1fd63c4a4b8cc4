"""`socodet convert`: an annotated dataset of any known format as a COCO file."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from socodet.commands.parsing import Flat, reads_images
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError


@reads_images
def convert(
    data: tyro.conf.Positional[Path],
    output: Path | None = None,
    check: bool = False,
    split: str | None = None,
    images: Path | None = None,
    reading: Annotated[ReadingSettings, Flat] = ReadingSettings(),
    save_images: Path | None = None,
    overwrite: bool = False,
) -> Any:
    """Write an annotated dataset of any known format as a COCO file, and report what was left out and why.

    The dataset is read in the same way as by finetune, probe and evaluate.

    Args:
        data: Annotated dataset, as for `socodet finetune`.
        output: COCO file to write, .json.
        check: Write nothing; only show what the dataset contains and what is wrong with it.
        split: Split of a folder: train, val or test; `all` for one without splits.
        images: Folder of the images, if they are not found nearby.
        save_images: New folder for the images of a Hugging Face dataset, which are not stored as files.
        overwrite: Replace an existing file.
    """
    from socodet.detection.convert import convert

    if check == (output is not None):
        raise InputError("convert: give --output FILE to write a COCO file, or --check to only read the dataset")
    found = convert(
        data,
        output,
        split=split,
        images=images,
        reading=reading,
        save_images=save_images,
        overwrite=overwrite,
    )
    print(f"{data}: {found}")
    return found
