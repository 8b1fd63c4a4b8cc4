"""Settings of a sample: views, colours, boxes and levels. The defaults follow sections 3.2, 3.3 and 4.1."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal

from socodet.errors import SettingError
from socodet.runtime.settings import PositiveInt, Range, Settings, Share
from socodet.views.layout import BoxLayout, box_layout

WindowRule = Literal["whole", "crop", "previous"]
ObjectRule = Literal["all_views", "each_window"]
AspectFrame = Literal["first_view", "image"]
JitterAnchor = Literal["centre", "corner"]
LevelRule = Literal["scale_aware", "canonical", "single"]


@dataclass(frozen=True)
class PhotometricSettings(Settings):
    """Colours of a view: BYOL's augmentation (Grill et al. 2020, appendix B); the defaults are V1's."""

    brightness: Share = 0.4
    """Brightness is multiplied by a factor drawn from [1 - this, 1 + this]."""
    contrast: Share = 0.4
    """Contrast is multiplied by a factor drawn from [1 - this, 1 + this]."""
    saturation: Share = 0.2
    """Saturation is multiplied by a factor drawn from [1 - this, 1 + this]."""
    hue: Annotated[float, Range(0, 0.5)] = 0.1
    """The hue is rotated by up to this share of the colour circle, in either direction."""
    jitter_probability: Share = 0.8
    """Probability that these four changes are made, in random order."""
    grayscale_probability: Share = 0.2
    """Probability that the view is converted to grey."""
    blur_probability: Share = 1.0
    """Probability that the view is blurred."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the Gaussian blur's standard deviation, in pixels of the view."""
    solarize_probability: Share = 0.0
    """Probability that the view is solarized, which inverts bright values."""
    solarize_threshold: Annotated[int, Range(0, 256)] = 128
    """Values (0..255) from this one up count as bright."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.blur_sigma
        self._require(0 < low <= high <= 20, "blur_sigma", "two rising numbers in (0, 20]")


@dataclass(frozen=True)
class ViewSettings(Settings):
    """One view: a window of the image, a size, colours and a flip."""

    window: WindowRule = "whole"
    """Part of the image shown: all of it, a random crop, or the same part as in the previous view."""
    size: Annotated[int, Range(8, 4096)] = 224
    """Width and height in pixels."""
    photometric: PhotometricSettings = field(default_factory=PhotometricSettings)
    """Colours of the view."""
    flip_probability: Share = 0.5
    """Probability that the view is flipped left to right."""
    cutout_probability: Share = 0.0
    """For each box of the view, probability that a square on it is filled with the mean colour."""
    cutout_area: tuple[float, float] = (0.1, 0.3)
    """Range of that square's area, as a share of the box's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.cutout_area
        self._require(0 < low <= high <= 1, "cutout_area", "two rising numbers in (0, 1]")


def three_views(size: int = 224, first: PhotometricSettings = PhotometricSettings()) -> tuple[ViewSettings, ...]:
    """The paper's V1, V2 and V3, of `size`, `size` and half of it; the colours of V2 and V3 follow from V1's."""
    other = replace(first, blur_probability=0.1, solarize_probability=0.2)
    return (
        ViewSettings("whole", size, first),
        ViewSettings("crop", size, other),
        ViewSettings("previous", size // 2, other),
    )


@dataclass(frozen=True)
class SampleSettings(Settings):
    """The views and boxes of one image; the defaults are the paper's V1, V2 and V3.

    SoCo* has one more entry in the list: ViewSettings("crop", 192, ...).
    """

    views: tuple[ViewSettings, ...] = field(default_factory=three_views)
    """The views; boxes are jittered in the first."""
    boxes_per_image: PositiveInt = 4
    """Proposals sampled per image: K in Eq. 6."""
    objects: ObjectRule = "all_views"
    """all_views: the same K objects in every view. each_window: separate K objects for every new crop, all of which the
    first view shows too."""
    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Range of a random crop's area, as a share of the image."""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of a random crop's aspect ratio (width over height), sampled log-uniformly."""
    crop_aspect_in: AspectFrame = "first_view"
    """Where the aspect ratio is measured: in the first view, which is square, or in the image, as torchvision does."""
    jitter: Annotated[float, Range(0, 0.5)] = 0.1
    """A jittered box is moved and resized by up to this share of its width and height (r in section 3.2)."""
    jitter_probability: Share = 0.5
    """Probability that a box is jittered."""
    jitter_anchor: JitterAnchor = "centre"
    """Point that stays fixed when a box is resized: its centre (section 3.2) or its top left corner."""
    min_visible: Share = 0.2
    # With less than a fifth visible it is hardly the same object. A larger share would drop the partly hidden objects
    # that detectors meet; this one drops 1 proposal in 40.
    """Only sample proposals with at least this share of their area visible in every view."""
    min_box_side: float = 8.0
    """Minimum width and height of a box in every view, in pixels; 8 is two cells of P2."""
    level_rule: LevelRule = "scale_aware"
    """How boxes are assigned to pyramid levels: by area (section 3.3), by Mask R-CNN's formula, or all to P2."""
    level_limits: tuple[float, float, float] = (48.0, 96.0, 192.0)
    """For scale_aware: largest boxes on P2, P3 and P4, as the square root of their area in pixels of the view."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(len(self.views) >= 2, "views", "a tuple of at least 2 views")
        if self.views[0].window == "previous":
            raise SettingError("views.0.window must be whole or crop, not previous")
        apart = self.objects == "each_window"
        self._require(not apart or self.views[0].window == "whole", "objects", "all_views if view 0 is a crop")
        low, high = self.crop_scale
        self._require(0 < low <= high <= 1, "crop_scale", "two rising numbers in (0, 1]")
        low, high = self.crop_aspect
        self._require(0 < low <= high, "crop_aspect", "two rising positive numbers")
        smallest = min(view.size for view in self.views)
        rule = f"between 1 and half the smallest view's {smallest}"
        self._require(1 <= self.min_box_side <= smallest / 2, "min_box_side", rule)
        a, b, c = self.level_limits
        self._require(0 < a < b < c, "level_limits", "three rising positive numbers")

    @property
    def object_sets(self) -> tuple[int, ...]:
        """For each view, which K of the first view's boxes are its objects: 0 for the first K, 1 for the next K, ...

        A "previous" view shares the objects of the view before it.
        """
        sets = [0]
        for v, view in enumerate(self.views[1:], start=1):
            new_window = self.objects == "each_window" and v > 1 and view.window != "previous"
            sets.append(sets[-1] + 1 if new_window else sets[-1])
        return tuple(sets)

    @cached_property
    def layout(self) -> BoxLayout:
        """Where each view's boxes are in the array of all boxes."""
        return box_layout([view.size for view in self.views], self.object_sets, self.boxes_per_image)

    @property
    def least_side(self) -> int:
        """The least shorter side of an image, in pixels, with which no view is ever enlarged."""
        narrowest = min(1.0, math.sqrt(self.crop_scale[0] * min(self.crop_aspect[0], 1 / self.crop_aspect[1])))
        return math.ceil(max(view.size for view in self.views) / narrowest)

    @property
    def pixel_bytes(self) -> int:
        """Size of the pixels of an image's views, nearly all of a sample."""
        return sum(3 * view.size**2 for view in self.views)
