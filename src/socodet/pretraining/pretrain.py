"""`socodet pretrain`: from images and a recipe to a run."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from socodet.errors import InputError
from socodet.images.source import ImageSource, open_images, white_of
from socodet.models.encoders import build_encoder
from socodet.models.objective import build_objective
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.models.soco import SoCo
from socodet.pretraining import recipes
from socodet.pretraining.data import SampleDataset, SampleStream
from socodet.pretraining.preparation import ONLINE, check_steps, prepare, readable_images, some_images
from socodet.pretraining.recipes import Recipe
from socodet.pretraining.trainer import Trainer, run_training
from socodet.probing.periodic import probe_while_training
from socodet.probing.sets import ProbeSets, open_sets
from socodet.proposals.image_boxes import compile_kernels
from socodet.proposals.on_the_fly import OnlineProposals
from socodet.proposals.table import ProposalTable
from socodet.runtime.world import world_from_environment
from socodet.training.devices import choose_device
from socodet.training.distributed import any_process, join
from socodet.training.log import LogSink
from socodet.training.loop import resume_from_checkpoint
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.views import warm_up
from socodet.weights.load import load_starting_point
from socodet.weights.read import WeightsFile


@dataclasses.dataclass(frozen=True)
class PretrainResult:
    """What a call of `pretrain` did: the run's folder, how far it is, and the images that could not be read."""

    run: Path
    steps: int
    total_steps: int
    stopped_by: str | None
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
    is_first: bool = True
    """Of several processes, whether this is the one that speaks."""

    @property
    def finished(self) -> bool:
        """Whether every step of the recipe is done."""
        return self.steps == self.total_steps


