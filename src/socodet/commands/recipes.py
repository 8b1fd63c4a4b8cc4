"""`socodet recipes`: what can be run by name."""

from collections.abc import Sequence

import tyro

from socodet.commands.parsing import call


def recipes(argv: Sequence[str]) -> None:
    """List the recipes, or print every field of one."""
    from socodet.pretraining.recipes import describe_recipe, list_recipes

    def arguments(name: tyro.conf.Positional[str | None] = None) -> str:
        """List the recipes, or print every field of one.

        Args:
            name: A recipe.
        """
        return list_recipes() if name is None else describe_recipe(name)

    print(call(arguments, "recipes", argv))
