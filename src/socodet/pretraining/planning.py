"""Plans the recipe `auto` from the images and this machine; an existing run keeps its recipe."""

from collections.abc import Callable, Collection
from dataclasses import fields, replace
from pathlib import Path

from socodet.errors import InputError
from socodet.images.source import ImageSource
from socodet.models.settings import ModelSettings
from socodet.models.soco import build_soco
from socodet.pretraining.preparation import refuse_other_length
from socodet.pretraining.recipes.auto import Plan, plan, recipe_for_timing
from socodet.pretraining.recipes.choices import Given, setting_of
from socodet.pretraining.recipes.recipe import Recipe
from socodet.pretraining.settings import LONGEST
from socodet.pretraining.step_time import BatchTooLargeError, seconds_per_step
from socodet.pretraining.survey import survey_images, this_machine
from socodet.proposals.settings import ONLINE
from socodet.runtime.log import LOGGER
from socodet.runtime.serialization import from_json
from socodet.runtime.world import world_from_environment
from socodet.training.devices import choose_device, idle_gpu, log_precision_note, precision_note, set_cublas_workspace
from socodet.training.run_folder import AUTO, RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.weights.load import load_starting_point
from socodet.weights.sizes import backbone_in_file

SMALLEST_BATCH = 8
"""A batch that does not fit into memory is halved, but not below this."""
LONG_STEP = 3.0
"""If a step on a CPU takes more seconds than this, the plan names the flags that shorten it."""


def plan_run(
    source: ImageSource,
    given: Given | None = None,
    *,
    execution: ExecutionSettings | None = None,
    show_progress: bool = False,
    check_start: bool = True,
) -> tuple[Plan, float | None]:
    """Surveys the images, times a step and chooses what is not given; returns the plan and the seconds per step.

    A batch that does not fit into memory is halved until it does. With several processes no step is timed, since all
    must make the same choices: the seconds are None, and `hours` raises InputError. With `check_start`, so do initial
    weights that have no place in the planned network.
    """
    given = given or Given()
    for name, value in (("epochs", given.epochs), ("hours", given.hours)):
        if value is not None and not 0 < value <= LONGEST:
            raise InputError(f"--{name} must be above 0 and at most {LONGEST:,.0f}, not {value}")
    execution = execution or ExecutionSettings()
    world = world_from_environment(rendezvous=False)
    if given.hours is not None and world.size > 1:
        raise InputError("--hours works with a single process only; give --epochs, so that all processes plan alike")
    if given.starts_from is not None:
        given = _with_modules_of_start(given, given.starts_from)
    machine = this_machine(choose_device(execution.device, world))
    survey = survey_images(source, show_progress=show_progress)
    if world.size > 1:
        return plan(survey, machine, given), None
    largest: int | None = None
    while True:
        network = recipe_for_timing(survey, machine, given, largest)
        if given.starts_from is not None and largest is None and check_start:  # before a step is timed
            load_starting_point(build_soco(network.model, 0), given.starts_from)
        try:
            seconds = seconds_per_step(
                network, source, execution, online=given.proposals == ONLINE, show_progress=show_progress
            )
        except BatchTooLargeError:
            smallest = max(SMALLEST_BATCH, given.accumulate or 1)
            if given.batch is not None or network.training.batch_size <= smallest:
                raise
            largest = network.training.batch_size // 2
        else:
            return plan(survey, machine, given, seconds_per_step=seconds, largest_batch=largest), seconds


def views_planned_for(source: ImageSource) -> Recipe:
    """The recipe planned for these images without timing a step; use only its views and proposals."""
    machine = this_machine(choose_device("auto", world_from_environment(rendezvous=False)))
    return recipe_for_timing(survey_images(source), machine)


def _with_modules_of_start(given: Given, start: str | Path) -> Given:
    """`given` with the module sizes of the run `start`, or the backbone of the file `start` if no backbone is given."""
    run = RunFolder(Path(start))
    if given.backbone is None and Path(start).is_file():
        return replace(given, backbone=backbone_in_file(start))
    if not run.exists() or "model" not in run.describe()["recipe"]:
        return given
    return replace(given, model=run.settings(ModelSettings, "model"))


def auto_recipe(
    source: ImageSource,
    run: RunFolder | None,
    given: Given | None = None,
    *,
    execution: ExecutionSettings | None = None,
    show_plan: bool = True,
    replaced: Collection[str] = (),
    say: Callable[[str], object] = LOGGER.info,
) -> Recipe:
    """The recipe that `run` was planned with if it has a checkpoint, otherwise a newly planned one; `say` reports it.

    `replaced`: flags with which the user overrides the plan; its lines name them.
    """
    if run is not None and run.exists() and run.checkpoints():
        noted = run.describe()["recipe"]
        if noted.get("name") == AUTO:
            if given is not None and given.epochs is not None:
                refuse_other_length(run, given.epochs, noted["training"]["epochs"])
            if show_plan:
                length = "" if given is None or given.hours is None else "; --hours no longer changes its length"
                say(f"{run.path}: continues with the recipe that was planned for it{length}")
            return from_json(Recipe, noted, f"{run.path}/run.json")
        run.refuse_other({"recipe": {"name": AUTO}}, {"recipe": {"name": noted.get("name")}})  # before planning
    execution = execution or ExecutionSettings()
    device = choose_device(execution.device, world_from_environment(rendezvous=False))
    if show_plan:
        unused = idle_gpu() if execution.device == "auto" else None
        if unused is not None:
            LOGGER.warning(f"note: {unused}")
        log_precision_note(execution.precision, device)
        LOGGER.info("sampling the images and timing a step")
    set_cublas_workspace(execution.deterministic)  # a step is timed
    sizes = {field.name for field in fields(ModelSettings)}
    planned_sizes = not any(setting_of(flag) in sizes for flag in replaced)
    made, seconds = plan_run(source, given, execution=execution, show_progress=show_plan, check_start=planned_sizes)
    if show_plan:
        lines = made.lines(len(source), seconds, replaced)
        if given is not None and given.probe_every is not None:
            lines.append("the probes of --probe-every come on top of that time")
        if device.type == "cpu" and seconds is not None and seconds > LONG_STEP:
            faster = " or --precision bfloat16" if precision_note(execution.precision, device) else ""
            lines.append(
                f"a step takes long on this CPU: a smaller --backbone, --views.0.size or --batch-size{faster} shortens "
                "it"
            )
        say("\n".join(lines))
    return made.recipe
