"""What pretraining on a dataset's own images adds to ImageNet weights: detectors with 10% of the labels, on one GPU.

    python benchmarks/imagenet_starts.py --data DIR --weights FILE --output OUT [--minutes 9]

DIR holds annotated datasets with a training and a validation split: neu_det, cards and voc2007test. FILE has ImageNet
weights of --backbone. All pretraining runs in `PIECES` start from them and run at the same time, each for as many steps
as fit into --pretraining-seconds at the rate measured first. Detectors are fine-tuned as soon as their start is ready,
--processes at a time, the main starts' folds first. After --minutes everything stops; the same command resumes.
OUT/results.json has an object for every finished piece: for pretraining its recipe, steps, seconds and rank; for a
detector AP and AP50 in percent, and its curve.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many processes with one thread each
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

from machine import machine

FRACTION, FOLDS, BATCH = 0.1, (0, 1, 2, 3, 4), 64


@dataclass(frozen=True)
class Piece:
    """How to use a dataset: its starts, and settings for pretraining and fine-tuning."""

    size: int
    """Side of pretraining's first view, in pixels."""
    finetuning_size: int
    steps: int
    """Fine-tuning steps, with batches of 8."""
    starts: dict[str, float]
    """Pretrained starts, each with the backbone's learning rate relative to the other modules'."""


PIECES = {
    "neu_det": Piece(96, 160, 1000, {"imagenet_soco": 0.1, "imagenet_soco_full": 1.0, "imagenet_image": 0.1}),
    "cards": Piece(128, 192, 600, {"imagenet_soco": 0.1, "imagenet_soco_frozen": 0.0}),
    "voc2007test": Piece(96, 128, 1000, {"imagenet_soco": 0.1, "imagenet_soco_frozen": 0.0}),
}
BASE, FIRST = "imagenet", "imagenet_soco"
"""The folds of these starts are fine-tuned first."""


@dataclass(frozen=True)
class Study:
    """The settings that every process needs."""

    data: Path
    weights: Path
    backbone: str
    output: Path
    seconds: float
    device: Literal["auto", "cpu", "cuda"]
    workers: int

    def steps_of(self, name: str, start: str) -> Path:
        """The file with the number of steps of a pretraining run, written once its rate is known."""
        return self.output / name / f"{start}.steps"

    def table(self, name: str) -> Path:
        """The proposal table of a dataset."""
        return self.output / f"{name}.parquet"


def prepare(study: Study, name: str) -> None:
    """Surveys the images and makes their proposals, once, before anything else."""
    from socodet import propose
    from socodet.images.source import as_source
    from socodet.pretraining.survey import survey_images

    images, noted = study.data / name / "train.json", study.output / f"{name}.json"
    if not noted.exists():
        noted.write_text(json.dumps(dataclasses.asdict(survey_images(as_source(images)))))
    if not study.table(name).exists():
        propose(images, study.table(name), settings=recipe_of(study, name, FIRST, 1000).proposals)


def recipe_of(study: Study, name: str, start: str, steps: int) -> Any:
    from socodet.pretraining.recipes.auto import plan
    from socodet.pretraining.recipes.choices import Given
    from socodet.pretraining.recipes.whole_images import image_level_recipe
    from socodet.pretraining.survey import ImageSurvey, Machine

    piece = PIECES[name]
    survey = ImageSurvey(**json.loads((study.output / f"{name}.json").read_text()))
    given = Given(steps=steps, batch=BATCH, backbone=study.backbone, size=piece.size)
    found = plan(survey, Machine(study.device, 139.0), given).recipe
    found = image_level_recipe(found) if start.endswith("_image") else found
    return dataclasses.replace(found, training=dataclasses.replace(found.training, backbone_lr=piece.starts[start]))


