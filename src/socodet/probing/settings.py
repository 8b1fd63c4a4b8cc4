"""The settings of a probe, as the command line parses them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from socodet.runtime.settings import NonNegativeInt, PositiveInt, Range, Settings


@dataclass(frozen=True)
class ProbeData(Settings):
    """Where the annotated images of a probe are; `socodet probe --help-all` explains each field."""

    data: Path
    """Annotated set in any of the layouts of docs/data.md, or a training set alone, with --val."""
    val: Path | None = None
    """Validation set; by default the validation split of a folder."""
    train_split: str = "train"
    """Which split of a folder to learn from."""
    val_split: str = "val"
    """Which split of a folder to classify."""
    images: Path | None = None
    """Folder of the images of .json files, if they are not found nearby."""


@dataclass(frozen=True)
class ProbeSettings(Settings):
    """What is probed, and on how many images; how it is measured is fixed (docs/probe.md).

    `socodet probe --help-all` explains each field.
    """

    size: Annotated[int, Range(32)] | None = None
    """Side of the square that an image is resized to, in pixels; by default that of the run's first view."""
    train_pictures: PositiveInt | None = 2000
    """At most this many training images, chosen by the seed; None for all."""
    val_pictures: PositiveInt | None = 1000
    """At most this many validation images, chosen by the seed; None for all."""
    of: Literal["head", "backbone"] = "head"
    """Whose features of an object to probe: the box head's (h of Eq. 1), or the backbone's, pooled by RoIAlign from its
    last stage and averaged, which compare across runs with and without FPN and head."""
    seed: NonNegativeInt = 0
    """Chooses the images and the other views; independent of the run, so that all runs see the same."""
