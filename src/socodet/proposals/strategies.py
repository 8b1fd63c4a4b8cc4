"""Which segmentations and groupings a strategy of selective search runs (Uijlings et al. 2013, section 4)."""

from dataclasses import dataclass

from socodet.proposals.color_spaces import ColorSpace
from socodet.proposals.grouping import Mix

SIGMA = 0.8
"""Standard deviation of the smoothing, pixels of the work image."""
REFERENCE_SIDE = 500
"""The longest side, pixels, at which a strategy's k and least region are meant."""

ALL = Mix(1, 1, 1, 1)
NO_COLOR = Mix(0, 1, 1, 1)
FILL = Mix(0, 0, 0, 1)
SIZE = Mix(0, 0, 1, 0)


@dataclass(frozen=True)
class Strategy:
    """Every colour space is segmented with every k, and every segmentation grouped with every mix."""

    spaces: tuple[ColorSpace, ...]
    ks: tuple[float, ...]
    mixes: tuple[Mix, ...]
    min_size: float = 100
    """Least region of a segmentation, pixels at the reference side."""


STRATEGIES = {
    "single": Strategy(("hsv",), (200,), (ALL,)),
    "fast": Strategy(("hsv", "lab"), (150, 300), (ALL, NO_COLOR)),
    "quality": Strategy(
        ("hsv", "lab", "rgi", "hue", "intensity"), (150, 300, 450, 600), (ALL, NO_COLOR, FILL, SIZE)
    ),
}
