"""What is set when proposals are made; the defaults are those of the paper."""

from dataclasses import dataclass
from typing import Literal

from socodet.errors import SettingError

Method = Literal["single", "fast", "quality", "random", "grid"]


@dataclass(frozen=True)
class ProposalSettings:
    """How boxes are found, and which are kept."""

    method: Method = "single"
    """single, fast and quality: selective search in one, twelve or eighty ways (a few dozen boxes an image,
    a few hundred, or many); random: boxes drawn at random (Table 5c of the paper); grid: a regular grid."""
    work_size: int = 256
    """Selective search looks at the image scaled down to this longest side, pixels."""
    max_aspect: float = 3.0
    """A box is at most this many times as wide as high, or as high as wide (section 3.2)."""
    min_scale: float = 0.3
    """Least side of a box: the root of its area over the root of the image's (section 3.2)."""
    max_scale: float = 0.8
    """Largest side of a box, measured likewise (section 3.2)."""
    max_overlap: float = 0.95
    """Of two boxes that overlap by more than this (IoU) one is dropped, so that no object is drawn twice."""
    seed: int = 0
    """Of the random boxes; the other methods draw nothing."""

    def __post_init__(self) -> None:
        if self.method not in Method.__args__:  # type: ignore[attr-defined]
            raise SettingError(f"method must be one of {', '.join(Method.__args__)}, not {self.method!r}")  # type: ignore[attr-defined]
        if self.work_size < 16:
            raise SettingError(f"work_size must be at least 16 pixels, not {self.work_size}")
        if not self.max_aspect >= 1:
            raise SettingError(f"max_aspect must be at least 1, not {self.max_aspect}")
        if not 0 <= self.min_scale < 1:
            raise SettingError(f"min_scale must be at least 0 and below 1, not {self.min_scale}")
        if not self.min_scale < self.max_scale <= 1:
            raise SettingError(f"max_scale must be above min_scale and at most 1, not {self.max_scale}")
        if not 0 < self.max_overlap <= 1:
            raise SettingError(f"max_overlap must be above 0 and at most 1, not {self.max_overlap}")
        if self.seed < 0:
            raise SettingError(f"seed must be at least 0, not {self.seed}")
