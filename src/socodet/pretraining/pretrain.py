"""Pretraining: from images and a recipe to a run."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from socodet.detection.datasets.splits import MissingSplitError
from socodet.errors import InputError
from socodet.images.reading import read_images_like
from socodet.images.source import Images, as_source, digest_names, reading_of
from socodet.models.fused_norm import FusedBatchNorm2d
from socodet.models.soco import SoCo, build_soco
from socodet.pretraining.data import dataset_of
from socodet.pretraining.periodic_probe import probe_while_training
from socodet.pretraining.planning import auto_recipe
from socodet.pretraining.preparation import (
    check_before_planning,
    check_steps,
    prepare,
    sample_images,
    usable_images,
)
from socodet.pretraining.recipes import AUTO, ONLY_AUTO, Recipe
from socodet.pretraining.recipes import recipe as recipe_named
from socodet.pretraining.recipes.choices import Given
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.summary import summary_lines
from socodet.pretraining.trainer import Trainer, run_training
from socodet.probing.datasets import ProbeDatasets, open_probe_datasets
from socodet.proposals.image_boxes import compile_kernels
from socodet.proposals.settings import ONLINE
from socodet.proposals.table import ProposalTable
from socodet.runtime.counted import counted
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks
from socodet.runtime.log import LOGGER
from socodet.runtime.overwriting import refuse_to_delete
from socodet.runtime.serialization import to_json
from socodet.runtime.shown import Shown, ShownCurve, ShownPart, facts
from socodet.runtime.world import World, world_from_environment
from socodet.training.devices import choose_device, log_precision_note
from socodet.training.distributed import gather_to_first, in_every_process, join, require_same
from socodet.training.log import LogSink
from socodet.training.loop import require_shared_folder, resume_from_checkpoint
from socodet.training.run_folder import RunFolder
from socodet.training.settings import RESUME_OR_OVERWRITE, ExecutionSettings
from socodet.training.streams import Stream
from socodet.training.trackers import check_trackers
from socodet.views.rendering import warm_up
from socodet.weights.file import WeightsFile
from socodet.weights.hub import origin, reads_hub
from socodet.weights.load import load_starting_point


@dataclasses.dataclass(frozen=True)
class PretrainResult(Shown):
    """What a call of `pretrain` did: the run's folder, its progress, and the images that could not be read."""

    run: Path
    steps: int
    total_steps: int
    stopped_by: str | None
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
    pending: bool = False
    """Whether the probe after the last step was stopped; the same call repeats it."""
    is_first: bool = True
    """Whether this is the first of several processes, the one that prints."""

    @property
    def finished(self) -> bool:
        """Whether all steps of the recipe are done, and the probe after the last one."""
        return self.steps == self.total_steps and not self.pending

    def __str__(self) -> str:
        if self.finished:
            return f"{self.run}: finished, {counted(self.steps, 'step')}"
        before = ", before they were probed" if self.pending else ""
        steps = f"{self.steps:,} of {counted(self.total_steps, 'step')}"
        return f"{self.run}: stopped by {self.stopped_by} after {steps}{before}"

    def shown(self) -> list[ShownPart]:
        """What this call did, and the loss and the effective rank of the whole run."""
        lines = list(RunFolder(self.run).log_lines())
        titles = {"loss": "loss", "effective_rank": "effective rank"}
        curves = (ShownCurve.of_log(title, lines, field) for field, title in titles.items())
        return [facts(self), *(curve for found in curves for curve in found)]


