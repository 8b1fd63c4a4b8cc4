"""`socodet recipes`: the recipes by name."""

import tyro


def recipes(name: tyro.conf.Positional[str | None] = None) -> None:
    """List the recipes, or print every field of one.

    Args:
        name: A recipe.
    """
    from socodet.pretraining.recipes import describe_recipe, list_recipes

    print(list_recipes() if name is None else describe_recipe(name))
