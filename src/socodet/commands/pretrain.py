"""`socodet pretrain`: from images to a run."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import tyro

from socodet.commands.messages import list_unreadable, resume_hint
from socodet.commands.parsing import HELP, Flat, parse, reads_images, values_of
from socodet.errors import InputError
from socodet.images.reading import read_images_as
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.pretraining.recipes import AUTO, Recipe
from socodet.pretraining.recipes import recipe as recipe_named
from socodet.pretraining.settings import TrainingSettings
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.log import LOGGER
from socodet.runtime.world import world_from_environment
from socodet.training.settings import ExecutionSettings
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings
from socodet.weights.pretrained_run import is_short_run, only_its_backbone

EVERYDAY = (
    *("images", "output", "recipe", "epochs", "hours", "limit", "dry-run", "batch-size", "backbone", "start-from"),
    *("proposals", "seed", "device", "workers", "resume", "overwrite"),
)


_PLAN: list[str] = []
"""The plan, which a dry run prints."""


def defaults(argv: Sequence[str]) -> dict[str, Any]:
    """Default settings are those of --recipe, with a warm-up that fits into --epochs.

    `auto` first surveys the images, so the flags are parsed twice, the first time to find the images.
    """
    name = (values_of("--recipe", argv) or [AUTO])[-1]
    if name == AUTO:
        if HELP & set(argv):
            return {}
        given = parse(pretrain, "pretrain", argv, {"training": TrainingSettings(warmup_epochs=0)})
        if _settings_flags() | PLANNED <= {_flag(word).removeprefix("no-") for word in argv}:
            return {}  # every setting is given, for example by a configuration file
        asked = signature(pretrain).bind(*given.args, **given.keywords)
        asked.apply_defaults()
        base = _planned(argv, asked.arguments)
    else:
        base = recipe_named(name)
        fixes = {"--hours": "give --epochs instead, or leave out", "--dry-run": "leave out --dry-run, or"}
        for flag, fix in fixes.items():
            if flag in {argument.split("=")[0] for argument in argv}:
                raise InputError(f"pretrain: {flag} works with --recipe {AUTO}, not {name}; {fix} --recipe {name}")
    groups = {group: getattr(base, group) for group in ("sample", "model", "objective", "training", "proposals")}
    if name != AUTO and not values_of("--warmup-epochs", argv):
        for epochs in values_of("--epochs", argv)[-1:]:
            with suppress(ValueError):  # the parser reports it
                groups["training"] = replace(base.training, warmup_epochs=base.training.warmup_for(float(epochs)))
    return {"recipe": name, **groups}


def _planned(argv: Sequence[str], asked: Mapping[str, Any]) -> Recipe:
    """The recipe that `auto` chooses for these arguments of `pretrain`; prints its plan."""
    from socodet.images.source import open_images
    from socodet.pretraining.planning import auto_recipe
    from socodet.pretraining.preparation import check_before_planning, sample_images
    from socodet.pretraining.recipes.choices import Given
    from socodet.training.run_folder import RunFolder

    training: TrainingSettings = asked["training"]
    with read_images_as(asked["pixels"]):
        source = open_images(asked["images"])
    if asked["limit"] is not None:
        source = sample_images(source, asked["limit"], training.seed)
    given = Given(
        epochs=training.epochs if values_of("--epochs", argv) else None,
        hours=asked["hours"],
        batch=training.batch_size if values_of("--batch-size", argv) else None,
        accumulate=training.accumulate if values_of("--accumulate", argv) else None,
        backbone=asked["model"].backbone if values_of("--backbone", argv) else None,
        size=asked["sample"].views[0].size if values_of("--views.0.size", argv) else None,
        starts_from=asked["start_from"],
        proposals=asked["table"],
        probe_every=asked["probe_every"],
        whole_images="image" in values_of("--architecture", argv)[-1:],
    )
    folder = RunFolder(asked["output"])
    check_before_planning(folder, asked["start_from"], asked["table"], overwrite=asked["overwrite"])
    run = None if asked["overwrite"] else folder
    first = world_from_environment(rendezvous=False).is_first
    flags = _settings_flags()
    given_flags = [argument.split("=")[0] for argument in argv if _flag(argument) in flags]
    taken = {"--views.0.size"} | ({"--architecture"} if given.whole_images else set())
    overriding = [flag for flag in dict.fromkeys(given_flags) if flag not in taken]
    if overriding and first:
        LOGGER.info(
            f"note: {', '.join(overriding)}: used instead of the planned values; the other settings, the steps and the "
            "estimated time stay as planned"
        )
    _PLAN.clear()
    say = _PLAN.append if asked["dry_run"] else LOGGER.info
    return auto_recipe(source, run, given, execution=asked["execution"], show_plan=first, replaced=overriding, say=say)


def _flag(argument: str) -> str:
    """A flag's name without its value and without the prefix up to the last dot."""
    return argument.split("=")[0].rpartition(".")[2].removeprefix("--") if argument.startswith("--") else ""


