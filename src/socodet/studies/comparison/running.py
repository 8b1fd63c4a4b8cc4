"""Runs a comparison one fine-tuning after another; what is done stays done.

DIR/comparison.json                     what all runs have in common, and the first weights by name
DIR/runs/INIT/fraction-F/seed-S/        a fine-tuning run's folder
DIR/runs/INIT/fraction-F/seed-S.json    how that run ended
DIR/table.md .csv .json                 the table
DIR/iterations.png .svg, labels.png .svg   AP over the iterations, and over the part of the labels
"""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from socodet.detection.datasets.mini import mini_set
from socodet.detection.detectors import new_detector
from socodet.errors import InputError
from socodet.finetuning.finetune import finetune
from socodet.finetuning.labelled_sets import LabelledSet, fitting_settings, open_labelled_sets, require_objects
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.models.settings import ModelSettings
from socodet.runtime.files import read_note, refuse_foreign_folder, refuse_other_note, write_note
from socodet.runtime.world import World, world_from_environment
from socodet.studies.comparison.figure import FIGURES, write_figures
from socodet.studies.comparison.outcomes import RUNS, RunPlace, read_outcomes
from socodet.studies.comparison.protocol import Init, Protocol, shared_model
from socodet.studies.comparison.table import TABLES, Comparison
from socodet.training.devices import choose_device
from socodet.training.distributed import any_process, join
from socodet.training.loop import DivergedError
from socodet.training.settings import ExecutionSettings
from socodet.training.signals import stop_requests
from socodet.weights.starting_file import StartingFile
from socodet.weights.transfer import load_pretrained

NOTE = "comparison.json"


