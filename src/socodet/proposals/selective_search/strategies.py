"""Strategies of selective search: which segmentations and groupings to run (Uijlings et al. 2013, section 4)."""

from dataclasses import dataclass

from socodet.proposals.selective_search.color_spaces import ColorSpace
from socodet.proposals.selective_search.grouping import Mix

SIGMA = 0.8
"""Standard deviation of the smoothing, pixels; smaller where the image is smaller than the reference."""
REFERENCE_SIDE = 500
"""The longest side, pixels, that the smoothing and a strategy's smallest region refer to."""
HUE_WEIGHT = 180 / 255
"""Weight of hue in an edge: 8-bit images store it in units of two degrees."""

# Weights of colour, texture, size and fill. A pixel votes once for its texture; the original counts eight one-sided
# derivatives, most of them near zero and so alike in all regions. At full weight, texture would drown the others here.
ALL = Mix(1, 0.5, 1, 1)
NO_COLOR = Mix(0, 0.5, 1, 1)
FILL = Mix(0, 0, 0, 1)
SIZE = Mix(0, 0, 1, 0)
COMPACT = Mix(0.5, 0.35, 1, 2)
"""For a single grouping: finds more objects than equal weights."""


@dataclass(frozen=True)
class Strategy:
    """Every colour space is segmented with every k, and every segmentation grouped with every mix."""

    spaces: tuple[ColorSpace, ...]
    ks: tuple[float, ...]
    """Scales of observation, the same for images of any size: shrinking makes regions smaller but edges sharper, and of
    the rules tried (k, k times the side, k times the area) this one changes the boxes least."""
    mixes: tuple[Mix, ...]
    min_size: float = 100
    """Smallest region of a segmentation, pixels at the reference side."""


STRATEGIES = {
    "single": Strategy(("hsv",), (150,), (COMPACT,)),
    "fast": Strategy(("hsv", "lab"), (145, 300), (ALL, NO_COLOR, FILL)),
    "quality": Strategy(("hsv", "lab", "rgi", "hue", "intensity"), (50, 100, 150, 300), (ALL, NO_COLOR, FILL, SIZE)),
}
