"""`socodet finetune`: from pretrained weights and an annotated set to a detector and its scores."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socodet.detection.datasets import DetectionDataset
from socodet.detection.datasets.mini import mini_set, write_image_ids
from socodet.detection.detectors import detector_named, new_detector
from socodet.errors import InputError
from socodet.finetuning.evaluate import Evaluation, score
from socodet.finetuning.head_scale import match_head_scale
from socodet.finetuning.labelled_sets import LabelledSet, fitting_settings, images_trained_on, open_labelled_sets
from socodet.finetuning.run import IMAGES, PREDICTIONS, SCORES, FinetuneRecipe, check_folder, clear, describe
from socodet.finetuning.samples import DetectionBatch, TrainingPictures, picture_stream, training_loader
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.finetuning.trainer import FineTuner
from socodet.models.settings import ModelSettings
from socodet.runtime.world import World, world_from_environment
from socodet.training.devices import choose_device, default_workers
from socodet.training.distributed import any_process, join
from socodet.training.log import LogSink
from socodet.training.loop import last_step, loader_batches, resume_from_checkpoint, run_loop
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.weights.pretrained_run import model_settings
from socodet.weights.starting_file import StartingFile
from socodet.weights.transfer import LoadReport, load_pretrained

SCRATCH = "scratch"
PRECISE_BN_SEED = 1
"""Added to the run's, for the training batches that batch norm's statistics are taken from."""
SCALE_BATCHES = 4
"""Of training pictures, by which the size of a box head's output is measured."""
BOX_HEAD = "roi_heads.box_head"


@dataclass(frozen=True)
class FinetuneResult:
    """What a call of `finetune` did: the run's folder, how far it is, its newest scores if this call made any."""

    run: Path
    detector: str
    steps: int
    total_steps: int
    stopped_by: str | None
    report: LoadReport | None
    evaluation: Evaluation | None
    unreadable: tuple[str, ...]
    seconds: float
    is_first: bool = True
    """Of several processes, whether this is the one that speaks."""

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.steps == self.total_steps