def pretraining(study: Study, name: str, start: str, together: Any) -> dict[str, Any]:
    """Measures the rate at the same time as the other runs, then pretrains for as long as allowed."""
    from socodet import pretrain
    from socodet.runtime.serialization import to_json
    from socodet.training.run_folder import RunFolder
    from socodet.training.settings import ExecutionSettings

    folder = study.output / name / start
    images = study.data / name / "train.json"
    note = study.steps_of(name, start)
    execution = ExecutionSettings(study.device, workers=study.workers, log_every=20)

    def run(steps: int, output: Path, stop_after: int | None = None) -> Any:
        return pretrain(
            images,
            recipe_of(study, name, start, steps),
            output,
            proposals=study.table(name),
            start_from=study.weights,
            execution=dataclasses.replace(execution, max_steps=stop_after),
            resume=True,
            show_progress=False,
        )

    if not note.exists():
        trial = folder.with_name(f"{start}_trial")
        run(10_000, trial, 20)
        _meet(together)
        began = time.monotonic()
        run(10_000, trial, 120)
        rate = list(RunFolder(trial).log_lines())[-1]["images_per_second"] / BATCH
        _meet(together)
        note.write_text(str(max(200, int(rate * study.seconds))))
        print(f"{name} {start}: {rate:.1f} steps/s, {time.monotonic() - began:.0f} s for the trial", flush=True)
    steps = int(note.read_text())
    began = time.monotonic()
    result = run(steps, folder)
    lines = list(RunFolder(folder).log_lines())
    return {
        "set": name,
        "start": start,
        "steps": result.steps,
        "seconds": round(time.monotonic() - began, 1),
        "recipe": to_json(recipe_of(study, name, start, steps)),
        "log": [
            {key: line[key] for key in ("step", "loss", "effective_rank", "images_per_second") if key in line}
            for line in lines[:: max(1, len(lines) // 10)]
        ],
    }


def _meet(together: Any) -> None:
    with suppress(threading.BrokenBarrierError):  # another run failed: measure the rate without it
        together.wait(120)


@cache
def _detectors(study: Study, name: str) -> Any:
    from socodet.finetuning.settings import FinetuneSettings
    from socodet.studies.finetuning_runs import FinetuningRuns
    from socodet.training.settings import ExecutionSettings

    piece = PIECES[name]
    settings = FinetuneSettings(
        "faster_rcnn_fpn",
        "voc_24k",
        batch_size=8,
        size=piece.finetuning_size,
        rois_per_image=64,
        precise_bn=10,
        iterations=piece.steps,
    )
    return FinetuningRuns.open(
        study.data / name,
        None,
        settings=settings,
        model=recipe_of(study, name, FIRST, 1000).model,
        evaluations=2,
        execution=ExecutionSettings(study.device, workers=1, checkpoint_every=400),
        show_progress=False,
    )


def finetuning(study: Study, name: str, start: str, fold: int) -> dict[str, Any]:
    source = study.weights if start == BASE else study.output / name / start
    began = time.monotonic()
    found = _detectors(study, name).run(study.output / name / f"{start}_fold-{fold}", source, FRACTION, fold).results
    scores = found["scores"]
    return {
        "set": name,
        "start": start,
        "fraction": FRACTION,
        "fold": fold,
        "AP": scores["box_AP"],
        "AP50": scores["box_AP50"],
        "steps": found["steps"],
        "seconds": round(time.monotonic() - began, 1),
        "curve": [[line["step"], line["box_AP"]] for line in found["curve"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pretraining-seconds", type=float, default=230)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument(
        "--meanwhile", type=int, default=2, help="number of detectors fine-tuned while pretraining is in progress"
    )
    parser.add_argument("--workers", type=int, default=2, help="data workers per pretraining run")
    parser.add_argument("--sets", nargs="+", default=list(PIECES), choices=list(PIECES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    args.output.mkdir(parents=True, exist_ok=True)
    study = Study(
        args.data, args.weights, args.backbone, args.output, args.pretraining_seconds, args.device, args.workers
    )
    for name in args.sets:
        prepare(study, name)
    file = args.output / "results.json"
    done: list[dict[str, Any]] = json.loads(file.read_text())["pieces"] if file.exists() else []
    finished = {(one["set"], one["start"], one.get("fold")) for one in done}
    starts = [(name, start) for name in args.sets for start in PIECES[name].starts]
    to_pretrain = [one for one in starts if (*one, None) not in finished]
    detectors = [(name, start, fold) for fold in FOLDS for name in args.sets for start in (BASE, *PIECES[name].starts)]
    waiting = [one for one in detectors if one not in finished]
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(args.processes, mp_context=context) as pool:
        unmeasured = [one for one in to_pretrain if not study.steps_of(*one).exists()]
        together = manager.Barrier(max(1, len(unmeasured)))
        running: dict[Future[dict[str, Any]], tuple[str, str, int | None]] = {
            pool.submit(pretraining, study, *one, together): (*one, None) for one in to_pretrain
        }
        while waiting or running:
            pretrained = {one[:2] for one in finished if one[2] is None} | {(name, BASE) for name in args.sets}
            busy = any(fold is None for *_, fold in running.values())
            room = (len(to_pretrain) + args.meanwhile if busy else args.processes) - len(running)
            for one in [one for one in waiting if one[:2] in pretrained][: max(0, room)]:
                waiting.remove(one)
                running[pool.submit(finetuning, study, *one)] = one
            ended, _ = wait(running, timeout=deadline - time.monotonic(), return_when=FIRST_COMPLETED)
            for future in ended:
                piece = running.pop(future)
                if error := future.exception():
                    traceback.print_exception(error)
                    waiting = [one for one in waiting if piece[2] is not None or one[:2] != piece[:2]]
                    continue
                finished.add(piece)
                done.append(future.result())
                shown = {key: value for key, value in done[-1].items() if key not in ("recipe", "log", "curve")}
                print(json.dumps(shown), flush=True)
                about = {"machine": machine(), "arguments": {k: str(v) for k, v in vars(args).items()}}
                file.write_text(json.dumps({**about, "pieces": done}, indent=1))
            if not ended:  # time is up
                print(f"{len(running)} pieces were under way and {len(waiting)} waiting", flush=True)
                for process in multiprocessing.active_children():
                    process.kill()
                os._exit(1)  # otherwise the pool would wait for submitted work
    if len(finished) < len(starts) + len(detectors):
        sys.exit("some pieces failed; the same command tries them again")


if __name__ == "__main__":
    main()
