"""The commands that are tested with faults, at their smallest, and what each produces without a fault."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from injected import without_times
from photograph_sets import coco_file

from socodet.cli import main
from socodet.images.photographs import photographs
from socodet.training.run_folder import RunFolder


def words(*lines: str) -> list[str]:
    """Splits a command line."""
    return " ".join(lines).split()


NETWORK = words("--backbone timm/test_resnet --fpn-channels 8 --head-channels 8 --representation-size 8")
ON = words("--device cpu --workers 0 --log-every 1")
SOCO = words(
    "--recipe tiny --epochs 3 --batch-size 4 --hidden-size 8 --embedding-size 8 --checkpoint-every 1",
    "--views.0.size 32 --views.1.size 32 --views.2.size 32",
)
DETECTOR = words(
    "--detector faster_rcnn_fpn --schedule voc_24k --iterations 3 --batch-size 2 --size 32 --rois-per-image 4",
    "--precise-bn 0 --checkpoint-every 1 --evaluation.every 2",
)
STUDY = words(
    "--steps 2 --backbone timm/test_resnet --size 32 --shortest 1 --longest 1 --fractions 1 --folds 0 --only soco",
    "--finetuning.batch-size 2 --finetuning.size 32 --finetuning.rois-per-image 4 --finetuning.precise-bn 0",
)
NAMES = ("astronaut", "cameraman", "chelsea", "rocket")


@dataclass(frozen=True)
class Tried:
    """A command; `found` returns its result in a comparable form."""

    name: str
    arguments: Callable[[Path, Path], list[str]]
    """Its arguments, given the folder of inputs and the output folder."""
    found: Callable[[Path], Any]


def run_found(folder: Path) -> Any:
    """Weights and log lines of a training run."""
    run = RunFolder(folder)
    state = run.load_checkpoint()
    assert state is not None
    lines: dict[Any, Any] = {}
    for line in run.log_lines():
        lines.setdefault(line["step"], {}).update(without_times(line))
    return {"state": flat(state), "lines": lines}


def flat(state: Any) -> Any:
    """A state with tensors as lists."""
    if isinstance(state, dict):
        return {key: flat(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [flat(value) for value in state]
    return state.tolist() if hasattr(state, "tolist") else state


def bytes_found(folder: Path) -> dict[str, bytes]:
    """Every finished file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def json_found(*names: str) -> Callable[[Path], Any]:
    """The contents of the JSON files."""
    return lambda folder: [without_times(json.loads((folder / name).read_text())) for name in names]


def line(name: str, source: str, output: str, *flags: str) -> Callable[[Path, Path], list[str]]:
    """A command that reads `source` from the inputs and writes `output`."""
    return lambda given, out: [*name.split(), str(given / source), "--output", str(out / output), *flags]


def finetuning(given: Path, out: Path) -> list[str]:
    """Fine-tuning with the training set as validation set."""
    data = str(given / "set.json")
    return ["finetune", data, "--val", data, "--output", str(out / "run"), *DETECTOR, *NETWORK, *ON, "--resume"]


def predicting(given: Path, out: Path) -> list[str]:
    """Prediction with drawings."""
    return [
        *("predict", str(given / "detector"), str(given / "images"), "--output", str(out / "found")),
        *words("--device cpu --workers 0 --draw"),
    ]


COMMANDS = (
    Tried(
        "propose",
        line("propose", "images", "table.parquet", "--workers", "1"),
        lambda folder: bytes_found(folder)["table.parquet"],
    ),
    Tried("pack", line("pack", "images", "packed", "--shard-images", "2"), bytes_found),
    Tried("convert", line("convert", "set.json", "coco.json"), bytes_found),
    Tried(
        "pretrain",
        line("pretrain", "images", "run", *SOCO, *NETWORK, *ON, "--resume"),
        lambda folder: run_found(folder / "run"),
    ),
    Tried("finetune", finetuning, lambda folder: run_found(folder / "run")),
    Tried("predict", predicting, json_found("found/predictions.json")),
    Tried(
        "study",
        line("reproduce own-data --data", "", "study", *STUDY, *ON),
        json_found("study/results.json"),
    ),
)


def make_inputs(folder: Path) -> None:
    """Makes photographs, an annotated dataset of them, and a detector."""
    (folder / "images").mkdir(parents=True)
    for name in NAMES:
        (folder / "images" / f"{name}.jpg").write_bytes((photographs() / f"{name}.jpg").read_bytes())
    coco_file(folder / "set.json", NAMES, masks=False)
    for split in ("train", "val"):
        coco_file(folder / f"{split}.json", NAMES, masks=False)
    data = str(folder / "set.json")
    main(["finetune", data, "--val", data, "--output", str(folder / "detector"), *DETECTOR, *NETWORK, *ON])
