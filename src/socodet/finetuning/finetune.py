"""`socodet finetune`: from pretrained weights and an annotated dataset to a detector and its scores."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.datasets.splits import no_validation_split
from socodet.detection.datasets.subsets import mini_dataset
from socodet.detection.detectors.by_name import detector_named, new_detector
from socodet.errors import InputError
from socodet.finetuning.auto_schedule import AUTO, steps_between_evaluations
from socodet.finetuning.continuation import continue_from
from socodet.finetuning.data_record import contents
from socodet.finetuning.evaluate import Evaluation
from socodet.finetuning.inputs import check_finetuning_arguments
from socodet.finetuning.labelled_sets import LabelledSet, images_trained_on, open_labelled_sets, settings_for_dataset
from socodet.finetuning.loop import FinetuneLoop
from socodet.finetuning.plan import large_step_note, plan_lines
from socodet.finetuning.run import FinetuneRecipe, ended_with_only_best, is_finetuned, prepare_folder
from socodet.finetuning.settings import SCRATCH, EvaluationSettings, FinetuneSettings
from socodet.finetuning.trainer import FineTuner
from socodet.images.reading import PLAIN, PixelReading, read_images_like
from socodet.models.settings import ModelSettings
from socodet.runtime.counted import counted
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_new
from socodet.runtime.serialization import to_json
from socodet.runtime.shown import Shown, ShownCurve, ShownPart, facts
from socodet.runtime.world import world_from_environment
from socodet.training.devices import choose_device, deterministic_algorithms, log_precision_note
from socodet.training.distributed import gather_to_first, in_every_process, join, require_same
from socodet.training.log import LogSink
from socodet.training.loop import require_shared_folder, resume_from_checkpoint
from socodet.training.run_folder import RunFolder
from socodet.training.settings import PATIENCE, RESUME_OR_OVERWRITE, ExecutionSettings
from socodet.training.trackers import check_trackers
from socodet.weights.file import WeightsFile
from socodet.weights.hub import origin, reads_hub
from socodet.weights.load import load_pretrained
from socodet.weights.report import LoadReport
from socodet.weights.sizes import settings_of

ONLY_BACKBONE = (
    "only its backbone is loaded, because after so short a run this gave better detectors (docs/results.md); "
    "--all-modules loads all"
)


@dataclass(frozen=True)
class FinetuneResult(Shown):
    """What a call of `finetune` did: the run's folder, its progress, and the newest scores if this call made any."""

    run: Path
    detector: str
    steps: int
    total_steps: int
    stopped_by: str | None
    report: LoadReport | None
    evaluation: Evaluation | None
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
    best: tuple[int, float] | None = None
    """Step and box AP (percent) of the best checkpoint, if the run is evaluated during training."""
    pending: bool = False
    """Whether the evaluation after the last step was stopped; repeating the call repeats it."""
    is_first: bool = True
    """Whether this is the first of several processes, the only one that prints."""

    @property
    def finished(self) -> bool:
        """Whether every step is done and scored, or `patience` ended the run."""
        return (self.steps == self.total_steps or self.stopped_by == PATIENCE) and not self.pending

    def __str__(self) -> str:
        if self.stopped_by == PATIENCE:
            done = f"{self.detector} ended by --patience after {self.steps:,} of {counted(self.total_steps, 'step')}"
        elif self.finished:
            done = f"{self.detector} finished, {counted(self.steps, 'step')}{self._ap()}"
        else:
            before = ", before they were scored" if self.pending else ""
            done = f"stopped by {self.stopped_by} after {self.steps:,} of {counted(self.total_steps, 'step')}{before}"
        return f"{self.run}: {done}"

    def _ap(self) -> str:
        """Box AP of the best checkpoint, or of the last weights if the run was evaluated only at its end."""
        if self.best is not None:
            return f", box AP {self.best[1]:.2f} of 100 at step {self.best[0]:,}"
        ap = None if self.evaluation is None else self.evaluation.scores.get("box_AP")
        return "" if ap is None else f", box AP {ap:.2f} of 100"

    def shown(self) -> list[ShownPart]:
        """What this call did, the loss of the whole run, and the newest scores if this call made any."""
        curves = ShownCurve.of_log("loss", RunFolder(self.run).log_lines(), "loss")
        best = {} if self.best is None else {"best": f"box AP {self.best[1]:.2f} at step {self.best[0]:,}"}
        return [facts(self, **best), *curves, *(self.evaluation.shown() if self.evaluation else ())]


