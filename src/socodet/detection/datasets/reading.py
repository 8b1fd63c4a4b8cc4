"""How a set is read, where its files do not say it."""

from dataclasses import dataclass
from typing import Annotated

from socodet.detection.datasets.box_forms import BoxForm
from socodet.runtime.settings import Range, Seed, Settings


@dataclass(frozen=True)
class ReadingSettings(Settings):
    """What a set's files do not say; `socodet finetune --help-all` explains each field."""

    val_share: Annotated[float, Range(0, below=1)] | None = None
    """Hold this share of the training images back for validation, of a set without a validation split; 0 holds none."""
    val_seed: Seed = 0
    """Chooses the images that --val-share holds back; --seed does not, so that all seeds are scored on the same."""
    box_form: BoxForm | None = None
    """What the four numbers of a box mean in a .json file or a Hugging Face dataset: the upper left corner and the
    size, two corners, or the centre and the size, in pixels or as shares of the image's sides."""
