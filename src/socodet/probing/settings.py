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
    """Split of the folder whose objects the classifiers are trained on."""
    val_split: str = "val"
    """Split of the folder whose objects are classified."""
    images: Path | None = None
    """Folder of the images, if they are not found nearby; also for --val, unless that dataset has its own."""


@dataclass(frozen=True)
class ProbeSettings(Settings):
    """What is probed, and on how many images; how it is measured is fixed (docs/probe.md).

    `socodet probe --help-all` explains each field.
    """

    size: Annotated[int, Range(32)] | None = None
    """Images are resized to a square of this side, in pixels; by default that of the run's first view."""
    max_train_images: PositiveInt | None = 2000
    """Maximum number of training images, drawn by --seed; None for all."""
    max_val_images: PositiveInt | None = 1000
    """Maximum number of validation images, drawn by --seed; None for all."""
    of: Literal["head", "backbone"] = "head"
    """Which features of an object to probe: the box head's (h of Eq. 1), or the backbone's, pooled from its last stage
    by RoIAlign and averaged. Only the backbone's can be compared between runs with and without FPN and box head."""
    seed: NonNegativeInt = 0
    """Random seed for the choice of images and the second view; independent of the run's seed, so that all runs see the
    same."""
