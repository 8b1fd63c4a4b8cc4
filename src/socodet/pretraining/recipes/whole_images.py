"""The image-level baseline: a recipe's backbone learns from whole images, as in Table 4's first row."""

from collections.abc import Iterable
from dataclasses import replace

from socodet.pretraining.recipes.choices import Choice
from socodet.pretraining.recipes.paper import table4
from socodet.pretraining.recipes.recipe import Recipe


def image_level_recipe(soco: Recipe) -> Recipe:
    """Table 4's first row with the training, the backbone, and the first two views' sizes and colours of `soco`."""
    baseline = table4()["table4_whole_image"]()
    views = tuple(
        replace(view, size=own.size, photometric=own.photometric)
        for view, own in zip(baseline.sample.views, soco.sample.views, strict=False)
    )
    return replace(
        soco,
        sample=replace(baseline.sample, views=views),
        model=replace(soco.model, architecture=baseline.model.architecture, rpn_weight=0.0),
    )


def image_level_choices(choices: Iterable[Choice], recipe: Recipe) -> list[Choice]:
    """A plan's choices, adapted to that recipe."""
    sizes = ", ".join(str(view.size) for view in recipe.sample.views)
    values = {
        "network": (f"{recipe.model.backbone} alone", None),
        "views": (f"{sizes} pixels", None),
        "proposals": ("not used", "each whole image is one box"),
    }
    found = []
    for one in choices:
        value, reason = values.get(one.what, (one.value, None))
        found.append(Choice(one.what, value, reason or one.reason.partition("; the rest")[0]))
    return found
