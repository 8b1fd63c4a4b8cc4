"""A layout that was found in a folder or file, and what all layouts have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.box_forms import BoxForm
from socodet.detection.datasets.splits import WHOLE, missing_split
from socodet.errors import InputError


@dataclass(frozen=True)
class Layout:
    """A folder or file in a known layout."""

    name: str
    """A description without the path: `COCO layout`, `a COCO file`."""
    splits: tuple[str, ...]
    """Names of the splits; only `WHOLE` for a dataset without splits."""
    read: Callable[[str], DetectionDataset]
    """Reads one of `splits`, or another one that the layout has a name for. MissingSplitError if it does not exist."""
    absent: tuple[str, ...] = ()
    """A message for each split that the dataset describes but that does not exist."""


def check_no_box_form(layout: Layout, form: BoxForm | None) -> Layout:
    """The layout. InputError if `--box-form` was given, for layouts whose boxes have a fixed form."""
    if form is not None:
        raise InputError(
            f"--box-form {form}: is for COCO files, tables and Hugging Face datasets, not for this ({layout.name}), "
            "whose box form is fixed; leave out the flag"
        )
    return layout


def check_no_images(layout: Layout, given: Path, images: Path | None) -> Layout:
    """The layout. InputError if `--images` was given, for layouts that say where their images are."""
    if images is not None:
        raise InputError(
            f"--images {images}: cannot be used with {given} ({layout.name}), which holds its images or says where "
            "they are; leave it out, or correct the paths there"
        )
    return layout


def split_or_whole(
    given: Path, splits: Sequence[str], read: Callable[[str], DetectionDataset]
) -> Callable[[str], DetectionDataset]:
    """Reads an existing split, or all of a dataset without splits as `train`. MissingSplitError for other splits."""

    def reader(split: str) -> DetectionDataset:
        if split in splits:
            return read(split)
        if tuple(splits) == (WHOLE,) and split == "train":
            return read(WHOLE)
        whole = f"it is not divided, and its only split is {WHOLE!r}"
        there = whole if tuple(splits) == (WHOLE,) else f"it has {', '.join(map(repr, splits))}"
        raise missing_split(given, split, there)

    return reader
