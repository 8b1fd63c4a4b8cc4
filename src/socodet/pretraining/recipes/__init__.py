"""Recipes by name: each is a function that combines groups of settings."""

import dataclasses
import html
import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from socodet.errors import InputError, suggest_names
from socodet.pretraining.recipes import paper, practical, public
from socodet.pretraining.recipes.recipe import Recipe
from socodet.runtime.extensions import is_extension, resolve_extension
from socodet.training.run_folder import AUTO

__all__ = ["AUTO", "RECIPES", "Recipe", "describe_recipe", "list_recipes", "recipe", "recipes"]

_SINGLE = (
    *(practical.tiny, practical.fpn_single_gpu, practical.rt_detr_100ep),
    *(paper.fpn_100ep, paper.fpn_400ep, paper.fpn_star_400ep, paper.c4_100ep, paper.c4_400ep),
    *(paper.coco_100ep, paper.coco_530ep, paper.imagenet_subset_100ep),
    *(public.fpn_public, public.fpn_public_400ep, public.fpn_star_public, public.c4_public, public.c4_public_400ep),
)
ONLY_AUTO = "hours works only with the recipe 'auto'; give epochs"
NARROWEST = 30
"""Columns that a text needs beside a name; with fewer, it goes below the name."""
RECIPES: dict[str, Callable[[], Recipe]] = {
    **{function.__name__: function for function in _SINGLE},
    **paper.table4(),
    **paper.table5(),
}


def recipe(
    name: str,
    *,
    images: str | Path | Sequence[str | Path] | None = None,
    epochs: float | None = None,
    hours: float | None = None,
    whole_images: bool = False,
    show_progress: bool = True,
) -> Recipe:
    """The recipe of that name, or the user's own by `module:name`. InputError for an unknown one.

    `auto` is planned for `images`, given as to `pretrain`; `epochs` or `hours` (on this machine) set its length. The
    plan, with a reason for each choice, and the planning progress are logged (logger `socodet`, to standard error).
    With `whole_images` the backbone alone is pretrained, on whole images, as a baseline. For other recipes, `epochs`
    sets the length as `with_(epochs=...)` does, and `hours` and `whole_images` raise InputError.
    """
    if name == AUTO:
        from socodet.images.source import as_source
        from socodet.pretraining.planning import auto_recipe
        from socodet.pretraining.recipes.choices import Given

        if images is None:
            raise InputError("recipe 'auto': depends on the images; say where they are (images, --images)")
        given = Given(epochs=epochs, hours=hours, whole_images=whole_images)
        return auto_recipe(as_source(images), None, given, show_plan=show_progress)
    if is_extension(name):
        chosen = dataclasses.replace(resolve_extension(name, Recipe), name=name)
    elif name in RECIPES:
        chosen = RECIPES[name]()
    else:
        raise InputError(
            f"recipe {name!r}: unknown; {suggest_names(name, (AUTO, *RECIPES), 'socodet recipes lists all')}"
        )
    if hours is not None:
        raise InputError(ONLY_AUTO)
    if whole_images:
        raise InputError(f"whole_images works with the recipe auto, not {name}; see also table4_whole_image")
    return chosen if epochs is None else chosen.with_(epochs=epochs)


class RecipeNames(list[str]):
    """Names of recipes; printed, each has a line that says what it is."""

    def __str__(self) -> str:
        return list_recipes()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def recipes() -> RecipeNames:
    """The names of all recipes."""
    return RecipeNames([AUTO, *RECIPES])


def list_recipes(columns: int = 0) -> str:
    """One line per recipe: its name and what it is; wrapped to `columns`, unless that is 0."""
    about = {AUTO: "The default: every setting chosen from the images and the machine, each with a reason."}
    about |= {name: _first_line(function) for name, function in RECIPES.items()}
    width = max(map(len, about)) + 2
    if not columns:
        return "\n".join(f"{name:<{width}}{text}" for name, text in about.items())
    beside = columns >= width + NARROWEST
    lines: list[str] = []
    for name, text in about.items():
        indent = " " * (width if beside else 2)
        first = f"{name:<{width}}" if beside else indent
        lines += [] if beside else [name]
        lines += textwrap.wrap(text, columns, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)


def describe_recipe(chosen: Recipe, images: str | Path | Sequence[str | Path] | None = None) -> str:
    """What a recipe is, and each field as a command-line flag; `images` are those that `auto` is planned for."""
    shipped = RECIPES.get(chosen.name)
    about = f"Chosen for {images}." if chosen.name == AUTO else inspect.getdoc(shipped) if shipped else chosen.name
    return "\n".join([about or "", "", *chosen.flags()])


def _first_line(function: Callable[[], Recipe]) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]
