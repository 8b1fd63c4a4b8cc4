"""Recipes by name: each is a function that combines the settings of the rooms below."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from socodet.errors import InputError, which_instead
from socodet.pretraining.recipes import paper, practical, public
from socodet.pretraining.recipes.recipe import Recipe
from socodet.runtime.extensions import is_extension, made
from socodet.runtime.serialization import to_json

__all__ = ["AUTO", "RECIPES", "Recipe", "describe_recipe", "list_recipes", "recipe", "recipes"]

_SINGLE = (
    *(paper.fpn_100ep, paper.fpn_400ep, paper.fpn_star_400ep, paper.c4_100ep, paper.c4_400ep),
    *(paper.coco_100ep, paper.coco_530ep, paper.imagenet_subset_100ep),
    *(public.fpn_public, public.fpn_public_400ep, public.fpn_star_public, public.c4_public, public.c4_public_400ep),
    *(practical.fpn_single_gpu, practical.rt_detr_100ep, practical.tiny),
)
AUTO = "auto"
"""The recipe chosen from the images and the machine; its rules are in `auto.py`."""
RECIPES: dict[str, Callable[[], Recipe]] = {
    **{function.__name__: function for function in _SINGLE},
    **paper.table4(),
    **paper.table5(),
}


def recipe(
    name: str, *, images: str | Path | None = None, epochs: float | None = None, hours: float | None = None
) -> Recipe:
    """The recipe of that name, or of the user's `module:name`. InputError for an unknown one.

    `auto` is planned for `images`, as `pretrain` takes them; `epochs` or `hours` set its length.
    """
    if name == AUTO:
        from socodet.images.source import open_images
        from socodet.pretraining.planning import auto_recipe
        from socodet.pretraining.recipes.auto import Given

        if images is None:
            raise InputError("recipe 'auto': depends on the images; say where they are (images, --images)")
        return auto_recipe(open_images(images), None, Given(epochs=epochs, hours=hours), show_plan=False)
    if is_extension(name):
        return dataclasses.replace(made(name, Recipe), name=name)
    if name not in RECIPES:
        raise InputError(f"recipe {name!r}: unknown; {which_instead(name, (AUTO, *RECIPES))}")
    return RECIPES[name]()


def recipes() -> list[str]:
    """The names of all recipes."""
    return [AUTO, *RECIPES]


def list_recipes() -> str:
    """One line per recipe: its name and what it is."""
    width = max(map(len, RECIPES))
    first = f"{AUTO:<{width}}  The default: every setting chosen from the images and the machine, each with a reason."
    return "\n".join([first, *(f"{name:<{width}}  {_first_line(function)}" for name, function in RECIPES.items())])


def describe_recipe(chosen: Recipe, images: str | Path | None = None) -> str:
    """What a recipe is, and each field as a command-line flag; `images` are those that `auto` is planned for."""
    fields = to_json(chosen)
    shipped = RECIPES.get(chosen.name)
    about = f"Chosen for {images}." if chosen.name == AUTO else inspect.getdoc(shipped) if shipped else chosen.name
    lines = [about or "", ""]
    for room in ("sample", "model", "objective", "training", "proposals"):
        prefix = "proposals." if room == "proposals" else ""
        lines += [f"--{prefix}{field} {value}" for field, value in _flags(fields[room])]
    return "\n".join(lines)


def _first_line(function: Callable[[], Recipe]) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]


def _flags(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as (flag, value) pairs."""
    flags: list[tuple[str, str]] = []
    for key, item in value.items():
        name = key.replace("_", "-")
        if isinstance(item, dict):
            flags += [(f"{name}.{inner}", text) for inner, text in _flags(item)]
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            nested = _flags({str(i): part for i, part in enumerate(item)})
            flags += [(f"{name}.{inner}", text) for inner, text in nested]
        elif isinstance(item, list):
            flags.append((name, " ".join(map(str, item))))
        else:
            flags.append((name, str(item)))
    return flags
