"""`socodet recipes`: the recipes by name."""

from pathlib import Path

import tyro


def recipes(name: tyro.conf.Positional[str | None] = None, images: Path | None = None) -> None:
    """List the recipes, or print every field of one.

    Args:
        name: A recipe.
        images: Images to choose the settings of `auto` for.
    """
    from socodet.pretraining.recipes import describe_recipe, list_recipes

    print(list_recipes() if name is None else describe_recipe(name, images))
