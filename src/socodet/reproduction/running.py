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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import socodet
from socodet.comparison.protocol import Init
from socodet.comparison.running import compare
from socodet.detection.datasets import DetectionDataset, open_detection_set
from socodet.detection.datasets.layouts import require_same_categories
from socodet.detection.finetune import SCRATCH
from socodet.detection.finetuned_run import digest
from socodet.detection.labelled_sets import say_what_is_wrong
from socodet.detection.probing.measure import ProbeSets, ProbeSettings
from socodet.detection.probing.run import probe
from socodet.errors import InputError
from socodet.images.source import ImageSource, open_images
from socodet.preparation import digest_names
from socodet.pretraining import pretrain
from socodet.proposals import convert_proposals, propose
from socodet.reproduction.protocol import PROTOCOLS, Method, Protocol
from socodet.reproduction.table import NOTE, TABLES, UNTRAINED, Reproduction
from socodet.training.engine import DivergedError
from socodet.training.run import RunFolder, first_difference, write_atomically
from socodet.training.settings import ExecutionSettings
from socodet.world import world_from_environment

PROBE = ProbeSettings(val_pictures=None)


def reproduce(
    data: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    protocol: str | Protocol = "cpu",
    seeds: tuple[int, ...] | None = None,
    execution: ExecutionSettings | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Reproduction:
    """Pretrains without labels, probes and fine-tunes with few, by a fixed protocol, and writes the tables.

    `data` is a folder in COCO's or Pascal VOC's layout with a training and a validation split. Pretraining sees the
    pictures of the training split and no label of it, or those of `images`. `protocol` is one of `PROTOCOLS` or
    your own. All pieces of a seed come before the next seed's.

    The same call goes on after an interruption, piece by piece, and more seeds may be asked for; a run that diverges
    is recorded as such. SIGINT and SIGTERM end the call after the step under way.
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
    work = _Work(folder, chosen, train, val, source, sets, execution or ExecutionSettings(), show_progress)
    stopped_by = None
    try:
        for seed in seeds:
            stopped_by = work.seed(seed)
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

    def seed(self, seed: int) -> str | None:
        """Every piece with a seed; the signal that ended it early, or None."""
        methods = self.protocol.methods()
        last_needed = max(number for number, method in enumerate(methods) if method.finetuned)
        for number, method in enumerate(methods):
            stopped_by = self._pretrained(method, seed)
            if stopped_by is None and number == last_needed:
                self.write(None)
                stopped_by = self._finetuned(seed)
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
        if record.exists():
            return None
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
            _record(record, {"status": f"diverged at step {error.step}"})
            self._say(f"{error}\n{method.name}: recorded as diverged; the others go on")
            return None
        if not result.finished:
            return result.stopped_by
        untrained = self.folder / f"{UNTRAINED}-seed-{seed}.json"
        if method.name == "soco" and not untrained.exists():
            _record(untrained, {"status": "finished", "probe": self._probes(run, method, untrained=True)})
        scores = self._probes(run, method, untrained=False)
        seconds = _seconds(run, recipe.training.batch_size)
        _record(record, {"status": "finished", "steps": result.total_steps, "seconds": seconds, "probe": scores})
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
        finished = [
            method
            for method in self.protocol.methods()
            if method.finetuned
            and (self.folder / method.name / f"seed-{seed}").is_dir()
            and self._ended_well(method, seed)
        ]
        runs = [Init(method.name, str(self.folder / method.name / f"seed-{seed}")) for method in finished]
        begun = time.monotonic()
        found = compare(
            self.train,
            self.folder / "finetune" / f"seed-{seed}",
            [Init(SCRATCH, SCRATCH), *runs],
            seeds=(seed,),
            fractions=self.protocol.fractions,
            val=self.val,
            execution=self.execution,
            model=self.protocol.methods()[0].recipe.model,
            show_progress=self.show_progress,
            **self.protocol.finetuning,
        )
        self._say(f"fine-tuning with seed {seed}: {time.monotonic() - begun:.0f} s in this call")
        return found.stopped_by

    def _ended_well(self, method: Method, seed: int) -> bool:
        noted = json.loads((self.folder / method.name / f"seed-{seed}.json").read_text())
        return bool(noted["status"] == "finished")

    def _proposals(self, method: Method) -> Path:
        """The table of the boxes that a method learns from, made when it is first asked for."""
        kind = method.boxes if method.boxes == "annotated" else method.recipe.proposals.method
        table = self.folder / f"proposals-{kind}.parquet"
        if table.exists():
            return table
        if kind == "annotated":
            names = self.folder / "annotated.json"
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
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give a folder for --output")
    if folder.is_dir() and any(folder.iterdir()) and not note.exists():
        raise InputError(f"{folder}: holds files that are not of this benchmark; give another --output")
    if images is None:
        folder.mkdir(parents=True, exist_ok=True)
        listed = folder / "pictures.txt"
        write_atomically(listed, "".join(f"{image.file}\n" for image in train.images).encode())
        images = listed
    elif "annotated" in protocol.boxes:
        raise InputError(
            "--images: this budget also pretrains on the annotated boxes, so on the labelled set's own pictures; leave "
            "--images out"
        )
    source = open_images(images)
    described = json.loads(json.dumps(dataclasses.asdict(protocol)))
    del described["seeds"]  # more may come
    asked = {
        "protocol": described,
        "images": {"count": len(source), "names_sha256": digest_names(source)},
        "train": {"name": train.name, "images": len(train), "sha256": digest(train)},
        "val": {"name": val.name, "images": len(val), "sha256": digest(val)},
        "socodet": socodet.__version__,
    }
    if note.exists() and not overwrite:
        difference = first_difference(asked, json.loads(note.read_text()))
        if difference:
            raise InputError(
                f"{folder}: holds another benchmark: {difference}; give another --output, or pass --overwrite to "
                "lose it"
            )
    elif note.exists():
        _clear(folder, protocol)
    _record(note, asked)
    return source


def _clear(folder: Path, protocol: Protocol) -> None:
    """Removes what the benchmark writes, and nothing else."""
    for path in folder.iterdir():
        known = {method.name for method in protocol.methods()} | {"finetune"}
        if path.is_dir() and path.name in known:
            shutil.rmtree(path)
        elif path.name in TABLES or path.name.startswith((f"{UNTRAINED}-seed-", "proposals-")):
            path.unlink()


def _seconds(run: Path, batch: int) -> float:
    """Seconds of the training steps, those before an interruption included."""
    seconds, earlier = 0.0, 0
    for line in RunFolder(run).log_lines():
        if "images_per_second" in line:
            seconds += (line["step"] - earlier) * batch / line["images_per_second"]
            earlier = line["step"]
    return seconds


def _record(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2).encode() + b"\n")
