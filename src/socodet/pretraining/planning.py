"""From images and this machine to the recipe `auto`; a run that exists keeps the one it began with."""

import math
import sys

from socodet.errors import InputError
from socodet.images.source import ImageSource
from socodet.pretraining.recipes import AUTO, Recipe
from socodet.pretraining.recipes.auto import Plan, network_of, plan
from socodet.pretraining.step_time import seconds_per_step
from socodet.pretraining.survey import survey_images, this_machine
from socodet.runtime.serialization import from_json
from socodet.runtime.world import world_from_environment
from socodet.training.devices import choose_device
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings


def plan_run(
    source: ImageSource,
    *,
    epochs: float | None = None,
    hours: float | None = None,
    execution: ExecutionSettings | None = None,
) -> tuple[Plan, float | None]:
    """Surveys the images, times a step, and chooses the settings: the plan, and seconds per step.

    Of several processes none times a step, since they must agree: the seconds are then None, and `hours` an InputError.
    """
    for name, value in (("epochs", epochs), ("hours", hours)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name} must be above 0 and finite, not {value}")
    execution = execution or ExecutionSettings()
    world = world_from_environment(meeting=False)
    if hours is not None and world.size > 1:
        raise InputError("--hours is for a single process; give --epochs, so that all processes plan alike")
    survey, machine = survey_images(source), this_machine(choose_device(execution.device, world))
    seconds = seconds_per_step(network_of(survey, machine), source, execution) if world.size == 1 else None
    return plan(survey, machine, epochs=epochs, hours=hours, seconds_per_step=seconds), seconds


def auto_recipe(
    source: ImageSource,
    run: RunFolder | None,
    *,
    epochs: float | None = None,
    hours: float | None = None,
    execution: ExecutionSettings | None = None,
    show_plan: bool = True,
) -> Recipe:
    """The recipe that `run` was planned with, if it has begun to learn; else a new plan's. What it is, is shown."""
    if run is not None and run.exists() and run.checkpoints():
        fields = run.describe()["recipe"]
        if fields.get("name") == AUTO:
            if show_plan:
                print(f"{run.path}: is resumed with the recipe it was planned with", file=sys.stderr)
            return from_json(Recipe, fields, f"{run.path}/run.json")
    if show_plan:
        print("looking at the images and timing a step", file=sys.stderr)
    made, seconds = plan_run(source, epochs=epochs, hours=hours, execution=execution)
    if show_plan:
        print("\n".join(made.lines(len(source), seconds)), file=sys.stderr)
    return made.recipe
