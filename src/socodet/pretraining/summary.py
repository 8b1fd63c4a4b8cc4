"""What a run of a named recipe says before its first step; the recipe `auto` has its own plan."""

from collections.abc import Iterator

from socodet.errors import InputError
from socodet.pretraining.recipes import RECIPES, Recipe
from socodet.pretraining.recipes import recipe as recipe_named
from socodet.pretraining.settings import TrainingSettings
from socodet.runtime.counted import counted
from socodet.runtime.extensions import is_extension
from socodet.runtime.world import World

NAMED = 8
"""Maximum number of changed settings that are named; run.json has all."""


def summary_lines(recipe: Recipe, images: int, world: World) -> Iterator[str]:
    """One line each: length, learning rate at this batch size, and settings that are not the recipe's own."""
    training = recipe.training
    steps, warmup = (training.steps(epochs, images) for epochs in (training.epochs, training.warmup_epochs))
    yield f"plan: {recipe.name} on {counted(images, 'image')}"
    yield (
        f"  length   {counted(steps, 'step')} of {counted(training.batch_size, 'image')}{_shares(training, world)}, "
        f"{counted(training.epochs, 'epoch')}"
    )
    rising = f"after {counted(warmup, 'step')} of" if warmup else "without"
    yield (
        f"  lr       {training.lr:.3g} {rising} warm-up; target momentum from "
        f"{training.target_momentum:.6g} to {training.final_target_momentum:.6g}"
    )
    warmup_epochs = training.warmup_epochs
    if recipe.name in RECIPES and warmup_epochs == training.epochs / 10 < RECIPES[recipe.name]().training.warmup_epochs:
        yield f"  warm-up  a tenth of so short a run: {counted(warmup_epochs, 'epoch')}; --warmup-epochs sets it"
    changed = list(changed_settings(recipe))
    if changed:
        more = [f"and {len(changed) - NAMED} more"] if len(changed) > NAMED else []
        yield f"  changed  {', '.join([*changed[:NAMED], *more])}"


def changed_settings(recipe: Recipe) -> Iterator[str]:
    """Flags whose values differ from those of the recipe of that name: `--batch-size 512 (not 2048)`."""
    unchanged = _unchanged(recipe.name)
    if unchanged is None:
        return
    shipped = dict(flag.split(" ", 1) for flag in unchanged.flags(brief=True))
    for flag in recipe.flags(brief=True):
        name, value = flag.split(" ", 1)
        own = shipped.get(name)
        if value != own:
            yield f"{flag} ({'new' if own in (None, 'None') else f'not {own}'})"
    gone = shipped.keys() - {flag.split(" ", 1)[0] for flag in recipe.flags()}
    yield from (f"no {name}" for name in shipped if name in gone)


def _unchanged(name: str) -> Recipe | None:
    """The recipe of that name, shipped or the user's own `module:name`; None if the name is not a recipe's."""
    if name not in RECIPES and not is_extension(name):
        return None
    try:
        return recipe_named(name)
    except InputError:  # a name given in Python, which no module has
        return None


def _shares(training: TrainingSettings, world: World) -> str:
    """How a batch is split among processes and micro-batches."""
    if world.size * training.accumulate == 1:
        return ""
    parts = [
        counted(world.size, "process", "processes") if world.size > 1 else "",
        counted(training.accumulate, "micro-batch", "micro-batches") if training.accumulate > 1 else "",
    ]
    each = training.batch_size // (world.size * training.accumulate)
    return f" ({' of '.join(filter(None, parts))} of {each:,})"
