"""Runs the benchmark: every method is pretrained and probed, and detectors are fine-tuned on few labels.

DIR/reproduction.json                     what was asked
DIR/pictures.txt                          the images pretrained on, where no others were given
DIR/proposals-KIND.parquet                the boxes that all seeds share
DIR/METHOD/seed-S/                        a pretraining run; its steps, seconds and probe are in seed-S.json beside it
DIR/untrained/seed-S.json                 the probe of SoCo's networks before any training
DIR/finetune/INIT/fraction-F/seed-S/      a detector from scratch, or from the run with that seed
DIR/results.md .json                      the tables, and every figure behind them
DIR/iterations.png .svg, labels.png .svg  AP of the detectors
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from socodet._version import __version__
from socodet.detection.datasets import DetectionDataset, open_detection_set
from socodet.detection.datasets.classes import with_classes_of
from socodet.errors import InputError
from socodet.finetuning.finetune import SCRATCH
from socodet.finetuning.labelled_sets import report_problems
from socodet.finetuning.run import digest
from socodet.images.source import ImageSource, open_images
from socodet.models.encoders import encoder_class
from socodet.pretraining.preparation import digest_names
from socodet.probing.probe import probe
from socodet.probing.sets import ProbeSets
from socodet.probing.settings import ProbeSettings
from socodet.proposals.conversion import convert_proposals
from socodet.proposals.table import ProposalTable
from socodet.runtime.files import write_atomically
from socodet.studies.detector_table import FIGURES
from socodet.studies.finetuning_runs import FinetuningRuns
from socodet.studies.pretraining_runs import PretrainingRuns, proposal_tables
from socodet.studies.reproduction.protocol import PROTOCOLS, PretrainingMethod, Protocol
from socodet.studies.reproduction.table import TABLES, UNTRAINED, Reproduction
from socodet.studies.runner import Job, JobResult, Label, Study, require_one_process
from socodet.training.settings import ExecutionSettings

PROBE = ProbeSettings(val_pictures=None)
IMAGES = "pictures.txt"
ANNOTATED = "annotated.json"


def reproduce(
    data: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    protocol: str | Protocol = "cpu",
    seeds: tuple[int, ...] | None = None,
    execution: ExecutionSettings | None = None,
    retry_diverged: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Reproduction:
    """Pretrains without labels, probes and fine-tunes with few, by a fixed protocol, and writes the tables.

    `data` is a folder in COCO's or Pascal VOC's layout with a training and a validation split. Pretraining sees the
    images of the training split and no label of it, or those of `images`. `protocol` is one of `PROTOCOLS` or
    your own. All pieces of a seed come before the next seed's. `execution.max_steps` counts for each run.

    The same call resumes after an interruption, and more seeds may be added; a run that diverges is recorded, and not
    run again unless `retry_diverged`. SIGINT and SIGTERM end the call after the step or the probe that is running.
    InputError for data that cannot be used, and for an output that holds something else.
    """
    require_one_process("reproduce")
    if isinstance(protocol, str) and protocol not in PROTOCOLS:
        raise InputError(f"--budget {protocol}: unknown; choose one of {', '.join(PROTOCOLS)}")
    chosen = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    seeds = chosen.seeds if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds must be one or more different numbers, not {seeds}")
    if not Path(data).is_dir():
        raise InputError(f"{data}: is no folder; give one in COCO's or VOC's layout with a training and validation set")
    train, val = (open_detection_set(data, split=split, check_images=True) for split in ("train", "val"))
    val = with_classes_of(train, val)
    for given in (train, val) if show_progress else ():
        report_problems(given)
    execution = execution or ExecutionSettings()
    detectors = FinetuningRuns.open(
        train,
        val,
        settings=chosen.finetuning,
        model=chosen.methods()[0].recipe.model,
        evaluation=chosen.evaluation,
        execution=execution,
        show_progress=show_progress,
    )
    detectors.check_fractions(chosen.fractions, seeds)
    study = Study(Path(output), "reproduction", show_progress=show_progress)
    source = _prepare(study, chosen, train, val, images, overwrite=overwrite)
    tables = _tables(study, chosen, source, train)
    runs = PretrainingRuns(source, tables, execution, show_progress)
    benchmark = _Benchmark(study, chosen, runs, detectors, ProbeSets.chosen(train, val, PROBE))
    jobs = [job for seed in seeds for job in benchmark.jobs(seed)]

    def found(stopped_by: str | None = None) -> Reproduction:
        return Reproduction(study, chosen, study.outcomes(jobs), stopped_by)

    stopped_by = study.run(jobs, lambda: found().write(), retry_diverged=retry_diverged)
    found().write()
    found().detectors.write_figures(study.folder)
    return found(stopped_by)


@dataclass(frozen=True)
class _Benchmark:
    """What the jobs of every seed share."""

    study: Study
    protocol: Protocol
    runs: PretrainingRuns
    detectors: FinetuningRuns
    sets: ProbeSets

    def jobs(self, seed: int) -> Iterator[Job]:
        """Every piece with a seed: each method, and right after it the detectors from it."""
        for method in self.protocol.methods():
            run = f"{method.name}/seed-{seed}"
            labels: dict[str, Label] = {"method": method.name, "seed": seed}
            about = f"{method.name}, seed {seed}: {method.what}"
            probes = partial(self._probes, method=method, untrained=False)
            yield self.runs.job(run, method.recipe, labels, about, probes, boxes=method.boxes)
            if method.name == "soco":
                yield self._untrained(method, seed, run)
                yield from self._detectors(SCRATCH, SCRATCH, seed)
            if method.finetuned:
                yield from self._detectors(method.name, self.study.folder / run, seed, needs=(run,))

    def _detectors(self, init: str, source: str | Path, seed: int, needs: tuple[str, ...] = ()) -> Iterator[Job]:
        for fraction in self.protocol.fractions:
            yield self.detectors.job_from(init, source, fraction, seed, "finetune", needs)

    def _untrained(self, soco: PretrainingMethod, seed: int, run: str) -> Job:
        def probes(_folder: Path) -> JobResult:
            return JobResult(self._probes(self.study.folder / run, soco, untrained=True))

        about = f"{UNTRAINED}, seed {seed}: SoCo's networks before training"
        return Job(f"{UNTRAINED}/seed-{seed}", {"method": UNTRAINED, "seed": seed}, about, probes, needs=(run,))

    def _probes(self, run: Path, method: PretrainingMethod, *, untrained: bool) -> dict[str, Any]:
        """The probe of the box head's features, where there is a box head, and of the backbone's."""
        has_more = encoder_class(method.recipe.model).has_pyramid
        whose: tuple[Literal["head", "backbone"], ...] = ("head", "backbone") if has_more else ("backbone",)
        scores = {
            of: probe(
                run,
                self.sets,
                settings=replace(PROBE, of=of),
                untrained=untrained,
                device=self.runs.execution.device,
                workers=self.runs.execution.workers,
                show_progress=self.study.show_progress,
            ).as_dict()
            for of in whose
        }
        return {"probe": scores}


def _tables(study: Study, protocol: Protocol, source: ImageSource, train: DetectionDataset) -> dict[str, ProposalTable]:
    """The boxes that the methods learn from, by name."""
    wanted, given = {method.boxes: method.recipe.proposals for method in protocol.methods()}, {}
    if "annotated" in wanted:
        given["annotated"] = study.folder / "proposals-annotated.parquet"
        if not given["annotated"].exists():
            boxes = study.folder / ANNOTATED
            write_atomically(boxes, json.dumps(_boxes_by_stem(train)).encode())
            convert_proposals(source, boxes, given["annotated"], settings=wanted["annotated"])
    return proposal_tables(study.folder, source, wanted, given, show_progress=study.show_progress)


def _boxes_by_stem(data: DetectionDataset) -> dict[str, list[list[float]]]:
    """The annotated boxes in the form of the method's public code: file stem → [[x, y, width, height], …]."""
    return {
        image.file.stem: [
            [float(x1), float(y1), float(x2 - x1), float(y2 - y1)] for x1, y1, x2, y2 in image.boxes[~image.crowd]
        ]
        for image in data.images
    }


