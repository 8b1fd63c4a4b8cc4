"""`socodet pretrain`: from images to a run."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from socodet.commands.parsing import Flat, call, exit_if_stopped, goes_on, list_unreadable, value_of
from socodet.errors import InputError

if TYPE_CHECKING:
    from socodet.pretraining.settings import TrainingSettings


def pretrain(argv: Sequence[str]) -> None:
    """Pretrain backbone, FPN and box head on a folder of images, without labels."""
    from socodet.models.settings import ModelSettings, ObjectiveSettings
    from socodet.pretraining.recipes import RECIPES, Recipe, recipe
    from socodet.pretraining.settings import TrainingSettings
    from socodet.proposals.settings import ProposalSettings
    from socodet.training.settings import ExecutionSettings
    from socodet.views.settings import SampleSettings

    name = value_of("--recipe", argv)
    if name is None and not {"-h", "--help"} & set(argv):
        raise InputError(f"pretrain: --recipe is missing; choose one of {', '.join(RECIPES)}")
    base = recipe(name or "tiny")
    warmup = _shorter_warmup(base.training, argv)
    if warmup is not None:
        base = dataclasses.replace(base, training=dataclasses.replace(base.training, warmup_epochs=warmup))
    settings_flag = next((a for a in argv if a.startswith("--proposals.")), None)
    if settings_flag and value_of("--proposals", argv) not in (None, "online"):
        raise InputError(f"pretrain: {settings_flag} has no effect where --proposals gives a table; drop one of them")

    def arguments(
        images: tyro.conf.Positional[Path],
        output: Path,
        recipe: str,
        sample: Annotated[SampleSettings, Flat] = base.sample,
        model: Annotated[ModelSettings, Flat] = base.model,
        objective: Annotated[ObjectiveSettings, Flat] = base.objective,
        training: Annotated[TrainingSettings, Flat] = base.training,
        proposals: ProposalSettings = base.proposals,
        table: Annotated[str | None, tyro.conf.arg(name="proposals")] = None,
        start_from: Path | None = None,
        limit: int | None = None,
        probe_every: float | None = None,
        probe_dataset: Path | None = None,
        execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),  # noqa: B008
        resume: bool = False,
        overwrite: bool = False,
    ) -> Any:
        """Pretrain backbone, FPN and box head on a folder of images, without labels.

        The same command again goes on with a run that was interrupted. The flags' defaults are those of the
        recipe named by --recipe; where --epochs is given alone, warm-up takes a tenth of them at most.

        Args:
            images: Folder of images, nested or not; or a list of paths, a COCO file, tar shards, a dataset on disk.
            output: Folder of the run.
            recipe: Its name; `socodet recipes` lists them.
            table: Proposal table made by `socodet propose`; by default the run makes its own. `online` makes proposals
                in the data workers at each sight of an image, without a table, as the --proposals. flags say.
            start_from: First weights: a backbone's state dict, another run, an exported file, or a checkpoint of the
                method's public code.
            limit: Take so many of the images, picked by --seed.
            probe_every: Probe the network every so many epochs and at the end, as `socodet probe` does, into the log.
            probe_dataset: Annotated set to probe it on: a folder with a training and a validation split.
            resume: Go on with the run in the folder; no error when it is finished already.
            overwrite: Throw away the run that is in the folder.
        """
        from socodet.pretraining.pretrain import pretrain

        if warmup is not None:
            print(
                f"note: warm-up takes a tenth of so short a run, {warmup:g} epochs; --warmup-epochs sets it",
                file=sys.stderr,
            )
        return pretrain(
            images,
            Recipe(recipe, sample, model, training, proposals, objective),
            output,
            proposals=table,
            start_from=start_from,
            limit=limit,
            probe_every=probe_every,
            probe_dataset=probe_dataset,
            execution=execution,
            resume=resume,
            overwrite=overwrite,
        )

    result = call(arguments, "pretrain", argv)
    if not result.is_first:
        exit_if_stopped(result.stopped_by)
        return
    if result.finished:
        print(f"{result.run}: finished, {result.steps} steps; next: socodet export {result.run} --output FILE.pth")
    else:
        print(
            f"{result.run}: stopped by {result.stopped_by} after {result.steps} of {result.total_steps} steps"
            f"{goes_on(argv)}"
        )
    list_unreadable(result.unreadable)
    exit_if_stopped(result.stopped_by)


def _shorter_warmup(recipe: "TrainingSettings", argv: Sequence[str]) -> float | None:
    """A tenth of the epochs asked for, where the recipe's own warm-up would take more of them; else None."""
    epochs = value_of("--epochs", argv)
    try:
        asked = float(epochs) if epochs is not None and value_of("--warmup-epochs", argv) is None else recipe.epochs
    except ValueError:  # no number: the parser says so
        return None
    return asked / 10 if 0 < asked < recipe.epochs and asked / 10 < recipe.warmup_epochs else None
