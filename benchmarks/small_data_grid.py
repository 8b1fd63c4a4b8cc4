"""Which settings help on small datasets: pretrain, probe, and fine-tune with few labels; one row per setting.

python benchmarks/small_data_grid.py --data DIR --output RUNS [--only TEXT ...] [--collect FILE.json]

DIR holds annotated datasets in COCO format, each a folder with train.json and images. The training split is divided
once: pretraining uses all its images without labels, fine-tuning uses a share of the labels of one part, and scoring
uses the other part. So the dataset's own validation split stays unseen.

Every piece (a pretraining run, a probe, a fine-tuning run) is done once and resumes where it stopped; several processes
of this command share the work. A piece is a `socodet` command on one thread; a row's commands are in its JSON.
--collect writes all finished rows as one JSON list: `set`, `row`, `seed`, `steps`, the rank of the embeddings, the
probe's figures, and AP by step in percent.
"""

import argparse
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HELD_OUT = {"neu_det": 300, "cards": 60, "voc2007test": 500}
TEST_RESNET = (
    "--backbone timm/test_resnet --views.0.size 64 --views.1.size 64 --views.2.size 32 "
    "--level-limits 13 21 32 --batch-size 64"
).split()
RESNET18 = "--batch-size 64".split()
STRONG_TERMS = "--variance-weight 4 --covariance-weight 0.2".split()
TERMS = "--variance-weight 1.333 --covariance-weight 0.0667".split()
LARS = "--base-lr 4".split()
LARS_ROOT = "--base-lr 5.66 --norm-lr 0.024".split()
SGD = "--optimizer sgd --base-lr 0.06 --weight-decay 5e-4".split()
FINETUNE = (
    "--detector faster_rcnn_fpn --schedule voc_24k --iterations 600 --batch-size 8 --rois-per-image 64 "
    "--precise-bn 10 --evaluation.every 150"
).split()
COMMON = ["--device", "cpu", "--workers", "0"]


@dataclass(frozen=True)
class Row:
    """One setting: flags for pretraining (None for a detector from scratch) and for fine-tuning."""

    name: str
    pretraining: tuple[str, ...] | None
    steps: int = 0
    finetuning: tuple[str, ...] = ()
    share: float = 0.1
    sets: tuple[str, ...] = ("neu_det",)
    seeds: tuple[int, ...] = (0,)
    network: tuple[str, ...] = field(default=tuple(TEST_RESNET))


def by_length(steps: int) -> list[str]:
    """Flags for a target whose moving average has 450 half-lives in the run, but is never faster than the paper's."""
    return ["--target-momentum", f"{min(0.99, 0.5 ** (450 / steps)):.4f}"]


def all_views(*changes: str) -> list[str]:
    """Flags that change the colours of all three views alike; a change is a flag's name and value."""
    return [word for view in range(3) for change in changes for word in f"--views.{view}.photometric.{change}".split()]


def rows() -> list[Row]:
    """All rows, in the order of processing."""
    three, probed = (0, 1, 2), ("neu_det", "cards")
    first = [
        Row("scratch", None, sets=probed, seeds=three),
        Row("paper", tuple(LARS), 1312, sets=probed, seeds=three),
        Row("terms_third", (*LARS, *TERMS), 1312, sets=probed, seeds=three),
    ]
    stronger = [
        Row("terms", (*LARS, *STRONG_TERMS), 1312, sets=probed),
        Row("terms_float32", (*LARS, *STRONG_TERMS, "--precision", "float32"), 1312),
    ]
    grid = [
        Row(f"grid_{term}_{rate}_{average}", (*rate_flags, *term_flags, *momentum), 1312)
        for rate, rate_flags in (("lars", LARS), ("root", LARS_ROOT), ("sgd", SGD))
        for term, term_flags in (("off", []), ("on", TERMS))
        for average, momentum in (("tau099", []), ("tau_length", by_length(1312)))
        if not (rate == "lars" and average == "tau099")  # these two are already among the rows above
    ]
    more = [
        Row("terms_8_04", (*LARS, "--variance-weight", "8", "--covariance-weight", "0.4"), 1312),
        Row("terms_2_01", (*LARS, "--variance-weight", "2", "--covariance-weight", "0.1"), 1312),
        Row("terms_on_h", (*LARS, *TERMS, "--decorrelate", "representations"), 1312),
        Row("norms_slow", (*LARS, *TERMS, "--norm-lr", "0.024"), 1312),
        Row("no_target", (*LARS, *TERMS, "--target-momentum", "0", "--final-target-momentum", "0"), 1312),
        Row("infonce", (*LARS, "--loss", "infonce"), 1312),
        Row("predictor_10", (*LARS, "--predictor-lr", "10"), 1312),
    ]
    winner = (*LARS, *TERMS, *by_length(1312))
    on_winner = [
        Row("brightness_only", (*winner, *all_views("hue 0", "saturation 0", "grayscale-probability 0")), 1312),
        Row("no_blur", (*winner, *all_views("blur-probability 0")), 1312),
        Row("small_proposals", (*winner, "--proposals.min-scale", "0.1"), 1312),
    ]
    longer = [Row(f"{row.name}_long", row.pretraining, 5000, sets=row.sets) for row in first[1:]]
    return [*first, *grid, *more, *on_winner, *stronger, *longer]


