"""The runs of the method's public code (github.com/hologerry/SoCo), where it differs from the paper's text.

Each follows a script in that repository's `tools/`, whose README reports the AP of the resulting models.
docs/method.md lists every difference found, including those that are not followed here.
"""

from dataclasses import replace

from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes.recipe import Recipe
from socodet.pretraining.settings import TrainingSettings
from socodet.views.settings import SampleSettings, ViewSettings

_V1, _V2, _V3 = SampleSettings().views
# Keeps every proposal that a window overlaps; one pixel is the least side of a box that has an area.
_SAMPLE = SampleSettings(
    views=(_V1, _V2, replace(_V3, window="crop")),
    objects="each_window",
    crop_aspect_in="image",
    jitter_anchor="corner",
    min_visible=0.0,
    min_box_side=1.0,
)


def fpn_public() -> Recipe:
    """SoCo-R50-FPN as its public code trains it, 100 epochs (its README: 42.3 AP with Mask R-CNN, COCO 1x).

    V3 is a crop of its own at 112 pixels, and V1 has 2K boxes: K objects visible in V2 and K visible in V3. A window
    keeps every proposal that it overlaps; the aspect ratio of crops is in the image's pixels; jittered boxes grow from
    their top left corner. Half of the boxes of V2 and V3 get a cutout: a square of 0.1 to 0.3 of their area.

    socodet pretrain IMAGENET/train --recipe fpn_public --output runs/fpn_public
    """
    return Recipe("fpn_public", sample=_with_cutout(_SAMPLE))


def fpn_public_400ep() -> Recipe:
    """SoCo-R50-FPN as its public code trains it, 400 epochs (its README: 43.0 AP with Mask R-CNN, COCO 1x).

    As `fpn_public`, without cutout.

    socodet pretrain IMAGENET/train --recipe fpn_public_400ep --output runs/fpn_public_400ep
    """
    return Recipe("fpn_public_400ep", sample=_SAMPLE, training=TrainingSettings(epochs=400))


def fpn_star_public() -> Recipe:
    """SoCo*-R50-FPN as its public code trains it, 400 epochs (its README: 43.2 AP with Mask R-CNN, COCO 1x).

    As `fpn_public_400ep` with four views: V3 shows V2 at 112 pixels, with V2's objects; V4 is a crop of its own at 192.

    socodet pretrain IMAGENET/train --recipe fpn_star_public --output runs/fpn_star_public
    """
    return Recipe(
        "fpn_star_public",
        sample=replace(_SAMPLE, views=(_V1, _V2, _V3, ViewSettings("crop", 192, _V2.photometric))),
        training=TrainingSettings(epochs=400),
    )


def c4_public() -> Recipe:
    """SoCo-R50-C4 as its public code trains it, 100 epochs (its README: 40.4 AP with Mask R-CNN R50-C4, COCO 1x).

    Crops of at least 0.6 of the image, no box jitter, cutout as in `fpn_public`, boxes pooled to 14x14.

    socodet pretrain IMAGENET/train --recipe c4_public --output runs/c4_public
    """
    two = replace(_SAMPLE, views=(_V1, _V2), crop_scale=(0.6, 1.0), jitter=0.0, level_rule="single")
    return Recipe("c4_public", sample=_with_cutout(two), model=ModelSettings(architecture="c4", pooled_size=14))


def c4_public_400ep() -> Recipe:
    """SoCo-R50-C4 as its public code trains it, 400 epochs (its README: 40.9 AP with Mask R-CNN R50-C4, COCO 1x).

    socodet pretrain IMAGENET/train --recipe c4_public_400ep --output runs/c4_public_400ep
    """
    return replace(c4_public(), name="c4_public_400ep", training=TrainingSettings(epochs=400))


def _with_cutout(sample: SampleSettings) -> SampleSettings:
    """Adds cutout on half of the boxes of every view but the first."""
    first, *others = sample.views
    return replace(sample, views=(first, *(replace(view, cutout_probability=0.5) for view in others)))