def finetune(
    train: LabelledSet,
    output: str | Path,
    settings: FinetuneSettings | None = None,
    *,
    val: LabelledSet | None = None,
    images: str | Path | None = None,
    init: str | Path = SCRATCH,
    model: ModelSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    execution: ExecutionSettings | None = None,
    sinks: Sequence[LogSink] = (),
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> FinetuneResult:
    """Fine-tunes a detector on an annotated set, into the run folder `output` (section 4.2).

    `train` and `val` are sets as `open_detection_set` takes them; of a folder, its training and validation part, and
    without `val` the validation part of a folder is taken if `train` is one. `init` is a pretraining run's folder, an
    exported file, a checkpoint of the method's public code, a backbone's state dict, or `scratch`; a run's folder also
    says what the modules look like, else `model` does. A set without masks trains the detector's counterpart without
    them. Images without an object are left out. `sinks` receive the log lines besides the run's folder, in the first
    process.

    The same call again goes on with an unfinished run, from its last checkpoint; the result is the run that was never
    interrupted, bit for bit on a CPU. A finished run, or one of other settings, is refused unless `overwrite`;
    `resume` makes a finished run a success. Started by torchrun or SLURM, all processes train one detector.
    `InputError` says in one line what cannot be used and how to fix it.
    """
    began = time.monotonic()
    world = world_from_environment()
    settings = settings or FinetuneSettings()
    execution = execution or ExecutionSettings()
    evaluation = evaluation or EvaluationSettings()
    show_progress = show_progress and world.is_first
    if settings.batch_size % world.size:
        raise InputError(
            f"batch_size {settings.batch_size} cannot be shared by {world.size} processes; make it a multiple"
        )
    training_set, validation_set = open_labelled_sets(train, val, images, say_problems=show_progress)
    if settings.fraction is not None:
        training_set = mini_set(training_set, settings.fraction, settings.seed)
    if validation_set is None and (evaluation.save_predictions or evaluation.every is not None):
        raise InputError(f"{training_set.name}: is one set, and there is none to score on; give it, --val")
    if validation_set is None and show_progress:
        print("note: without --val the detector is not scored; `socodet evaluate` does it later", file=sys.stderr)
    settings = fitting_settings(settings, training_set, show_note=show_progress)
    shown = images_trained_on(training_set, settings, show_note=show_progress)
    recipe = FinetuneRecipe(settings, model or _model_of(init), settings.resolved_schedule(len(shown)))
    run = RunFolder(Path(output))
    join(world, choose_device(execution.device, world))
    network = new_detector(
        settings.detector, recipe.model, len(shown.categories) + 1, inference=recipe.inference, seed=settings.seed
    )
    report: LoadReport | None = None
    failure: InputError | None = None
    try:
        start = None
        if str(init) != SCRATCH and run.checkpoints() and not overwrite:
            start = {"from": str(Path(init).resolve())}  # the run's own checkpoint is what it goes on from
        elif str(init) != SCRATCH:
            start = StartingFile.find(init).describe(init)
            report = load_pretrained(network, init, show_report=show_progress)
        if world.is_first:
            description = describe(recipe, training_set, start)
            _prepare(run, description, training_set if settings.fraction is not None else None, overwrite=overwrite)
    except InputError as error:
        failure = error
    if any_process(world, failure is not None):
        raise failure or InputError(f"{run.path}: another process could not prepare the run; see what it says")
    tuner = FineTuner(network, detector_named(settings.detector), recipe.schedule, execution, world, seed=settings.seed)
    resume_from_checkpoint(run, tuner, resume=resume, show_progress=show_progress)
    job = _Job(tuner, shown, validation_set, run, evaluation, execution, world, show_progress)
    if tuner.finished == 0 and report is not None and not settings.keep_head_scale:
        job.match_head_scale(report)
    stopped_by = job.train(sinks)
    return FinetuneResult(
        run=run.path,
        detector=settings.detector,
        steps=tuner.finished,
        total_steps=tuner.total,
        stopped_by=stopped_by,
        report=report,
        evaluation=job.newest,
        unreadable=tuple(sorted(job.replaced)),
        seconds=time.monotonic() - began,
        is_first=world.is_first,
    )


def _model_of(init: str | Path) -> ModelSettings:
    return model_settings(init) if Path(init).is_dir() else ModelSettings()


def _prepare(run: RunFolder, description: dict[str, Any], part: DetectionDataset | None, *, overwrite: bool) -> None:
    """Makes the folder ready and notes what is asked; `part`: the chosen pictures, whose ids are kept."""
    if overwrite and run.exists():
        clear(run)
    check_folder(run, description)
    if not run.checkpoints():
        run.write_description(description)
    if part is not None:
        write_image_ids(part, run.path / IMAGES)


@dataclass
class _Job:
    """The loop's surroundings: data, evaluations, what could not be read."""

    tuner: FineTuner
    shown: DetectionDataset
    validation: DetectionDataset | None
    run: RunFolder
    evaluation: EvaluationSettings
    execution: ExecutionSettings
    world: World
    show_progress: bool
    newest: Evaluation | None = None

    def __post_init__(self) -> None:
        self.replaced: set[str] = set()
        workers = self.execution.workers
        self.workers = default_workers(self.tuner.device) if workers is None else workers

    def match_head_scale(self, report: LoadReport) -> None:
        """Where a box head was loaded, its output gets a fresh one's size, as measured on training batches."""
        if BOX_HEAD not in report.loaded_modules:
            return
        batches = self._batches(0, min(SCALE_BATCHES, self.tuner.total), seed=self.tuner.seed + PRECISE_BN_SEED)
        factor = match_head_scale(
            self.tuner.network, lambda pair: self.tuner.losses(pair[1], draw=pair[0]), enumerate(batches), self.world
        )
        if factor is not None and self.show_progress:
            print(
                f"box head: output times {factor:.3g}, the size of a fresh head's; --keep-head-scale leaves it",
                file=sys.stderr,
            )

    def train(self, sinks: Sequence[LogSink]) -> str | None:
        """Trains to the end, or to where this call stops; returns by what it was stopped."""
        settings = self.tuner.settings
        start, stop = self.tuner.finished, last_step(self.tuner, self.execution)
        result = run_loop(
            self.tuner,
            self._batches(start, stop, seed=self.tuner.seed),
            self.run,
            self.execution,
            description="finetune",
            epochs=settings.iterations * settings.batch_size / len(self.shown),
            show_progress=self.show_progress,
            after_step=self._after_step,
            sinks=sinks,
        )
        return result.stopped_by

    def _batches(self, start: int, stop: int, *, seed: int) -> Iterator[DetectionBatch]:
        settings = self.tuner.settings
        pictures = TrainingPictures(self.shown, self.tuner.detector, settings, seed=seed)
        stream = picture_stream(self.shown, settings, seed, self.world)
        loader = training_loader(pictures, stream, start=start, stop=stop, workers=self.workers)
        with closing(loader_batches(loader)) as loaded:
            for batch in loaded:
                self.replaced.update(batch.replaced)
                yield batch

    def _after_step(self, done: int) -> dict[str, Any] | None:
        """Evaluates where it is time to; the scores become a line of the log."""
        due = done == self.tuner.total or (self.evaluation.every is not None and done % self.evaluation.every == 0)
        if not due:
            return None
        if self.tuner.settings.precise_bn:
            seed = self.tuner.seed + PRECISE_BN_SEED
            self.tuner.reestimate(self._batches(0, self.tuner.settings.precise_bn, seed=seed))
        if self.validation is None:
            return None
        self.newest = score(
            self.tuner.network,
            self.validation,
            masks=self.tuner.detector.has_masks,
            step=done,
            scores_file=self.run.path / SCORES,
            predictions_file=self.run.path / PREDICTIONS if self.evaluation.save_predictions else None,
            precision=self.tuner.precision,
            workers=self.workers,
            world=self.world,
            show_progress=self.show_progress,
        )
        self.replaced.update(self.newest.unreadable)
        return dict(self.newest.scores)
