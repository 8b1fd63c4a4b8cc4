"""Settings of proposals; the defaults are the paper's."""

from dataclasses import dataclass
from typing import Annotated, Literal

from socodet.runtime.extensions import Extension
from socodet.runtime.settings import Range, Seed, Settings

Method = Literal["single", "fast", "quality", "random", "grid"] | Extension

BLIND = ("random", "grid")
"""Methods whose boxes ignore the image."""
ONLINE = "online"
"""Instead of a table: proposals are made in the data workers during training."""
BoxForm = Literal["xyxy", "xywh"]
"""What the four numbers of a box made by another program mean."""


@dataclass(frozen=True)
class ProposalSettings(Settings):
    """How boxes are found, and which are kept; `socodet propose --help-all` explains each field."""

    method: Method = "single"
    """single, fast, quality: selective search with one, twelve or eighty groupings (a few dozen boxes per image, a few
    hundred, or many). random: random boxes (Table 5c of the paper). grid: a regular grid. module:name: your own
    function from an image (H, W, 3) uint8 RGB and a random generator to boxes (N, 4) xyxy in pixels."""
    work_size: Annotated[int, Range(16)] = 256
    """Longest side in pixels to which images are scaled down for selective search."""
    max_aspect: Annotated[float, Range(1)] = 3.0
    """Largest aspect ratio of a box, width over height or height over width (section 3.2)."""
    min_scale: Annotated[float, Range(0, below=1)] = 0.3
    """Smallest scale of a box: the square root of its share of the image's area (section 3.2)."""
    max_scale: Annotated[float, Range(at_most=1)] = 0.8
    """Largest scale of a box (section 3.2)."""
    max_overlap: Annotated[float, Range(above=0, at_most=1)] = 0.95
    """Of two boxes with an IoU above this, one is dropped, so that no object is sampled twice."""
    seed: Seed = 0
    """Random seed for random boxes; the other methods are deterministic."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.min_scale < self.max_scale, "max_scale", "above min_scale and at most 1")
