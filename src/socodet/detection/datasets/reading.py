"""How to read a dataset where its files do not say so."""

from dataclasses import dataclass
from typing import Annotated

from socodet.detection.datasets.box_forms import BoxForm
from socodet.runtime.settings import Range, Seed, Settings


@dataclass(frozen=True)
class ReadingSettings(Settings):
    """What a dataset's files do not say; `socodet finetune --help-all` explains each field."""

    val_share: Annotated[float, Range(0, below=1)] | None = None
    """Share of the training images to hold out for validation if the dataset has no validation split; 0 for none."""
    val_seed: Seed = 0
    """Random seed for the choice of images held out by --val-share; separate from --seed, so that runs with different
    seeds are scored on the same images."""
    box_form: BoxForm | None = None
    """Meaning of a box's four numbers in a .json or .csv file or a Hugging Face dataset: upper left corner and size,
    two corners, or centre and size, in pixels or as fractions of the image's sides ("shares")."""