def _prepare(
    study: Study,
    protocol: Protocol,
    train: DetectionDataset,
    val: DetectionDataset,
    images: str | Path | None,
    *,
    overwrite: bool,
) -> ImageSource:
    """Makes the folder, or finds in it the benchmark that is asked for; returns the images to pretrain on."""
    if images is not None and "annotated" in protocol.boxes:
        raise InputError(
            "--images: this budget also pretrains on the annotated boxes, so on the labelled set's own images; leave "
            "--images out"
        )
    described = asdict(protocol)
    del described["seeds"]  # more may come
    shown = {"count": len(train), "names_sha256": "of the training set"}
    source = None if images is None else open_images(images)
    if source is not None:
        shown = {"count": len(source), "names_sha256": digest_names(source)}
    asked = {
        "protocol": described,
        "train": {"name": train.name, "images": len(train), "sha256": digest(train)},
        "val": {"name": val.name, "images": len(val), "sha256": digest(val)},
        "images": shown,
        "socodet": __version__,
    }
    study.find(asked, overwrite=overwrite)
    files = [*TABLES, *FIGURES, IMAGES, ANNOTATED, "proposals-*", ".proposals-*"]
    study.begin(asked, files, overwrite=overwrite)
    if source is not None:
        return source
    # In the order of the set; only names are kept, so that a set that has moved is still the same one.
    write_atomically(study.folder / IMAGES, "".join(f"{image.file}\n" for image in train.images).encode())
    return open_images(study.folder / IMAGES)
