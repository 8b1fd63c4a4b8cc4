"""`socodet recipes`: the recipes by name."""

import shutil
from pathlib import Path
from typing import Any

import tyro

from socodet.errors import InputError


def recipes(name: tyro.conf.Positional[str | None] = None, images: Path | None = None) -> Any:
    """List the recipes, or print every field of one.

    Args:
        name: Recipe to print.
        images: For `auto`: the images to choose its settings for.
    """
    from socodet.pretraining.recipes import AUTO, RECIPES, describe_recipe, list_recipes, recipe

    if name is None and images is not None:
        raise InputError(f"recipes: --images has an effect only on {AUTO}; use socodet recipes {AUTO} --images …")
    if name is None:
        print(list_recipes(shutil.get_terminal_size((0, 0)).columns))  # 0 in a pipe
        return [AUTO, *RECIPES]
    if images is not None and name != AUTO:
        raise InputError(f"recipes: --images has no effect on {name}, only on {AUTO}; leave it out")
    chosen = recipe(name, images=images)
    print(describe_recipe(chosen, images))
    return chosen
