"""What the user has decided before `auto` plans the rest; what the plan has chosen, as it is shown, and which settings
are behind it.
"""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

from socodet.errors import InputError
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.counted import counted
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings

SETTINGS = {
    "network": (ModelSettings,),
    "views": (SampleSettings, ViewSettings),
    "colours": (PhotometricSettings,),
    "learning rate": ("optimizer", "base_lr"),
    "target momentum": ("target_momentum", "final_target_momentum"),
    "backbone lr": ("backbone_lr",),
    "warm-up": ("warmup_epochs",),
    "objective": (ObjectiveSettings,),
    "proposals": (ProposalSettings,),
}
"""The settings behind each choice: names of fields, or a class for all of its fields."""
FEW_IMAGES = 200
"""With fewer images than this, a plan says that they are few: the smallest dataset that we measured on has 296."""
NAMED_SECONDS = 60.0
"""A plan says how long the proposals take if that is at least this."""


@dataclass(frozen=True)
class Given:
    """What the user has decided; None for what the plan chooses. At most one of `epochs`, `hours` and `steps`."""

    epochs: float | None = None
    hours: float | None = None
    steps: int | None = None
    batch: int | None = None
    accumulate: int | None = None
    """Micro-batches per step."""
    backbone: str | None = None
    size: int | None = None
    """Side of the first view, pixels."""
    starts_from: str | Path | None = None
    """Initial weights: a file or a run."""
    model: ModelSettings | None = None
    """Sizes of the modules, if the run starts from another run."""
    proposals: str | Path | None = None
    """A proposal table, or `online`; by default the run makes its own table."""
    probe_every: float | None = None
    whole_images: bool = False
    """Pretrain the backbone alone, on whole images: the image-level baseline."""

    def __post_init__(self) -> None:
        if sum(length is not None for length in (self.epochs, self.hours, self.steps)) > 1:
            raise InputError("--epochs and --hours: give one of them")


@dataclass(frozen=True)
class Choice:
    """One choice: what, its value as shown, and why."""

    what: str
    value: str
    reason: str

    def settings(self) -> set[str]:
        """Names of the settings that it chooses."""
        of = SETTINGS.get(self.what, ())
        return {name for one in of for name in ([one] if isinstance(one, str) else (f.name for f in fields(one)))}

    def replaced_by(self, given: Collection[str]) -> "Choice":
        """The same choice; if any of the given flags replace its values, the reason names them."""
        flags = ", ".join(flag for flag in given if setting_of(flag) in self.settings())
        return dataclasses.replace(self, reason=f"replaced by {flags}") if flags else self


def few_images_note(images: int) -> list[str]:
    """The plan's line about having few images; empty if there are enough."""
    if images >= FEW_IMAGES:
        return []
    return [f"{counted(images, 'image')} {'is' if images == 1 else 'are'} few: more unlabelled images would help most"]


def setting_of(flag: str) -> str:
    """The name of the setting that a flag sets: min_scale for --proposals.min-scale."""
    return flag.removeprefix("--").rpartition(".")[2].replace("-", "_")
