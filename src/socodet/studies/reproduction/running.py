"""Runs the benchmark one piece after another; what is done stays done.

DIR/reproduction.json           what was asked
DIR/pictures.txt                the pictures pretrained on, where no others were given
DIR/proposals-KIND.parquet      the boxes that all seeds share
DIR/METHOD/seed-S/              a pretraining run's folder
DIR/METHOD/seed-S.json          its steps, seconds and probe
DIR/untrained-seed-S.json       the probe of SoCo's networks before any training
DIR/finetune/seed-S/            a comparison's folder: detectors from scratch and from the runs of that seed
DIR/results.md .json            the tables and every figure behind them
"""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from socodet._version import __version__
from socodet.detection.datasets import DetectionDataset, open_detection_set
from socodet.detection.datasets.layouts import require_same_categories
from socodet.errors import InputError
from socodet.finetuning.finetune import SCRATCH
from socodet.finetuning.labelled_sets import say_what_is_wrong
from socodet.finetuning.run import digest
from socodet.images.source import ImageSource, open_images
from socodet.pretraining.preparation import digest_names
from socodet.pretraining.pretrain import pretrain
from socodet.probing.probe import probe
from socodet.probing.sets import ProbeSets
from socodet.probing.settings import ProbeSettings
from socodet.proposals.conversion import convert_proposals
from socodet.proposals.make_table import propose
from socodet.runtime.files import read_note, refuse_foreign_folder, refuse_other_note, write_atomically, write_note
from socodet.runtime.world import world_from_environment
from socodet.studies.comparison.protocol import Init
from socodet.studies.comparison.running import compare
from socodet.studies.reproduction.protocol import PROTOCOLS, Method, Protocol
from socodet.studies.reproduction.table import FINETUNE, NOTE, TABLES, UNTRAINED, Reproduction
from socodet.training.loop import DivergedError
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.signals import stop_requests

PROBE = ProbeSettings(val_pictures=None)
PICTURES = "pictures.txt"
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
    pictures of the training split and no label of it, or those of `images`. `protocol` is one of `PROTOCOLS` or
    your own. All pieces of a seed come before the next seed's.

    The same call goes on after an interruption, piece by piece, and more seeds may be asked for; a run that diverges
    is recorded, and not run again unless `retry_diverged`. SIGINT and SIGTERM end the call after the step or the probe
    under way.
    InputError for data that cannot be used, and for an output that holds something else.
    """
    if world_from_environment(meeting=False).size > 1:
        raise InputError("reproduce: runs in one process; start it without torchrun or srun")
    if isinstance(protocol, str) and protocol not in PROTOCOLS:
        raise InputError(f"--budget {protocol}: unknown; choose one of {', '.join(PROTOCOLS)}")
    chosen = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    seeds = chosen.seeds if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds must be one or more different numbers, not {seeds}")
    if not Path(data).is_dir():
        raise InputError(f"{data}: is no folder; give one in COCO's or VOC's layout with a training and validation set")
    train, val = (open_detection_set(data, split=split, check_images=True) for split in ("train", "val"))
    require_same_categories(train, val)
    for given in (train, val) if show_progress else ():
        say_what_is_wrong(given)
    folder = Path(output)
    source = _prepare(folder, chosen, train, val, images, overwrite=overwrite)
    sets = ProbeSets.chosen(train, val, PROBE)
    work = _Work(
        folder, chosen, train, val, source, sets, execution or ExecutionSettings(), show_progress, retry_diverged
    )
    stopped_by = None
    try:
        with stop_requests() as requests:
            for seed in seeds:
                stopped_by = work.seed(seed, requests)
                if stopped_by is not None:
                    break
    except KeyboardInterrupt:
        stopped_by = "SIGINT"
    return work.write(stopped_by)


@dataclass(frozen=True)
class _Work:
    """What is done for every seed."""

    folder: Path
    protocol: Protocol
    train: DetectionDataset
    val: DetectionDataset
    source: ImageSource
    sets: ProbeSets
    execution: ExecutionSettings
    show_progress: bool
    retry_diverged: bool

    def seed(self, seed: int, requests: Sequence[str]) -> str | None:
        """Every piece with a seed; the signal that ended it early, or None."""
        methods = self.protocol.methods()
        last_needed = max(number for number, method in enumerate(methods) if method.finetuned)
        for number, method in enumerate(methods):
            stopped_by = self._pretrained(method, seed)
            if stopped_by is None and number == last_needed:
                self.write(None)
                stopped_by = self._finetuned(seed)
            if requests:  # asked between two runs
                stopped_by = stopped_by or requests[0]
            self.write(stopped_by)
            if stopped_by is not None:
                return stopped_by
        return None

    def write(self, stopped_by: str | None) -> Reproduction:
        """The tables of what is there."""
        found = Reproduction(self.folder, self.protocol, stopped_by)
        found.write()
        return found

    def _pretrained(self, method: Method, seed: int) -> str | None:
        """A method's run and its probe; the signal that kept it from its end, or None."""
        record = self.folder / method.name / f"seed-{seed}.json"
        noted = read_note(record)
        if noted is not None and not (self.retry_diverged and noted["status"] == "diverged"):
            return None
        record.unlink(missing_ok=True)
        run = self.folder / method.name / f"seed-{seed}"
        recipe = method.with_seed(seed)
        self._say(f"{method.name}, seed {seed}: {method.what}")
        try:
            result = pretrain(
                self.source,
                recipe,
                run,
                proposals=self._proposals(method),
                execution=self.execution,
                resume=True,
                show_progress=self.show_progress,
            )
        except DivergedError as error:
            write_note(record, {"status": "diverged", "step": error.step, "why": str(error)})
            self._say(f"{error}\n{method.name}: recorded as diverged; the others go on")
            return None
        if not result.finished:
            return result.stopped_by
        untrained = self.folder / f"{UNTRAINED}-seed-{seed}.json"
        if method.name == "soco" and not untrained.exists():
            write_note(untrained, {"status": "finished", "probe": self._probes(run, method, untrained=True)})
        scores = self._probes(run, method, untrained=False)
        seconds = RunFolder(run).training_seconds(recipe.training.batch_size)
        write_note(record, {"status": "finished", "steps": result.total_steps, "seconds": seconds, "probe": scores})
        return None

    def _probes(self, run: Path, method: Method, *, untrained: bool) -> dict[str, Any]:
        """By whose vector of an object is asked: the box head's, where there is one, and the backbone's."""
        whose: tuple[Literal["head", "backbone"], ...] = (
            ("backbone",) if method.recipe.model.architecture in ("image", "c5") else ("head", "backbone")
        )
        return {
            of: probe(
                run,
                self.sets,
                settings=dataclasses.replace(PROBE, of=of),
                untrained=untrained,
                device=self.execution.device,
                workers=self.execution.workers,
                show_progress=self.show_progress,
            ).as_dict()
            for of in whose
        }

    def _finetuned(self, seed: int) -> str | None:
        """Detectors from scratch and from the runs of this seed."""
        finished = [method for method in self.protocol.methods() if method.finetuned and self._ended_well(method, seed)]
        runs = [Init(method.name, str(self.folder / method.name / f"seed-{seed}")) for method in finished]
        begun = time.monotonic()
        found = compare(
            self.train,
            self.folder / FINETUNE / f"seed-{seed}",
            [Init(SCRATCH, SCRATCH), *runs],
            self.protocol.finetuning,
            seeds=(seed,),
            fractions=self.protocol.fractions,
            val=self.val,
            execution=self.execution,
            retry_diverged=self.retry_diverged,
            model=self.protocol.methods()[0].recipe.model,
            evaluation=self.protocol.evaluation,
            show_progress=self.show_progress,
        )
        self._say(f"fine-tuning with seed {seed}: {time.monotonic() - begun:.0f} s in this call")
        unfinished = any(not run.finished and not run.diverged for run in found.runs)
        return found.stopped_by or ("max_steps" if unfinished else None)

    def _ended_well(self, method: Method, seed: int) -> bool:
        noted = json.loads((self.folder / method.name / f"seed-{seed}.json").read_text())
        return bool(noted["status"] == "finished")

    def _proposals(self, method: Method) -> Path:
        """The table of the boxes that a method learns from, made when it is first asked for."""
        kind = "annotated" if method.annotated else method.recipe.proposals.method
        table = self.folder / f"proposals-{kind}.parquet"
        if table.exists():
            return table
        if kind == "annotated":
            names = self.folder / ANNOTATED
            write_atomically(names, json.dumps(_boxes_by_stem(self.train)).encode())
            convert_proposals(self.source, names, table, settings=method.recipe.proposals)
        else:
            propose(self.source, table, settings=method.recipe.proposals, show_progress=self.show_progress)
        return table

    def _say(self, line: str) -> None:
        if self.show_progress:
            print(line, file=sys.stderr)


