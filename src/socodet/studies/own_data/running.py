"""Runs the study: each start is pretrained once, and detectors from each are fine-tuned fold by fold.

DIR/own_data.json                       what was requested
DIR/images.txt                          the images pretrained on: the training split's, or those given
DIR/proposals-objects.parquet           their proposals
DIR/pretrain/START/                     a pretraining run; its steps and minutes are in START.json beside it
DIR/length/fraction-F/steps-N/          detectors from scratch, each trained twice as long as the one before
DIR/finetune/fraction-F/fold-K/START/   a detector
DIR/results.md .json                    the tables, and an object for every detector
DIR/labels.png .svg, iterations.png .svg
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError, suggest_names
from socodet.finetuning.run import keep_only_best
from socodet.finetuning.settings import SCRATCH
from socodet.images.source import Images
from socodet.models.settings import ModelSettings
from socodet.pretraining.survey import survey_images, this_machine
from socodet.runtime.files import resolve_path
from socodet.runtime.folder_locks import releases_folder_locks
from socodet.runtime.limits import available_cores
from socodet.runtime.overwriting import refuse_to_delete
from socodet.runtime.world import ALONE
from socodet.studies.detector_table import MAIN
from socodet.studies.finetuning_runs import FinetuningRuns
from socodet.studies.own_data.prepare import (
    IMAGES,
    begin,
    check_images,
    open_source,
    reading_record,
    request_record,
    with_begun_recipes,
)
from socodet.studies.own_data.protocol import (
    FOLDS,
    FRACTIONS,
    OwnDataSettings,
    Start,
    Weights,
    pretrained_as,
    start_names,
    starts,
)
from socodet.studies.own_data.results import OwnData
from socodet.studies.pretraining_runs import PretrainingRuns, proposal_tables
from socodet.studies.runner import Job, JobResult, Label, Study, require_one_process
from socodet.training.devices import choose_device
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.weights.file import WeightsFile

OBJECTS = "objects"
LENGTH_FOLD = 0
"""The fold in which the length of fine-tuning is found."""


@releases_folder_locks
def reproduce_own_data(
    data: str | Path,
    output: str | Path,
    settings: OwnDataSettings | None = None,
    *,
    images: Images | None = None,
    weights: Weights | None = None,
    only: Sequence[str] = (),
    fractions: Sequence[float] = FRACTIONS,
    folds: Sequence[int] = FOLDS,
    reading: ReadingSettings | None = None,
    execution: ExecutionSettings | None = None,
    retry_diverged: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> OwnData:
    """Measures how well detectors do on `data` with few labels, from several initial weights ("starts").

    `data` is an annotated dataset with a training and a validation split, unless `reading` holds a share of it back.
    Pretraining sees the training split's images, or `images`, without labels. For each of `fractions` of the labels,
    fine-tuning takes as long as a detector from scratch needs to converge; the length is the same for every start. Each
    fold uses another part of the labels and another seed. `weights` is a pretrained backbone to compare with and to
    start from: `Weights("resnet50.pth", "resnet50")`. `only` names the starts to run; by default all except those that
    run only on request. `execution.max_steps` applies to each run.

    Repeating the call resumes after an interruption; fractions, folds, starts and weights may be added later.
    InputError for data or weights that cannot be used, and for an output that holds something else.
    """
    require_one_process("reproduce own-data")
    settings, execution = settings or OwnDataSettings(), execution or ExecutionSettings()
    fractions = [float(f"{fraction:g}") for fraction in fractions]  # as the folders are named
    for what, values in (("fractions", fractions), ("folds", folds)):
        if not values or len(set(values)) < len(values):
            raise InputError(
                f"--{what} must be one or more different numbers, not {' '.join(f'{value:g}' for value in values)}"
            )
    names = start_names(weights)
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise InputError(f"--only {' '.join(unknown)}: no such start; {suggest_names(unknown[0], names)}")
    detectors = FinetuningRuns.open(
        data,
        None,
        reading=reading,
        settings=settings.finetuning,
        execution=execution,
        evaluations=8,
        show_progress=show_progress,
        val_flag=None,
    )
    of_length = {LENGTH_FOLD} if 2 * settings.shortest <= settings.longest else set()
    detectors.check_fractions(fractions, sorted({*folds, *of_length}))
    if weights is not None:
        WeightsFile.find(weights.path).read()
    if overwrite:
        refuse_to_delete(output, {"--weights": None if weights is None else weights.path})
    study = Study(resolve_path(output), "own_data", show_progress=show_progress)
    earlier = {} if overwrite else study.noted().get("asked", {})
    source = open_source(images, detectors.training, study.folder / IMAGES, begun=bool(earlier))
    given = None if images is None else source
    requested = request_record(settings, Path(data).resolve().stem, detectors, given, earlier)
    there = study.find(requested, {"settings": OwnDataSettings}, overwrite=overwrite)
    if there:
        check_images(study.folder / f"proposals-{OBJECTS}.parquet", source)
    machine = this_machine(choose_device(execution.device, ALONE))
    every = starts(settings, weights, source, survey_images(source), machine)
    if there and not overwrite:
        every = with_begun_recipes(study, every, there)
    wanted = [one for one in every if one.name in only or not (only or one.on_request)]
    described = begin(
        study, requested, there, every, wanted, source, reading_record(detectors, source), overwrite=overwrite
    )
    first = next(start.recipe for start in every if start.recipe is not None)
    table = proposal_tables(study.folder, source, {OBJECTS: first.proposals}, {}, show_progress=show_progress)
    runs = PretrainingRuns(source, table, execution, show_progress)
    on = torch.cuda.get_device_name() if machine.device == "cuda" else f"{available_cores()} CPU cores"
    pieces = _StudyJobs(study, settings, runs, detectors, every, f"{on} ({platform.machine()})")
    jobs = list(pieces.jobs(wanted, fractions, folds))

    def found(stopped_by: str | None = None) -> OwnData:
        return OwnData(study, settings, described, study.outcomes(jobs), stopped_by)

    result = found(study.run(jobs, lambda: found().write(), retry_diverged=retry_diverged))
    result.write()
    result.detectors.write_figures(study.folder)
    return result


@dataclass(frozen=True)
class _StudyJobs:
    """The jobs of the study."""

    study: Study
    settings: OwnDataSettings
    runs: PretrainingRuns
    detectors: FinetuningRuns
    starts: tuple[Start, ...]
    machine: str

    def jobs(self, wanted: Sequence[Start], fractions: Sequence[float], folds: Sequence[int]) -> Iterator[Job]:
        """The jobs in order, fraction by fraction and fold by fold, so that all starts can be compared early."""
        pretrained: set[str] = set()
        for fraction in fractions:
            length = self._length(fraction)
            yield length
            for fold in folds:
                for start in wanted:
                    needs = [length.name]
                    if start.recipe is not None:
                        job = self._pretraining(start)
                        needs.append(job.name)
                        if job.name not in pretrained:
                            pretrained.add(job.name)
                            yield job
                    yield self._finetuning(start, fraction, fold, tuple(needs))

    def _pretraining(self, start: Start) -> Job:
        start = next(one for one in self.starts if one.name == pretrained_as(start.name))
        assert start.recipe is not None
        labels: dict[str, Label] = {"start": start.name, "seed": self.settings.pretraining_seed}
        about = f"pretraining {start.name}: {start.what}"
        return self.runs.job(
            f"pretrain/{start.name}",
            start.recipe,
            labels,
            about,
            self._cost,
            boxes=OBJECTS,
            start_from=start.start_from,
        )

    def _cost(self, run: Path) -> dict[str, Any]:
        """Added to a run's steps and seconds: the hardware, and the effective rank of the embeddings."""
        ranks = [line["effective_rank"] for line in RunFolder(run).log_lines() if "effective_rank" in line]
        return {"machine": self.machine, "effective_rank": ranks[-1] if ranks else None}

    def _model(self, own_backbone: bool) -> ModelSettings:
        """The detector's module sizes: SoCo's, whatever was pretrained."""
        return next(
            start.recipe.model
            for start in reversed(self.starts)
            if start.recipe is not None and start.own_backbone == own_backbone
        )

    def _detector(self, own_backbone: bool, steps: int, *, backbone_only: bool = False) -> FinetuningRuns:
        model = replace(self._model(own_backbone), architecture="fpn", rpn_weight=0.0)
        settings = self.detectors.settings
        only = backbone_only or settings.backbone_only
        settings = replace(settings, iterations=steps, backbone_only=only, all_modules=not only)
        return replace(self.detectors, model=model, settings=settings)

    def _length(self, fraction: float) -> Job:
        """Trains from scratch, doubling the steps until that no longer helps."""

        def run(folder: Path) -> JobResult:
            tried: list[Mapping[str, Any]] = []
            steps = self.settings.shortest
            if 2 * steps > self.settings.longest:  # only one length is allowed, so there is nothing to search or train
                return JobResult({"length": steps, "settled": False, "tried": tried})
            while True:
                runs = self._detector(False, steps)
                ended = runs.run(folder / f"steps-{steps}", SCRATCH, fraction, LENGTH_FOLD)
                if ended.results is None or ended.stopped_by:
                    return JobResult(None, ended.stopped_by)
                tried.append(ended.results)
                reached = [one["scores"][MAIN] for one in tried]
                if len(tried) > 1 and 0 < reached[-1] <= reached[-2] * (1 + self.settings.rise):
                    return JobResult({"length": tried[-2]["steps"], "settled": True, "tried": tried})
                if 2 * steps > self.settings.longest:
                    return JobResult({"length": steps, "settled": False, "tried": tried})
                steps *= 2

        about = f"the length of fine-tuning with {100 * fraction:g}% of the labels, from scratch"
        name, labels = f"length/fraction-{fraction:g}", {"length": fraction}
        return Job(name, labels, about, run, kind="search for a length", tidy=keep_only_best)

    def _finetuning(self, start: Start, fraction: float, fold: int, needs: tuple[str, ...]) -> Job:
        pretrained = self.study.folder / "pretrain" / pretrained_as(start.name)
        source = start.weights or (SCRATCH if start.recipe is None else pretrained)
        length = self._length(fraction)

        def run(folder: Path) -> JobResult:
            found = self.study.outcome(length).results
            if start.name == SCRATCH and fold == LENGTH_FOLD and found["tried"]:
                return JobResult(next(one for one in found["tried"] if one["steps"] == found["length"]))
            detector = self._detector(start.own_backbone, found["length"], backbone_only=start.backbone_only)
            return detector.run(folder, source, fraction, fold)

        labels: dict[str, Label] = {"init": start.name, "fraction": fraction, "seed": fold}
        name = f"finetune/fraction-{fraction:g}/fold-{fold}/{start.name}"
        about = f"{self.detectors.settings.detector} from {start.name}, {100 * fraction:g}% of the labels, fold {fold}"
        return Job(name, labels, about, run, needs, kind="detector", tidy=keep_only_best)
