"""What a user has decided before `auto` plans the rest."""

from dataclasses import dataclass
from pathlib import Path

from socodet.errors import InputError
from socodet.models.settings import ModelSettings


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
