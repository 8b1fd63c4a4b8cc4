"""The fine-tuning runs of a study: one detector and one protocol, with many initial weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.datasets.subsets import mini_dataset
from socodet.detection.detectors.by_name import new_detector
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.errors import InputError
from socodet.finetuning.auto_schedule import EVALUATIONS
from socodet.finetuning.data_record import describe_dataset
from socodet.finetuning.finetune import finetune
from socodet.finetuning.labelled_sets import (
    LabelledSet,
    images_trained_on,
    open_labelled_sets,
    require_objects,
    settings_for_dataset,
)
from socodet.finetuning.run import SCORES, ended_with_only_best, keep_only_best
from socodet.finetuning.settings import SCRATCH, EvaluationSettings, FinetuneSettings
from socodet.models.settings import ModelSettings
from socodet.runtime.files import read_note
from socodet.runtime.serialization import to_json
from socodet.runtime.world import ALONE, World
from socodet.studies.detector_table import MAIN
from socodet.studies.runner import Job, JobResult, Label
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.weights.load import load_pretrained

DESCRIBED = {"settings": FinetuneSettings, "model": ModelSettings, "schedule": ScheduleSettings}
"""Classes of the settings in `FinetuningRuns.describe`."""
OF_SCORES = ("box_", "mask_")
"""Prefixes of score names; scores that are None, because the dataset cannot give them, are left out."""


@dataclass(frozen=True)
class FinetuningRuns:
    """How every detector is fine-tuned and scored; runs differ in initial weights, seed and number of labels."""

    training: DetectionDataset
    validation: DetectionDataset
    settings: FinetuneSettings
    """Settings of every run, except its seed and fraction; the detector has no masks if the dataset has none."""
    model: ModelSettings | None = None
    """Module sizes; None for those of the run that a detector starts from."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    evaluations: int = EVALUATIONS
    """Number of evaluations per run, unless `evaluation.every` is set."""
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    show_progress: bool = True
    unreadable: set[tuple[str, str]] = field(default_factory=set)
    """Images that could not be read in this call, and why."""

    @classmethod
    def open(
        cls,
        train: LabelledSet,
        val: LabelledSet | None,
        *,
        images: str | Path | None = None,
        reading: ReadingSettings | None = None,
        settings: FinetuneSettings,
        world: World = ALONE,
        show_progress: bool = True,
        val_flag: str | None = "--val",
        **more: Any,
    ) -> "FinetuningRuns":
        """Opens the datasets, both splits if it is one folder; `more` sets further fields. InputError for unusable
        datasets. val_flag: the flag for `val`, None if the command has none.
        """
        say = show_progress and world.is_first
        training, validation = open_labelled_sets(train, val, images, reading, say_problems=say)
        if validation is None:
            other = "" if val_flag is None else f"give {val_flag}, the annotated dataset to score on, or "
            share = f"hold out a share of it with {val_flag or '--val'}-share 0.2"
            raise InputError(f"{training.name}: has no validation split; {other}{share}")
        require_objects(validation)
        if not sum(validation.object_counts()):
            raise InputError(
                f"{validation.name}: no object counts, because all are crowds or difficult; give another dataset"
            )
        fitting = settings_for_dataset(settings, training, show_note=say)
        runs = cls(training, validation, fitting, show_progress=show_progress, **more)
        runs.schedule()  # InputError when there is nothing to learn from
        return runs

    @cached_property
    def images(self) -> int:
        """Number of training images with all labels."""
        return len(images_trained_on(self.training, self.settings))

    def modules_loaded(self, init: str, source: str | Path) -> list[str]:
        """The modules that runs from the weights at `source` load. InputError, which names the `init`, if they do not
        fit.
        """
        assert self.model is not None
        detector = new_detector(self.settings.detector, self.model, len(self.training.categories) + 1)
        only = self.settings.loads_backbone_only(source)
        try:
            report = load_pretrained(detector, source, backbone_only=only, show_report=False)
        except InputError as error:
            raise InputError(f"init {init} does not fit the detector that all share: {error}") from None
        return list(report.loaded_modules)

    def with_all_modules(self) -> "FinetuningRuns":
        """The same runs with all modules loaded, whatever they start from."""
        return replace(self, settings=replace(self.settings, all_modules=True))

    def schedule(self, fraction: float = 1.0) -> ScheduleSettings:
        """The schedule with this fraction of the labels, with every number resolved.

        Its length is the same for every seed and init: an epoch is a pass over the average number of images in the
        fraction.
        """
        return self.settings.resolved_schedule(max(1, round(fraction * self.images)))

    def check_fractions(self, fractions: Sequence[float], seeds: Sequence[int]) -> None:
        """InputError for a fraction out of range, or one that leaves a seed with nothing to learn from."""
        for fraction in fractions:
            if not 0 < fraction <= 1:
                raise InputError(f"fractions must be above 0 and at most 1, not {fraction:g}")
            for seed in seeds if fraction < 1 else ():
                if not len(mini_dataset(self.training, fraction, seed).with_objects()):
                    raise InputError(
                        f"{self.training.name}: with fraction {fraction:g} and seed {seed} no image has an object to "
                        "learn from; take a larger fraction"
                    )

    def describe(self) -> dict[str, Any]:
        """Everything that must be equal for runs to be compared in one table, in plain JSON types."""
        return {
            "settings": to_json(self.settings),
            "model": None if self.model is None else to_json(self.model),
            "schedule": to_json(self.schedule(self.settings.fraction or 1.0)),
            "evaluation_every": self.evaluation.every,
            "train": describe_dataset(self.training, self.settings.detector),
            "val": describe_dataset(self.validation, self.settings.detector),
        }

    def job(
        self, name: str, source: str | Path, labels: Mapping[str, Label], about: str, needs: tuple[str, ...] = ()
    ) -> Job:
        """A run from the weights at `source`, with the seed and the fraction of the labels given in `labels`."""
        fraction, seed = float(labels.get("fraction", self.settings.fraction or 1.0)), int(labels["seed"])
        steps = self.schedule(fraction).iterations

        def run(folder: Path) -> JobResult:
            return self.run(folder, source, fraction, seed)

        return Job(name, labels, about, run, needs, steps, "detector", keep_only_best)

    def job_from(self, init: str, source: str | Path, fraction: float, seed: int) -> Job:
        """A run from the weights at `source`, which tables call `init`."""
        name = f"runs/{init}/fraction-{fraction:g}/seed-{seed}"
        about = f"{self.settings.detector} from {init}, {100 * fraction:g}% of the images, seed {seed}"
        return self.job(name, source, {"init": init, "fraction": fraction, "seed": seed}, about)

    def run(self, folder: Path, source: str | Path, fraction: float, seed: int) -> JobResult:
        """Fine-tunes from these weights; the results are steps, scores in percent, and scores at each evaluation."""
        iterations = self.schedule(fraction).iterations
        every = self.evaluation.every or math.ceil(iterations / self.evaluations)
        if ended_with_only_best(RunFolder(folder)) is not None:  # its record was lost
            return JobResult(_results(folder, iterations))
        part = None if fraction == 1 else fraction
        only = self.settings.backbone_only and str(source) != SCRATCH
        settings = replace(
            self.settings, iterations=iterations, epochs=None, fraction=part, seed=seed, backbone_only=only
        )
        result = finetune(
            self.training,
            folder,
            settings,
            val=self.validation,
            init=source,
            model=self.model,
            evaluation=replace(self.evaluation, every=every),
            execution=self.execution,
            resume=True,
            show_progress=self.show_progress,
        )
        self.unreadable.update(result.unreadable)
        if not result.finished:
            return JobResult(None, result.stopped_by)
        return JobResult(_results(folder, result.steps), result.stopped_by)


def _results(folder: Path, steps: int) -> dict[str, Any]:
    """What is recorded of a run that finished after so many steps."""
    curve = _curve(folder, steps)
    scores = {name: value for name, value in curve[-1].items() if name != "step"}
    return {"steps": steps, "scores": scores, "curve": curve}


def _curve(folder: Path, steps: int) -> list[dict[str, Any]]:
    """The scores at each evaluation of a finished run, including the one after its last step.

    If the log lacks the last one, for example after a full disk or a power failure, it is taken from scores.json.
    InputError if neither has it, because an earlier evaluation would then pass for the result.
    """
    run = RunFolder(folder)
    curve = [_scores(line) for line in run.log_lines() if MAIN in line]
    if curve and curve[-1]["step"] == steps:
        return curve
    noted = read_note(folder / SCORES) or {}
    if noted.get("step") != steps:
        raise InputError(
            f"{run.log}: lacks the scores after step {steps}, the last; delete {folder} to train that detector again"
        )
    return [*curve, _scores({"step": steps, **noted["scores"]})]


def _scores(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in line.items()
        if name == "step" or (name.startswith(OF_SCORES) and value is not None)
    }