def _settings_flags() -> set[str]:
    """Names of the flags for settings that the plan chooses, except those that it takes as given."""
    groups = (SampleSettings, ViewSettings, PhotometricSettings, ModelSettings, ObjectiveSettings, TrainingSettings)
    names = {field.name for group in (*groups, ProposalSettings) for field in fields(group)}
    length_and_groups = {"epochs", "seed", "views", "photometric", "proposals"}
    return {name.replace("_", "-") for name in names} - length_and_groups - PLANNED


PLANNED = {"batch-size", "accumulate", "backbone"}
"""Flags that the plan takes into account, besides the length and the side of the first view."""


@reads_images
def pretrain(
    images: tyro.conf.Positional[Path],
    output: Path,
    recipe: str = AUTO,
    sample: Annotated[SampleSettings, Flat] = SampleSettings(),
    model: Annotated[ModelSettings, Flat] = ModelSettings(),
    objective: Annotated[ObjectiveSettings, Flat] = ObjectiveSettings(),
    training: Annotated[TrainingSettings, Flat] = TrainingSettings(),
    proposals: ProposalSettings = ProposalSettings(),
    table: Annotated[str | None, tyro.conf.arg(name="proposals")] = None,
    start_from: Path | None = None,
    limit: int | None = None,
    hours: float | None = None,
    dry_run: bool = False,
    probe_every: float | None = None,
    probe_data: Path | None = None,
    execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),
    resume: bool = False,
    overwrite: bool = False,
) -> Any:
    """Pretrain backbone, FPN and box head on a folder of images, without labels.

    Without --recipe, the settings are chosen to suit the images and the machine, and shown with their reasons. The same
    command resumes an interrupted run. With a named recipe, the flags default to its values; with --epochs, warm-up
    takes at most a tenth of them.

    Args:
        images: Folder of images, nested or not; pattern such as '*.jpg', list of paths, COCO file, tar shards, or saved
            Hugging Face dataset.
        output: Folder of the run.
        recipe: auto, or a name that `socodet recipes` lists.
        table: Proposal table made by `socodet propose`; by default the run makes its own. `online` makes proposals
            in the data workers each time an image is used, without a table. A run's own proposals follow the flags
            --proposals.*.
        start_from: Initial weights: a backbone's state dict, another run, an exported file, or a checkpoint of the
            method's public code.
        limit: Use at most this many images, chosen by --seed.
        hours: With --recipe auto: how long the run's steps may take on this machine, as an alternative to --epochs.
            Making proposals takes additional time.
        dry_run: With --recipe auto: show the plan and stop.
        probe_every: Probe the network every this many epochs and at the end, as `socodet probe` does, and log the
            scores.
        probe_data: Annotated dataset to probe on: a folder with a training and a validation split.
        resume: Resume the run in the folder; no error if it is already finished.
        overwrite: Delete the run in the folder.
    """
    from socodet.pretraining.pretrain import pretrain

    if dry_run:
        if world_from_environment(rendezvous=False).is_first:
            print("\n".join(_PLAN) or "every setting is given, so nothing is left to plan")
        return Recipe(recipe, sample, model, training, proposals, objective)
    base = Recipe(AUTO, sample, model, training, proposals, objective) if recipe == AUTO else recipe_named(recipe)
    if proposals != base.proposals and table not in (None, "online"):
        raise InputError("pretrain: --proposals.… has no effect if --proposals gives a table; leave out one of them")
    result = pretrain(
        images,
        Recipe(recipe, sample, model, training, proposals, objective),
        output,
        proposals=table,
        start_from=start_from,
        limit=limit,
        probe_every=probe_every,
        probe_data=probe_data,
        execution=execution,
        resume=resume,
        overwrite=overwrite,
    )
    if result.is_first:
        if result.finished:
            run = shlex.quote(str(result.run))
            short = is_short_run(result.run) and not only_its_backbone(result.run)
            print(
                f"{result}\nnext:\n"
                f"  socodet probe {run} --data SET --untrained\n"
                f"  socodet finetune SET --init {run}{' --backbone-only' if short else ''} --output DETECTOR\n"
                f"  socodet export {run} --output FILE.pth"
            )
            if short:
                print("--backbone-only: after short runs the backbone alone gave better detectors (docs/results.md)")
        else:
            print(f"{result}{resume_hint(overwrite)}")
        list_unreadable(result.unreadable)
    return result
