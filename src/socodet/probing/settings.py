"""The settings of a probe, as the command line parses them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from socodet.runtime.settings import NonNegativeInt, PositiveInt, Range, Settings


@dataclass(frozen=True)
class ProbeData(Settings):
    """Where the annotated images of a probe are; `socodet probe --help-all` explains each field."""

    data: Path
    """Annotated dataset in any layout of docs/data.md; without a validation split, give --val or --val-share."""
    val: Path | None = None
    """Validation dataset; by default the folder's validation split."""
    train_split: str = "train"
    """Split of a folder to learn from."""
    val_split: str = "val"
    """Split of a folder to classify."""
    images: Path | None = None
    """Folder of the images, if they are not found nearby; those of --val too, unless that dataset has its own."""


@dataclass(frozen=True)
class ProbeSettings(Settings):
    """What is probed, and on how many images; how it is measured is fixed (docs/probe.md).

    `socodet probe --help-all` explains each field.
    """

    size: Annotated[int, Range(32)] | None = None
    """Side of the square that images are resized to, in pixels; by default that of the run's first view."""
    max_train_images: PositiveInt | None = 2000
    """At most this many training images, chosen by the seed; None for all."""
    max_val_images: PositiveInt | None = 1000
    """At most this many validation images, chosen by the seed; None for all."""
    of: Literal["head", "backbone"] = "head"
    """Which features of an object to probe: the box head's (h of Eq. 1), or the backbone's, pooled by RoIAlign from its
    last stage and averaged. Only the latter can be compared between runs with and without FPN and head."""
    seed: NonNegativeInt = 0
    """Random seed for the images and the second view; independent of the run's, so that all runs see the same."""