@releases_folder_locks
@reads_hub("init")
def finetune(
    train: LabelledSet,
    output: str | Path,
    settings: FinetuneSettings | None = None,
    *,
    val: LabelledSet | None = None,
    images: str | Path | None = None,
    reading: ReadingSettings | None = None,
    init: str | Path = SCRATCH,
    model: ModelSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    execution: ExecutionSettings | None = None,
    patience: int | None = None,
    sinks: Sequence[LogSink] = (),
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> FinetuneResult:
    """Fine-tunes a detector on an annotated dataset and writes the run to the folder `output` (section 4.2).

    Repeating the call resumes an unfinished run from its last checkpoint; the result equals that of an uninterrupted
    run, bit for bit on a CPU. A run with other settings is refused unless `overwrite`; so is a finished run unless
    `overwrite` or `resume`, which returns it as it is.

    train, val: datasets, as `open_detection_set` takes them; of a folder, its training and its validation split.
    Without `val`, the detector is scored on the validation split of the folder `train`, or on the share that `reading`
    holds back.
    settings: detector, schedule, length and batch size (`FinetuneSettings`). If the dataset has no masks, the box-only
    counterpart of the detector is trained.
    images: folder of the images, if they are not found nearby; also for `val`, unless it has its own.
    reading: what the dataset's files do not say, such as the share held back for validation (`ReadingSettings`).
    init: initial weights: a pretraining run's folder, an exported file, a checkpoint of the method's public code, a
    backbone's state dict, a fine-tuning run's folder (its detector is trained further), or `scratch`. Of a short run of
    the recipe `auto` only the backbone is loaded, unless `settings.all_modules`.
    model: module sizes; by default those of the run `init`, or those that the tensors of the file `init` show.
    evaluation: how often the detector is scored, and whether its detections are kept (`EvaluationSettings`).
    execution: device, precision, workers, checkpoints and logging (`ExecutionSettings`); may change on resume.
    patience: end the run after this many evaluations in a row without a higher box AP.
    sinks: objects with `write` and `close` that also receive the log lines, in the first process only.
    show_progress: whether progress, notes and the plan are logged (logger `socodet`, to standard error).

    Started by torchrun or SLURM, all processes train one detector. The result holds the run's folder, the steps done
    and planned, what stopped the run, what was loaded (`report`), the newest scores (`evaluation`) and the best
    checkpoint. InputError says in one line what cannot be used and how to fix it.
    """
    began = time.monotonic()
    if resume and overwrite:
        raise InputError(RESUME_OR_OVERWRITE)
    settings = settings or FinetuneSettings()
    execution = execution or ExecutionSettings()
    evaluation = evaluation or EvaluationSettings()
    run = RunFolder(Path(output))
    from_own_checkpoint = check_finetuning_arguments(
        train,
        val,
        output=output,
        init=init,
        backbone_only=settings.backbone_only,
        patience=patience,
        overwrite=overwrite,
    )
    world = world_from_environment()
    show_progress = show_progress and world.is_first
    if settings.batch_size % world.size:
        raise InputError(
            f"batch_size {settings.batch_size} cannot be shared by {world.size} processes; make it a multiple"
        )
    join(world, choose_device(execution.device, world))
    check_trackers(execution.sink, world)
    with (
        in_every_process(world, "another process could not open the annotated datasets; see its message"),
        read_images_like(_pixel_reading(run if from_own_checkpoint else None, init), widened=True),
    ):
        training, validation = open_labelled_sets(train, val, images, reading, say_problems=show_progress)
    settings = settings_for_dataset(settings, training, show_note=show_progress)
    if settings.fraction is not None:
        training = mini_dataset(training, settings.fraction, settings.seed)
    shown = images_trained_on(training, settings, show_note=show_progress)
    gone = str(init) != SCRATCH and not Path(init).exists()
    sizes_of = run.path if gone and from_own_checkpoint else init
    recipe = FinetuneRecipe(settings, model or _model_of(sizes_of), settings.resolved_schedule(len(shown)))
    if settings.schedule == AUTO and validation is not None and evaluation.every is None:
        scored = 0 if patience is not None else len(validation)  # patience counts evaluations
        every = steps_between_evaluations(recipe.schedule.iterations, settings.batch_size, scored)
        evaluation = replace(evaluation, every=every)
    if world.size > 1:
        requested = [to_json(evaluation), to_json(replace(execution, workers=None)), patience]
        sets = [None if one is None else contents(one, settings.detector) for one in (training, validation)]
        require_same(world, annotations=sets, settings=[recipe.as_dict(), *requested])
    _check_scored(training, validation, evaluation, patience, show_note=show_progress)

    detector = detector_named(settings.detector)
    classes = len(shown.categories) + 1
    network = new_detector(detector.name, recipe.model, classes, inference=recipe.inference, seed=settings.seed)
    goes_on = str(init) != SCRATCH and is_finetuned(init)
    start: dict[str, str] | None = None
    report: LoadReport | None = None
    with in_every_process(world, f"{run.path}: another process could not prepare the run; see its message"):
        if str(init) != SCRATCH and from_own_checkpoint:
            start = {"from": origin(init)}
        elif str(init) != SCRATCH:
            start = WeightsFile.find(init).describe(init)
            if goes_on:
                taken = continue_from(network, detector.name, shown, init)
                if show_progress:
                    log_new(str(taken))
                report = taken.report
            else:
                only = settings.loads_backbone_only(init)
                report = load_pretrained(network, init, backbone_only=only, show_report=show_progress)
                if show_progress and only and not settings.backbone_only:
                    log_new(f"{init}: {ONLY_BACKBONE}")
            start["loaded"] = ", ".join(report.loaded_modules)
        if world.is_first:
            lock_folder(run.path)
            prepare_folder(run, recipe, training, start, val=validation, patience=patience, overwrite=overwrite)
    require_shared_folder(run, world)

    tuner = FineTuner(network, detector, recipe.schedule, execution, world, seed=settings.seed)
    ended = ended_with_only_best(run, patience)
    if ended is not None:
        run.load_best()  # InputError if these, the only weights that are left, cannot be read
        tuner.finished = ended
    resume_from_checkpoint(run, tuner, resume=resume, show_progress=show_progress)
    loop = FinetuneLoop(tuner, shown, validation, run, evaluation, execution, show_progress, patience)
    if show_progress and not tuner.finished:
        about, *lines = plan_lines(recipe, shown, validation, init=init, every=evaluation.every, patience=patience)
        log_new("\n".join([about, *lines]), but_for=about)  # in a study, where weights come from is said of each run
        note = large_step_note(recipe, tuner.device.type)
        if note is not None:
            log_new(note)
        log_precision_note(execution.precision, tuner.device)
    with deterministic_algorithms(execution.deterministic):
        if tuner.finished == 0 and report is not None and not goes_on and not settings.keep_head_scale:
            loop.match_head_scale(report)
        stopped_by = loop.train(sinks)
    unreadable = gather_to_first(world, loop.unreadable.items())
    if world.is_first:
        run.note_skipped(unreadable)
    return FinetuneResult(
        run=run.path,
        detector=detector.name,
        steps=tuner.finished,
        total_steps=tuner.total,
        stopped_by=stopped_by,
        report=report,
        evaluation=loop.newest,
        best=None if loop.best.ap is None else (loop.best.step or 0, loop.best.ap),
        unreadable=tuple(unreadable),
        seconds=time.monotonic() - began,
        pending=tuner.pending,
        is_first=world.is_first,
    )


def _check_scored(
    training: DetectionDataset,
    validation: DetectionDataset | None,
    evaluation: EvaluationSettings,
    patience: int | None,
    *,
    show_note: bool,
) -> None:
    """InputError when an evaluation is requested and there is no dataset to score on; otherwise a note on stderr.

    The same applies to a dataset in which no object counts.
    """
    if validation is not None:
        if patience is not None and evaluation.every is None:
            raise InputError("--patience counts evaluations; set the steps between them, --evaluation.every")
        if not sum(validation.object_counts()):
            what = f"{validation.name}: has no object that counts in the scores, so there is no AP"
            if patience is not None:
                raise InputError(f"{what} for --patience to follow; leave it out, or give another dataset with --val")
            if show_note:
                LOGGER.warning(f"note: {what}, and no checkpoint is kept as the best; --val gives another dataset")
        return
    if evaluation.save_predictions or evaluation.every is not None or patience is not None:
        raise no_validation_split(training.name)
    if show_note:
        LOGGER.info("note: without --val the detector is not scored; `socodet evaluate` can score it later")


def _model_of(init: str | Path) -> ModelSettings:
    return settings_of(init) if str(init) != SCRATCH and Path(init).exists() else ModelSettings()


def _pixel_reading(run: RunFolder | None, init: str | Path) -> PixelReading:
    """How the images of the `run` that goes on were read; without one, how those of the run it starts from were."""
    if run is not None and run.exists():
        return run.pixel_reading()
    first = RunFolder(Path(init))
    return first.pixel_reading() if str(init) != SCRATCH and first.exists() else PLAIN
