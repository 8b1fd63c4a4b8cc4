"""Settings of proposals; the defaults are the paper's."""

from dataclasses import dataclass
from typing import Annotated, Literal

from socodet.runtime.settings import Range, Seed, Settings

Method = Literal["single", "fast", "quality", "random", "grid"]


@dataclass(frozen=True)
class ProposalSettings(Settings):
    """How boxes are found, and which are kept."""

    method: Method = "single"
    """single, fast and quality: selective search in one, twelve or eighty ways (a few dozen boxes an image,
    a few hundred, or many); random: boxes drawn at random (Table 5c of the paper); grid: a regular grid."""
    work_size: Annotated[int, Range(16)] = 256
    """Selective search looks at the image scaled down to this longest side, pixels."""
    max_aspect: Annotated[float, Range(1)] = 3.0
    """A box is at most this many times as wide as high, or as high as wide (section 3.2)."""
    min_scale: Annotated[float, Range(0, below=1)] = 0.3
    """Least side of a box: the root of its area over the root of the image's (section 3.2)."""
    max_scale: Annotated[float, Range(at_most=1)] = 0.8
    """Largest side of a box, measured likewise (section 3.2)."""
    max_overlap: Annotated[float, Range(above=0, at_most=1)] = 0.95
    """Of two boxes that overlap by more than this (IoU) one is dropped, so that no object is drawn twice."""
    seed: Seed = 0
    """Of the random boxes; the other methods draw nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.min_scale < self.max_scale, "max_scale", "above min_scale and at most 1")
