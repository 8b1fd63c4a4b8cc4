"""`socodet finetune` with several inits, seeds or fractions: which init is better, how soon, and with how few labels.

DIR/comparison.json                        what all runs have in common, and the initial weights by name
DIR/runs/INIT/fraction-F/seed-S/           a fine-tuning run's folder; seed-S.json beside it says how it ended
DIR/table.md .csv .json                    the table
DIR/iterations.png .svg, labels.png .svg   AP over the steps, and over the fraction of the labels
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.finetuning.auto_schedule import AUTO
from socodet.finetuning.labelled_sets import LabelledSet
from socodet.finetuning.settings import SCRATCH, EvaluationSettings, FinetuneSettings
from socodet.images.reading import read_images_like
from socodet.models.settings import ModelSettings
from socodet.runtime.files import resolve_path, write_atomically
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks
from socodet.runtime.markdown import in_table
from socodet.runtime.overwriting import refuse_to_delete
from socodet.runtime.shown import Shown, ShownPart, ShownTable, ShownThumbnail
from socodet.runtime.world import world_from_environment
from socodet.studies.comparison_page import PAGE, write_comparison_page
from socodet.studies.detector_table import FIGURES, MAIN, DetectorTable
from socodet.studies.finetuning_runs import DESCRIBED, FinetuningRuns
from socodet.studies.inits import Init, check_case, check_distinct, named_inits, shared_model, shared_pixel_reading
from socodet.studies.runner import Job, JobResult, Outcome, Study
from socodet.studies.table import csv_table
from socodet.training.devices import choose_device
from socodet.training.distributed import in_every_process, join
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.weights.file import WeightsFile, requested_start

TABLES = ("table.md", "table.csv", "table.json")
ALL_MODULES = "all_modules"
"""Key in comparison.json of inits whose runs get all modules, as before, where new comparisons load the backbone."""


@releases_folder_locks
def compare(
    train: LabelledSet,
    output: str | Path,
    inits: Sequence[Init | str | Path],
    settings: FinetuneSettings | None = None,
    *,
    seeds: Sequence[int] | None = None,
    fractions: Sequence[float] | None = None,
    val: LabelledSet | None = None,
    images: str | Path | None = None,
    reading: ReadingSettings | None = None,
    model: ModelSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    execution: ExecutionSettings | None = None,
    retry_diverged: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> "Comparison":
    """Fine-tunes the same detector from each of `inits`, with each of `seeds`, on each of `fractions` of the images.

    An init is a path, `scratch` or `NAME=PATH`, as for `--init`. Without `seeds` or `fractions`, those in `settings`
    are used; give a fraction in only one of the two. The rest of `settings` and the other arguments (see `finetune`)
    apply to every run, and so do the module sizes: `model`, or those of the first init that is a run's folder. For
    every init, a seed gives the same images of a fraction, order, random draws and fresh weights. Each run is scored
    ten times unless `evaluation.every` is set.

    Repeating the call resumes it; inits, seeds and fractions may be added. A run that diverges is recorded, and
    continued from its last good checkpoint only with `retry_diverged`. SIGINT and SIGTERM end the call after the
    current step. `execution.max_steps` applies to each run. All processes of torchrun or SLURM train each run together.

    InputError for settings, datasets or inits that cannot be used, and for an output that holds something else.
    """
    world = world_from_environment()
    settings, execution = settings or FinetuneSettings(), execution or ExecutionSettings()
    if settings.fraction is not None and fractions is not None:
        raise InputError("--fraction and --fractions: give one of them")
    if seeds is not None and settings.seed not in (0, *seeds):
        raise InputError("--seed and --seeds: give one of them")
    seeds = (settings.seed,) if seeds is None else seeds
    fractions = (settings.fraction or 1.0,) if fractions is None else fractions
    compared = [init if isinstance(init, Init) else named_inits([str(init)])[0] for init in inits]
    check_distinct("init", [init.name for init in compared], "name them yourself, --init NAME=PATH")
    check_distinct("seed", list(seeds), "give each once")
    check_distinct("fraction", [f"{fraction:g}" for fraction in fractions], "give each once")
    if overwrite:
        refuse_to_delete(output, {f"--init {one.name}": one.source for one in compared if not one.is_scratch})
    join(world, choose_device(execution.device, world))
    with in_every_process(world, "another process could not open the annotated datasets; see its message"):
        with read_images_like(shared_pixel_reading(compared), widened=True):
            runs = FinetuningRuns.open(
                train,
                val,
                images=images,
                reading=reading,
                settings=replace(settings, fraction=None, seed=0),  # each run sets its own
                world=world,
                show_progress=show_progress,
                model=model or shared_model(compared, None if overwrite else output),
                evaluation=evaluation or EvaluationSettings(),
                execution=execution,
            )
        fractions = sorted(float(f"{fraction:g}") for fraction in fractions)  # as the folders are named
        runs.check_fractions(fractions, seeds)
    study = Study(resolve_path(output), "comparison", world, show_progress)
    # All inits run with a seed before the next seed, so that they can be compared early.
    jobs = [_job(study, init, runs, fraction, seed) for seed in seeds for fraction in fractions for init in compared]
    with in_every_process(world, f"{output}: the first process could not prepare the comparison; see its message"):
        if world.is_first:
            _prepare(study, runs, compared, jobs, overwrite=overwrite)
    stopped_by = study.run(jobs, lambda: Comparison(study, study.outcomes(jobs)).write(), retry_diverged=retry_diverged)
    comparison = Comparison(study, study.outcomes(jobs), stopped_by, tuple(sorted(runs.unreadable)))
    if comparison.is_first:
        comparison.write()
        comparison.detectors.write_figures(study.folder)
        write_comparison_page(
            comparison.detectors, study.folder, comparison.headline(), comparison.shared, comparison.origins
        )
    return comparison


def _job(study: Study, init: Init, runs: FinetuningRuns, fraction: float, seed: int) -> Job:
    """A run, which refuses to begin if its file of weights has changed since the comparison began."""
    job = runs.job_from(init.name, init.source, fraction, seed)

    def run(folder: Path) -> JobResult:
        noted = study.noted()["inits"][init.name]
        if not init.is_scratch and not RunFolder(folder).checkpoints():
            start = WeightsFile.find(init.source).describe(init.source)
            if start["sha256"] != noted["sha256"]:
                raise InputError(
                    f"{init.source}: its weights changed while {study.folder} was in progress; compare the new ones "
                    f"under a name of their own, --init NAME={init.source}"
                )
        if noted.get(ALL_MODULES):
            return runs.with_all_modules().run(folder, init.source, fraction, seed)
        return job.run(folder)

    return replace(job, run=run)


def _prepare(
    study: Study, runs: FinetuningRuns, inits: Sequence[Init], jobs: Sequence[Job], *, overwrite: bool
) -> None:
    """Creates the folder, or checks that it holds the requested comparison; checks that every init fits.

    Weights are read only if a run has yet to start from them. InputError if an init differs from before.
    """
    requested = runs.describe()
    noted: dict[str, Any] = study.find(requested, DESCRIBED, overwrite=overwrite).get("inits", {})
    check_case([init.name for init in inits], noted)
    for init in inits:
        there = noted.get(init.name)
        if there is not None and there["from"] != requested_start({"from": init.place}, there):
            raise InputError(
                f"{study.folder}: there, {init.name} is {there['from']}, not {init.place}; give these weights a name "
                "of their own, --init NAME=PATH"
            )
        if init.is_scratch:
            noted[init.name] = {"from": init.place, "loaded": []}
            continue
        if there is not None and all(_needs_no_start(study, job) for job in jobs if job.labels["init"] == init.name):
            continue
        start = WeightsFile.find(init.source).describe(init.source)
        if there is not None and there["sha256"] != start["sha256"]:
            raise InputError(
                f"{init.source}: its weights are no longer those that the runs of {init.name} in {study.folder} began "
                f"from; compare them under a name of their own, --init NAME={init.source}"
            )
        loaded = runs.modules_loaded(init.name, init.source)
        if there is not None and set(loaded) < set(there["loaded"]) and not runs.settings.backbone_only:
            noted[init.name] = {**start, "loaded": there["loaded"], ALL_MODULES: True}  # begun by an earlier version
        else:
            noted[init.name] = {**start, "loaded": loaded}
    names = {"train": runs.training.name, "val": runs.validation.name}
    lock_folder(study.folder)
    study.begin(requested, [*TABLES, *FIGURES, PAGE], overwrite=overwrite, names=names, inits=noted)


def _needs_no_start(study: Study, job: Job) -> bool:
    """Whether the run no longer needs the weights it starts from."""
    return study.outcome(job).finished or bool(RunFolder(study.folder / job.name).checkpoints())


@dataclass(frozen=True)
class Comparison(Shown):
    """The results of a comparison so far."""

    study: Study
    outcomes: tuple[Outcome, ...]
    """Outcomes of all runs, including those of earlier calls."""
    stopped_by: str | None = None
    """The signal that ended this call, `max_steps`, or None."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """Images that could not be read in this call, and why."""

    @cached_property
    def note(self) -> dict[str, Any]:
        """What all runs have in common, and the initial weights by name."""
        return self.study.noted()

    @property
    def is_first(self) -> bool:
        """Whether this is the first of several processes, the only one that prints."""
        return self.study.world.is_first

    @property
    def runs(self) -> list[Outcome]:
        """The runs by fraction of the labels, init and seed."""
        return self.detectors.runs

    @property
    def markdown(self) -> Path:
        """The path of the Markdown table."""
        return self.study.folder / TABLES[0]

    @cached_property
    def detectors(self) -> DetectorTable:
        """One row per fraction of the labels and init."""
        begun = {run.labels["init"] for run in self.outcomes}
        inits = {name: init["from"] for name, init in self.note["inits"].items() if name in begun}
        scratch = next((name for name, source in inits.items() if source == SCRATCH), None)
        return DetectorTable(self.outcomes, [*inits], scratch)

    def write(self) -> None:
        """Writes Markdown, CSV and JSON, each completely or not at all."""
        written = self.as_markdown(), csv_table(*self.detectors.csv()), json.dumps(self.as_json(), indent=2) + "\n"
        for name, text in zip(TABLES, written, strict=True):
            write_atomically(self.study.folder / name, text.encode(errors="backslashreplace"))

    def as_json(self) -> dict[str, Any]:
        """One object per row of the table, and one per run."""
        runs = [{**run.labels, "status": run.status, **run.results} for run in self.detectors.runs]
        return {"compared_by": MAIN, "rows": self.detectors.as_json(), "runs": runs}

    @property
    def shared(self) -> str:
        """A description of what all runs have in common."""
        requested, names = self.note["asked"], self.note["names"]
        settings, schedule, train, val = (requested[part] for part in ("settings", "schedule", "train", "val"))
        length = f"{settings['epochs']:g} epochs" if settings["epochs"] else f"{schedule['iterations']} steps"
        if settings["schedule"] == AUTO and not (settings["epochs"] or settings.get("iterations")):
            length = f"a number of steps by its images ({length} for all)"
        return (
            f"Every run: {length} of batch size {schedule['batch_size']} at learning rate {schedule['lr']:.6g} "
            f"({settings['schedule']}), images of {schedule['test_short_side']} pixels. "
            f"Trained on {names['train']} ({train['images']} images), scored on {names['val']} "
            f"({val['images']} images, {val['style']} rules) after the last step, in percent: mean ± sample standard "
            "deviation over the seeds."
        )

    @property
    def origins(self) -> dict[str, str]:
        """A description of each init."""
        return {name: _origin(self.note["inits"][name]) for name in self.detectors.inits}

    def as_markdown(self) -> str:
        """A table for each fraction of the labels."""
        lines = [
            f"# {in_table(self.headline())}",
            "",
            in_table(self.shared),
            "",
            *(f"- {in_table(name)}: {in_table(origin)}" for name, origin in self.origins.items()),
            *self.detectors.markdown("{} of the training images"),
        ]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        return self.as_markdown()

    def headline(self) -> str:
        """What is compared."""
        return f"{self.note['asked']['settings']['detector']} from {', '.join(self.detectors.inits)}"

    def shown(self) -> Iterator[ShownPart]:
        """The tables, and AP over the steps."""
        for fraction in self.detectors.fractions:
            header, lines = self.detectors.table(fraction)
            yield ShownTable(lines, header, f"{100 * fraction:g}% of the training images; percent, over the seeds")
        figure = self.study.folder / FIGURES[0]
        if figure.is_file():
            yield ShownThumbnail.of(figure, "box AP over the steps of fine-tuning")


def _origin(init: Mapping[str, Any]) -> str:
    if init["from"] == SCRATCH:
        return "nothing pretrained"
    return f"{init['from']} ({', '.join(init['loaded'])})"