def build_soco(settings: ModelSettings, seed: int, objective: ObjectiveSettings | None = None) -> SoCo:
    """Randomly initialised networks; the same for the same seed. The caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SoCo(build_encoder(settings), settings, build_objective(objective or ObjectiveSettings()))


def pretrain(
    images: str | Path | ImageSource,
    recipe: Recipe | str,
    output: str | Path,
    *,
    proposals: str | Path | None = None,
    limit: int | None = None,
    start_from: str | Path | None = None,
    execution: ExecutionSettings | None = None,
    probe_every: float | None = None,
    probe_dataset: str | Path | ProbeSets | None = None,
    sinks: Sequence[LogSink] = (),
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> PretrainResult:
    """Pretrains on a folder of images as the recipe says, into the run folder `output`.

    The same call again goes on with an unfinished run, from its last checkpoint; the result is the run that
    was never interrupted, bit for bit on a CPU. A finished run, or one of another recipe or other images, is
    refused unless `overwrite`; `resume` makes a finished run a success instead, for job scripts that start
    the same command again and again.

    `proposals` is a table made by `propose` for these images; without it the run makes its own first. "online" makes
    them in the data workers, again at each sight of an image, and no table: the samples are the same where every image
    can be read.
    `limit` takes so many of the images, picked by the recipe's seed. `start_from` is a state dict (a backbone's, a
    detector's, a checkpoint of the method's public code) or a run's folder: the networks begin there and not at
    random (`weights/load.py`). Going on with such a run takes its own checkpoint; the file may be gone.
    Every `probe_every` epochs and at the end, annotated objects of `probe_dataset`, a folder with a training and a
    validation split or what `open_sets` returned, tell what the network knows of them (`probing/`); the
    figures become lines of the log. What is learned does not depend on it.
    `sinks` receive the log lines besides the run's folder, in the first process.
    Started by torchrun or SLURM, all processes train one network, each on its share of every batch; the first makes
    the proposals and writes the folder.
    `InputError` says in one line what cannot be used and how to mend it.
    """
    began = time.monotonic()
    source = open_images(images) if isinstance(images, str | Path) else images
    chosen = recipes.recipe(recipe) if isinstance(recipe, str) else recipe
    execution = execution or ExecutionSettings()
    training = chosen.training
    sets = _probe_sets(probe_every, probe_dataset)
    if limit is not None:
        source = some_images(source, limit, training.seed)
    run = RunFolder(Path(output))
    world = world_from_environment()
    if training.batch_size % (world.size * training.accumulate):
        raise InputError(
            f"batch_size {training.batch_size} cannot be shared by {world.size} processes in {training.accumulate} "
            f"parts each (accumulate); make it a multiple of {world.size * training.accumulate}"
        )
    join(world, choose_device(execution.device, world))
    show_progress = show_progress and world.is_first
    soco = build_soco(chosen.model, training.seed, chosen.objective)
    report = None
    failure: InputError | None = None
    try:
        start = None
        if start_from is not None and run.checkpoints() and not overwrite:
            start = {"from": str(Path(start_from).resolve())}  # the run's own checkpoint is what it goes on from
        elif start_from is not None:
            report = load_starting_point(soco, start_from)
            start = WeightsFile.find(start_from).describe(start_from)
        if world.is_first:
            prepare(run, source, chosen, proposals, start, overwrite=overwrite, show_progress=show_progress)
    except InputError as error:
        failure = error
    if any_process(world, failure is not None):
        raise failure or InputError(f"{run.path}: another process could not prepare the run; see what it says")
    table: ProposalTable | OnlineProposals
    unreadable: list[tuple[str, str]]
    if proposals == ONLINE:
        table = OnlineProposals(chosen.proposals, white_of(source))
        readable, unreadable = np.arange(len(source)), []
    else:
        table = ProposalTable.read(run.proposals if proposals is None else proposals)
        readable, unreadable = readable_images(source, table)
    trainer = Trainer(soco, training, len(readable), execution, world)
    check_steps(source, chosen, len(readable))
    if report is not None and show_progress:
        print(report, file=sys.stderr)
    resume_from_checkpoint(run, trainer, resume=resume, show_progress=show_progress)
    if show_progress and training.accumulate > 1:
        part = training.batch_size // training.accumulate
        print(f"note: batch norm is over the {part} images of each of {training.accumulate} parts", file=sys.stderr)
    if show_progress and training.batch_size > len(readable):
        times = training.batch_size / len(readable)
        print(
            f"note: a batch of {training.batch_size} shows each of {len(readable)} images {times:.1f} times; "
            "--batch-size makes it smaller",
            file=sys.stderr,
        )
    warm_up()
    if proposals == ONLINE:
        compile_kernels(chosen.proposals.method)
    dataset = SampleDataset(source, table, readable, chosen.sample, training.seed)
    stream = SampleStream(readable, training.batch_size, training.seed, world, training.accumulate)
    after_step = None
    if sets is not None and probe_every is not None:
        after_step = probe_while_training(
            soco.online.encoder,
            chosen.model,
            chosen.sample,
            sets,
            every=probe_every,
            epochs=training.epochs,
            total=trainer.total,
            device=trainer.device,
            is_first=world.is_first,
            execution=execution,
        )
    result = run_training(
        trainer, dataset, stream, run, execution, show_progress=show_progress, after_step=after_step, sinks=sinks
    )
    why = "unreadable during training, or of another size than its proposals were made for"
    lost = [(source.key(index), why) for index in sorted(result.unreadable)]
    return PretrainResult(
        run=run.path,
        steps=trainer.finished,
        total_steps=trainer.total,
        stopped_by=result.stopped_by,
        unreadable=(*unreadable, *lost),
        seconds=time.monotonic() - began,
        is_first=world.is_first,
    )


def _probe_sets(every: float | None, dataset: str | Path | ProbeSets | None) -> ProbeSets | None:
    """The sets to probe on, before anything else is done. InputError when only one of the two is given."""
    if every is None and dataset is None:
        return None
    if every is None or dataset is None:
        raise InputError("--probe-every and --probe-dataset need each other; give both, or neither")
    if not every > 0:
        raise InputError(f"--probe-every must be above 0 epochs, not {every:g}")
    return dataset if isinstance(dataset, ProbeSets) else open_sets(dataset)