def pieces() -> list[tuple[Row, str, int]]:
    """Every row, dataset and seed: the first seed of all rows, long ones last, then the other seeds."""
    return sorted(
        ((row, set_name, seed) for row in rows() for seed in row.seeds for set_name in row.sets),
        key=lambda piece: (piece[2], piece[0].steps > 2000, piece[1] != "neu_det"),
    )


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process may do the piece; otherwise another process holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def split(data: Path, name: str, output: Path) -> tuple[Path, Path]:
    """Divides the training split into two files, for fine-tuning and for scoring; image paths become absolute."""
    paths = output / f"{name}_learn.json", output / f"{name}_score.json"
    if not all(path.exists() for path in paths):
        whole = json.loads((data / name / "train.json").read_text())
        images = sorted(whole["images"], key=lambda image: image["id"])
        random.Random(0).shuffle(images)
        held = HELD_OUT[name]
        for path, part in zip(paths, (images[held:], images[:held]), strict=True):
            ids = {image["id"] for image in part}
            annotations = [one for one in whole["annotations"] if one["image_id"] in ids]
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps({**whole, "images": part, "annotations": annotations}))
            partial.replace(path)
    return paths


def socodet(arguments: Sequence[object], log: Path) -> None:
    """Runs one command on one thread; its output is appended to the log."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with log.open("a") as file:
        command = [sys.executable, "-m", "socodet", *map(str, arguments)]
        subprocess.run(command, check=True, env=env, stdout=file, stderr=file, stdin=subprocess.DEVNULL)


def lines(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def work(row: Row, set_name: str, seed: int, data: Path, output: Path) -> dict[str, Any]:
    """Does all pieces of one row, dataset and seed; returns its figures."""
    learn, score = split(data, set_name, output)
    images = data / set_name / "images"
    folder = output / set_name / row.name / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    began, commands = time.time(), []
    figures: dict[str, Any] = {"set": set_name, "row": row.name, "seed": seed, "steps": row.steps, "share": row.share}
    start = "scratch"
    model = [*row.network]
    if row.pretraining is not None:
        count = len(json.loads((data / set_name / "train.json").read_text())["images"])
        epochs = (row.steps + 0.5) * 64 / count
        start = str(folder / "pretrain")
        commands.append(
            ["pretrain", data / set_name / "train.json", "--output", start, "--recipe", "tiny", *row.network]
            + ["--epochs", f"{epochs:.3f}", "--warmup-epochs", f"{epochs / 20:.3f}", "--seed", seed, "--resume"]
            + [*COMMON, "--precision", "bfloat16", *row.pretraining]
        )
        socodet(commands[-1], folder / "output.txt")
        log = lines(Path(start))
        ranks = [line["effective_rank"] for line in log if "effective_rank" in line]
        figures |= {"rank_begin": ranks[0], "rank_end": ranks[-1], "loss_end": log[-1]["loss"]}
        for of in ("head", "backbone"):
            probed = folder / f"probe_{of}.json"
            if not probed.exists():
                commands.append(
                    ["probe", start, "--data", learn, "--val", score, "--images", images, "--of", of]
                    + ["--output", probed, *COMMON]
                )
                socodet(commands[-1], folder / "output.txt")
            found = json.loads(probed.read_text())["pretrained"]
            figures[f"probe_{of}"] = {name: value for name, value in found.items() if isinstance(value, float)}
        model = []
    size = {"neu_det": 200, "cards": 200, "voc2007test": 160}[set_name]
    commands.append(
        ["finetune", learn, "--val", score, "--images", images, "--output", folder / "finetune", "--init", start]
        + [*FINETUNE, "--size", size, "--fraction", row.share, "--seed", seed, "--resume", *row.finetuning]
        + [*(["--backbone", "timm/test_resnet", *TINY_MODULES] if model else []), *COMMON, "--precision", "bfloat16"]
    )
    socodet(commands[-1], folder / "output.txt")
    scored = [line for line in lines(folder / "finetune") if "box_AP" in line]
    figures["AP"] = {str(line["step"]): line["box_AP"] for line in scored}
    figures["AP50"] = {str(line["step"]): line["box_AP50"] for line in scored}
    figures["minutes"] = round((time.time() - began) / 60, 1)
    figures["commands"] = [" ".join(map(str, command)).replace(str(data), "DATA") for command in commands]
    return figures


TINY_MODULES = "--fpn-channels 64 --head-channels 64 --representation-size 256".split()


def main() -> None:
    """Does the remaining pieces, or collects the finished ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[], help="only rows whose SET/NAME/SEED contains one of these")
    parser.add_argument("--collect", type=Path)
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    if arguments.collect is not None:
        finished = [json.loads(path.read_text()) for path in sorted(output.glob("*/*/*/figures.json"))]
        for row in finished:
            row["commands"] = [command.replace(str(output), "RUNS") for command in row["commands"]]
        arguments.collect.write_text(json.dumps(finished, indent=1) + "\n")
        print(json.dumps({"rows": len(finished)}))
        return
    for row, set_name, seed in pieces():
        name = f"{set_name}/{row.name}/{seed}"
        done = output / name / "figures.json"
        if done.exists() or (arguments.only and not any(text in name for text in arguments.only)):
            continue
        with claimed(output / "locks" / name.replace("/", "_")) as ours:
            if not ours or done.exists():
                continue
            print(time.strftime("%H:%M:%S"), name, flush=True)
            try:
                figures = work(row, set_name, seed, arguments.data.resolve(), output)
            except subprocess.CalledProcessError as error:
                print(f"{name}: failed with {error.returncode}; see output.txt", flush=True)
                continue
            partial = done.with_suffix(".partial")
            partial.write_text(json.dumps(figures, indent=1))
            partial.replace(done)


if __name__ == "__main__":
    main()