@releases_folder_locks
@reads_hub("start_from")
def pretrain(
    images: Images,
    recipe: Recipe | str,
    output: str | Path,
    *,
    epochs: float | None = None,
    hours: float | None = None,
    proposals: str | Path | None = None,
    limit: int | None = None,
    start_from: str | Path | None = None,
    execution: ExecutionSettings | None = None,
    probe_every: float | None = None,
    probe_data: str | Path | ProbeDatasets | None = None,
    sinks: Sequence[LogSink] = (),
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> PretrainResult:
    """Pretrains on `images` with a recipe and writes the run to the folder `output`.

    Repeating the call resumes an unfinished run from its last checkpoint; the result equals that of an uninterrupted
    run, bit for bit on a CPU. If the folder holds a finished run, or one of another recipe or other images, the call is
    refused without `overwrite`; with `resume`, a finished run counts as success, for job scripts that repeat it.

    images: a folder of images, .tar shards, a COCO file, or a text file with an image path per line; a list of image
    files; or an ImageSource, an object with len(), key(index), read(index) and location (`socodet.images.source`).
    recipe: a name (`socodet.recipes()`) or a `Recipe`, such as recipe("tiny").with_(batch_size=32). "auto" chooses and
    shows settings for the images and the machine; `epochs` or `hours` (on this machine) set the length. A resumed run
    keeps the recipe it began with.
    epochs: length of the run, instead of the recipe's.
    proposals: a table made by `propose` for these images; by default the run makes its own first. "online" makes them
    in the data workers each time an image is used; the samples are the same if every image can be read.
    limit: use only this many of the images, chosen by the recipe's seed.
    start_from: initial weights instead of random ones: a state dict (a backbone's, a detector's, a checkpoint of the
    method's public code) or a run's folder. A resumed run loads its own checkpoint, so this file may be gone by then.
    probe_every, probe_data: every `probe_every` epochs and at the end, probe the network on the annotated objects of a
    folder with a training and a validation split, or of what `open_probe_datasets` returned (`probing/`). The results
    are logged and do not change what is learned.
    execution: device, precision, workers, checkpoints and logging (`ExecutionSettings`); may change on resume.
    sinks: objects with write and close, to which the first process also sends the log lines.
    show_progress: whether progress, notes and the plan are logged (logger `socodet`, to standard error).

    Started by torchrun or SLURM, all processes train one network, each on its share of every batch; the first makes
    the proposals and writes the folder. The result holds the run's folder, steps done and in total, what stopped it,
    unreadable images and seconds. An InputError says in one line what is wrong and how to fix it.
    """
    began = time.monotonic()
    if resume and overwrite:
        raise InputError(RESUME_OR_OVERWRITE)
    execution = execution or ExecutionSettings()
    if isinstance(recipe, str) and recipe != AUTO:
        recipe = recipe_named(recipe)
    source = as_source(images)
    if limit is not None:
        source = sample_images(source, limit, 0 if isinstance(recipe, str) else recipe.training.seed)
    with read_images_like(reading_of(source)):
        sets = _probe_sets(probe_every, probe_data)
    run, world = RunFolder(Path(output)), world_from_environment()
    if overwrite:
        refuse_to_delete(
            output, {"--start-from": start_from, "--proposals": None if proposals == ONLINE else proposals}
        )
    run.refuse_foreign()
    show_progress = show_progress and world.is_first
    if world.size == 1:  # before it is planned; several processes have to meet first
        check_trackers(execution.sink, world)
    if isinstance(recipe, str):  # auto
        check_before_planning(run, start_from, proposals, overwrite=overwrite)
        begun = None if overwrite else run
        recipe = auto_recipe(
            source,
            begun,
            Given(epochs=epochs, hours=hours, starts_from=start_from, proposals=proposals, probe_every=probe_every),
            execution=execution,
            show_plan=show_progress,
        )
    elif hours is not None:
        raise InputError(ONLY_AUTO)
    elif epochs is not None:
        recipe = recipe.with_(epochs=epochs)
    training = recipe.training
    _check_shares(training, world)

    join(world, choose_device(execution.device, world))
    if world.size > 1:
        settings = [to_json(recipe), to_json(dataclasses.replace(execution, workers=None)), probe_every]
        require_same(world, images=[digest_names(source), to_json(reading_of(source))], settings=settings)
        check_trackers(execution.sink, world)
    soco = build_soco(recipe.model, training.seed, recipe.objective, FusedBatchNorm2d)
    with in_every_process(world, f"{run.path}: another process could not prepare the run; see its message"):
        start, report = _load_start(soco, run, start_from, overwrite=overwrite)
        if world.is_first:
            lock_folder(run.path)
            prepare(run, source, recipe, proposals, start, overwrite=overwrite, show_progress=show_progress)
    require_shared_folder(run, world)
    with in_every_process(world, f"{run.path}: another process could not read the proposals; see its message"):
        table, indices, unreadable = usable_images(run, source, recipe, proposals)
    if world.is_first:
        run.note_skipped(unreadable)
    count = len(indices)
    check_steps(source, recipe, count)
    trainer = Trainer(soco, training, count, execution, world)
    resume_from_checkpoint(run, trainer, resume=resume, show_progress=show_progress)
    if show_progress:
        if recipe.name != AUTO and not trainer.finished:
            made = isinstance(table, ProposalTable) and table.origin is None
            used = dataclasses.replace(recipe, proposals=table.settings) if made else recipe
            LOGGER.info("\n".join(summary_lines(used, count, world)))
        for note in [*report, *_notes(training, count)]:
            LOGGER.info(note)
        if trainer.finished < trainer.total:
            log_precision_note(execution.precision, trainer.device)

    warm_up()  # compiles the kernels once, not in every data worker
    if proposals == ONLINE:
        compile_kernels(recipe.proposals.method)
    stopped_by, replaced = run_training(
        trainer,
        dataset_of(recipe, source, table, indices),
        Stream(indices, training.batch_size, training.seed, world, training.accumulate),
        run,
        execution,
        show_progress=show_progress,
        after_step=probe_while_training(trainer, recipe, sets, probe_every, execution),
        sinks=sinks,
    )
    why = "unreadable during training, or not of the size that its proposals were made for"
    lost = gather_to_first(world, [(source.key(index), why) for index in replaced])
    if world.is_first:
        run.note_skipped(lost)
    return PretrainResult(
        run=run.path,
        steps=trainer.finished,
        total_steps=trainer.total,
        stopped_by=stopped_by,
        unreadable=(*unreadable, *lost),
        seconds=time.monotonic() - began,
        pending=trainer.pending,
        is_first=world.is_first,
    )


def _check_shares(training: TrainingSettings, world: World) -> None:
    """InputError unless the batch divides among processes and micro-batches, and the processes among norm groups."""
    shares = world.size * training.accumulate
    if training.batch_size % shares:
        raise InputError(
            f"batch_size {training.batch_size} cannot be shared by {world.size} processes with {training.accumulate} "
            f"micro-batches each (accumulate); make it a multiple of {shares}"
        )
    group = training.norm_group
    if group is None:
        return
    if world.size % group:
        raise InputError(
            f"norm_group {group} does not divide the number of processes, {world.size}; set --norm-group to a divisor"
        )
    if training.batch_size // shares * group < 2:
        raise InputError(
            f"norm_group {group} leaves batch norm a single image; set a larger --norm-group, or --batch-size above "
            f"{shares}"
        )


def _load_start(
    soco: SoCo, run: RunFolder, start_from: str | Path | None, *, overwrite: bool
) -> tuple[dict[str, str] | None, list[str]]:
    """Loads the initial weights; returns their description for run.json, and lines that say what was loaded."""
    if start_from is None:
        return None, []
    if run.checkpoints() and not overwrite:  # the run resumes from its own checkpoint
        return {"from": origin(start_from)}, []
    report = load_starting_point(soco, start_from)
    return WeightsFile.find(start_from).describe(start_from), [str(report)]


def _notes(training: TrainingSettings, images: int) -> Iterator[str]:
    """Notes on batches that may surprise the user."""
    size, parts = training.batch_size, training.accumulate
    if parts > 1:
        yield f"note: batch norm takes its statistics over {size // parts} images, one of {parts} micro-batches"
    if size > images:
        yield (
            f"note: a batch of {size} shows each of {images} images {size / images:.1f} times; --batch-size makes it "
            "smaller"
        )


def _probe_sets(every: float | None, dataset: str | Path | ProbeDatasets | None) -> ProbeDatasets | None:
    """The sets to probe on, before anything else is done. InputError when only one of the two is given."""
    if every is None and dataset is None:
        return None
    if every is None or dataset is None:
        raise InputError("--probe-every and --probe-data need each other; give both, or neither")
    if not every > 0:
        raise InputError(f"--probe-every must be above 0 epochs, not {every:g}")
    if isinstance(dataset, ProbeDatasets):
        return dataset
    try:
        return open_probe_datasets(dataset)
    except MissingSplitError:
        command = "socodet convert SET --split {} --val-share 0.2"
        raise InputError(
            f"{dataset}: lacks a split; --probe-data takes a folder with a training and a validation split; to make "
            f"one, write FOLDER/train.json with `{command.format('train')}` and FOLDER/val.json with "
            f"`{command.format('val')}`"
        ) from None