def _boxes_by_stem(data: DetectionDataset) -> dict[str, list[list[float]]]:
    """The annotated boxes in the form of the method's public code: file stem → [[x, y, width, height], …]."""
    return {
        image.file.stem: [
            [float(x1), float(y1), float(x2 - x1), float(y2 - y1)] for x1, y1, x2, y2 in image.boxes[~image.crowd]
        ]
        for image in data.images
    }


def _prepare(
    folder: Path,
    protocol: Protocol,
    train: DetectionDataset,
    val: DetectionDataset,
    images: str | Path | None,
    *,
    overwrite: bool,
) -> ImageSource:
    """Makes the folder, or finds in it the benchmark that is asked for; the pictures to pretrain on."""
    note = folder / NOTE
    refuse_foreign_folder(folder, note, "this benchmark")
    if images is not None and "annotated" in protocol.boxes:
        raise InputError(
            "--images: this budget also pretrains on the annotated boxes, so on the labelled set's own pictures; leave "
            "--images out"
        )
    described = json.loads(json.dumps(dataclasses.asdict(protocol)))
    del described["seeds"]  # more may come
    asked = {
        "protocol": described,
        "train": {"name": train.name, "images": len(train), "sha256": digest(train)},
        "val": {"name": val.name, "images": len(val), "sha256": digest(val)},
        "socodet": __version__,
    }
    there = read_note(note)
    if there is not None and overwrite:
        _clear(folder)
    elif there is not None:
        refuse_other_note(folder, asked, {name: there.get(name) for name in asked}, "a benchmark")
    source = open_images(images) if images is not None else None
    shown = {"count": len(train), "names_sha256": "of the training set"}
    if source is not None:
        shown = {"count": len(source), "names_sha256": digest_names(source)}
    if there is not None and not overwrite:
        refuse_other_note(folder, {"images": shown}, {"images": there["images"]}, "a benchmark")
    write_note(note, {**asked, "images": shown})
    if source is not None:
        return source
    # In the order of the set; only names are kept, so that a set that has moved is still the same one.
    write_atomically(folder / PICTURES, "".join(f"{image.file}\n" for image in train.images).encode())
    return open_images(folder / PICTURES)


def _clear(folder: Path) -> None:
    """Removes what a benchmark of any protocol writes, and nothing else."""
    for path in folder.iterdir():
        if path.is_dir() and (path.name == FINETUNE or any(path.glob("seed-*/run.json"))):
            shutil.rmtree(path)
        elif path.name in (*TABLES, PICTURES, ANNOTATED) or path.name.startswith((f"{UNTRAINED}-seed-", "proposals-")):
            path.unlink()
