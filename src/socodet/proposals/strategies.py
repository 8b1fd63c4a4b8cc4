"""Which segmentations and groupings a strategy of selective search runs (Uijlings et al. 2013, section 4)."""

from dataclasses import dataclass

from socodet.proposals.color_spaces import ColorSpace
from socodet.proposals.grouping import Mix

SIGMA = 0.8
"""Standard deviation of the smoothing, pixels of the work image."""
REFERENCE_SIDE = 500
"""The longest side, pixels, at which a strategy's k and least region are meant."""

# Weights of colour, texture, size and fill. A pixel votes once for its texture, where the original counts
# eight one-sided derivatives, of which most are near zero and so alike in all regions: in full, texture would
# drown the others here.
ALL = Mix(1, 0.35, 1, 1)
NO_COLOR = Mix(0, 0.35, 1, 1)
FILL = Mix(0, 0, 0, 1)
SIZE = Mix(0, 0, 1, 0)
COMPACT = Mix(0.5, 0.35, 1, 2)
"""The one to choose where there is but one: it finds more objects than equal weights do."""


@dataclass(frozen=True)
class Strategy:
    """Every colour space is segmented with every k, and every segmentation grouped with every mix."""

    spaces: tuple[ColorSpace, ...]
    ks: tuple[float, ...]
    """Scales of observation, at the reference side."""
    mixes: tuple[Mix, ...]
    min_size: float = 100
    """Least region of a segmentation, pixels at the reference side."""


STRATEGIES = {
    "single": Strategy(("hsv",), (140,), (COMPACT,)),
    "fast": Strategy(("hsv", "lab"), (70, 280), (ALL, NO_COLOR, FILL, SIZE)),
    "quality": Strategy(("hsv", "lab", "rgi", "hue", "intensity"), (70, 140, 280, 560), (ALL, NO_COLOR, FILL, SIZE)),
}