def compare(
    train: LabelledSet,
    output: str | Path,
    inits: Sequence[Init],
    settings: FinetuneSettings | None = None,
    *,
    seeds: Sequence[int] = (0,),
    fractions: Sequence[float] = (1.0,),
    val: LabelledSet | None = None,
    images: str | Path | None = None,
    model: ModelSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    execution: ExecutionSettings | None = None,
    retry_diverged: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Comparison:
    """Fine-tunes the same detector from each of `inits`, with each of `seeds` on each of `fractions` of the pictures.

    The rest of `settings` and the other arguments, which are those of `finetune`, are the same for every run, the sizes
    of the modules included: without `model` those of the first init that is a run's folder. A seed decides which images
    a fraction takes, their order, every draw and the fresh weights of modules, in the same way for every init. Each
    run is scored ten times unless `evaluation.every` says otherwise. `execution.max_steps` counts for each run.

    The same call goes on after an interruption: finished runs are left alone, and more inits, seeds and fractions
    may be asked for. A run that diverges is recorded, with the step, and not run again unless `retry_diverged`: then
    from its last good checkpoint. SIGINT and SIGTERM end the call after the step under way; the table returned, and
    on disk, is that of what is there. Started by torchrun or SLURM, all processes train each run together.

    InputError for settings, sets or inits that cannot be used, and for an output that holds something else.
    """
    world = world_from_environment()
    folder = Path(output)
    execution = execution or ExecutionSettings()
    _check_distinct("init", [init.name for init in inits], "name them yourself, --init NAME=PATH")
    _check_distinct("seed", list(seeds), "give each once")
    _check_distinct("fraction", [f"{fraction:g}" for fraction in fractions], "give each once")
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise InputError(f"fractions must be above 0 and at most 1, not {fraction:g}")
    fractions = [float(f"{fraction:g}") for fraction in fractions]  # as the folders are named
    training, validation = open_labelled_sets(train, val, images, say_problems=show_progress and world.is_first)
    if validation is None:
        raise InputError("a comparison is of scores: give --val, the annotated set to score on")
    require_objects(validation, "to find")
    settings = fitting_settings(settings or FinetuneSettings(), training, show_note=show_progress and world.is_first)
    protocol = Protocol(
        training, validation, settings, model or shared_model(inits), evaluation or EvaluationSettings()
    )
    study = _Study(
        folder, protocol, tuple(inits), tuple(seeds), tuple(sorted(fractions)), execution, world, show_progress
    )
    join(world, choose_device(execution.device, world))
    failure: InputError | None = None
    if world.is_first:
        try:
            study.prepare(overwrite=overwrite)
        except InputError as error:
            failure = error
    if any_process(world, failure is not None):
        raise failure or InputError(f"{folder}: the first process could not prepare the comparison; see what it says")
    stopped_by = study.run(retry_diverged=retry_diverged)
    comparison = study.table(stopped_by)
    if world.is_first:
        comparison.write()
        write_figures(comparison)
    return comparison


@dataclass(frozen=True)
class _Study:
    """What was asked for in one call."""

    folder: Path
    protocol: Protocol
    inits: tuple[Init, ...]
    seeds: tuple[int, ...]
    fractions: tuple[float, ...]
    execution: ExecutionSettings
    world: World
    show_progress: bool
    unreadable: set[str] = field(default_factory=set)
    """Pictures that could not be read, and why."""

    def places(self) -> list[RunPlace]:
        """The runs asked for: all inits with a seed before the next seed, so that they can be compared early."""
        return [
            RunPlace(self.folder, init.name, fraction, seed)
            for seed in self.seeds
            for fraction in self.fractions
            for init in self.inits
        ]

    def run(self, *, retry_diverged: bool) -> str | None:
        """Every run in turn; the signal that ended it early, or None."""
        sources = {init.name: init.source for init in self.inits}
        places = self.places()
        try:
            with stop_requests() as requests:
                for number, place in enumerate(places, 1):
                    noted = place.noted()
                    if noted is not None and not (retry_diverged and noted["status"] == "diverged"):
                        continue
                    self._say(f"run {number} of {len(places)}: {place}")
                    stopped_by = self._run(place, sources[place.init])
                    if any_process(self.world, bool(requests)):  # asked between two runs
                        stopped_by = stopped_by or (requests[0] if requests else "another process")
                    if stopped_by is not None:
                        return stopped_by
        except KeyboardInterrupt:
            return "SIGINT"
        return None

    def _run(self, place: RunPlace, source: str) -> str | None:
        """Brings a run to its end; the signal that kept it from there, or None."""
        if not place.run.checkpoints():
            self._check_weights(place.init, source)
        if self.world.is_first:
            place.record.unlink(missing_ok=True)  # of a run that is tried again
        protocol = self.protocol
        try:
            result = finetune(
                protocol.training,
                place.run.path,
                protocol.settings_of(place.fraction, place.seed),
                val=protocol.validation,
                init=source,
                model=protocol.model,
                evaluation=protocol.evaluations(place.fraction),
                execution=self.execution,
                resume=True,
                show_progress=self.show_progress,
            )
        except DivergedError as error:
            self._note(place, {"status": "diverged", "step": error.step, "why": str(error)})
            self._say(f"{error}\n{place}: recorded as diverged; the other runs go on")
            return None
        self.unreadable.update(result.unreadable)
        if result.finished:
            self._note(place, {"status": "finished", "step": result.steps})
        return None if result.stopped_by == "max_steps" else result.stopped_by

    def _check_weights(self, init: str, source: str) -> None:
        """InputError when a run would begin from other weights than the rest of its init, whose file has changed."""
        noted = (read_note(self.folder / NOTE) or {})["inits"][init]
        if "sha256" in noted and StartingFile.find(source).describe(source)["sha256"] != noted["sha256"]:
            raise InputError(
                f"{source}: its weights changed while {self.folder} was under way; compare the new ones under a name "
                f"of their own, --init NAME={source}"
            )

    def _note(self, place: RunPlace, noted: dict[str, Any]) -> None:
        if self.world.is_first:
            write_note(place.record, noted)
            self.table().write()

    def table(self, stopped_by: str | None = None) -> Comparison:
        """As it is on disk, with the runs of earlier calls."""
        note = json.loads((self.folder / NOTE).read_text())
        runs = read_outcomes(self.folder, note["inits"], self.places())
        return Comparison(self.folder, note, runs, stopped_by, tuple(sorted(self.unreadable)), self.world.is_first)

    def prepare(self, *, overwrite: bool) -> None:
        """Makes the folder, or finds in it the comparison that is asked for; looks whether every init fits."""
        note = self.folder / NOTE
        refuse_foreign_folder(self.folder, note, "a comparison")
        self._check_parts()
        known: dict[str, Any] = {}
        asked = self.protocol.describe()
        there = read_note(note)
        if there is not None and not overwrite:
            known = there.pop("inits")
            refuse_other_note(self.folder, asked, {name: there.get(name) for name in asked}, "a comparison")
        inits = {**known, **dict(self._described(known, overwrite=overwrite))}
        if overwrite:
            _clear(self.folder)
        names = {"train": self.protocol.training.name, "val": self.protocol.validation.name}
        write_note(note, {**asked, "names": names, "inits": inits})

    def _check_parts(self) -> None:
        """InputError when a part of the pictures that some run takes has nothing to learn from."""
        for fraction in self.fractions:
            for seed in self.seeds if fraction < 1 else ():
                if not len(mini_set(self.protocol.training, fraction, seed).with_objects()):
                    raise InputError(
                        f"{self.protocol.training.name}: with fraction {fraction:g} and seed {seed} no picture has an "
                        "object to learn from; take a larger part"
                    )

    def _described(self, known: dict[str, Any], *, overwrite: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and description of each init. InputError where it is another than it was, or does not fit.

        Weights are looked at where a run has yet to begin from them: one that has begun goes on without.
        """
        detector = None
        for init in self.inits:
            there = known.get(init.name)
            if there is not None and there["from"] != init.place:
                raise InputError(
                    f"{self.folder}: there, {init.name} is {there['from']}, not {init.place}; give these weights a "
                    "name of their own, --init NAME=PATH"
                )
            begun = not overwrite and all(place.begun for place in self.places() if place.init == init.name)
            if init.is_scratch:
                yield init.name, {"from": init.place, "loaded": []}
                continue
            if there is not None and begun:
                continue
            start = StartingFile.find(init.source).describe(init.source)
            if there is not None and there["sha256"] != start["sha256"]:
                raise InputError(
                    f"{init.source}: its weights are no longer those that the runs of {init.name} in {self.folder} "
                    f"began from; compare them under a name of their own, --init NAME={init.source}"
                )
            if detector is None:
                classes = len(self.protocol.training.categories) + 1
                detector = new_detector(self.protocol.settings.detector, self.protocol.model, classes)
            try:
                report = load_pretrained(detector, init.source, show_report=False)
            except InputError as error:
                raise InputError(f"init {init.name} does not fit the detector that all share: {error}") from None
            yield init.name, {**start, "loaded": list(report.loaded_modules)}

    def _say(self, line: str) -> None:
        if self.show_progress and self.world.is_first:
            print(line, file=sys.stderr)


def _check_distinct(what: str, values: Sequence[object], mend: str) -> None:
    if not values:
        raise InputError(f"a comparison needs at least one {what}")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise InputError(f"{what} {twice} stands twice in the comparison; {mend}")


def _clear(folder: Path) -> None:
    """Removes what a comparison writes, and nothing else."""
    shutil.rmtree(folder / RUNS, ignore_errors=True)
    for name in (NOTE, *TABLES, *FIGURES):
        (folder / name).unlink(missing_ok=True)
