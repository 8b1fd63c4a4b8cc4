"""What checkpoints cost a run: seconds of the same steps with and without checkpoints.

python benchmarks/checkpoint_cost.py [--rounds 3] [--seconds 20]

Pretrains a ResNet-50 with the FPN and box head of the recipe `fpn_single_gpu` on the shipped photographs at 32 pixels,
so that steps are short and the state is large: the worst case for a small machine. Each round trains for about
--seconds with one checkpoint in the middle, and for as many steps without. Prints one JSON object:
`slower_percent_a_minute` is the median over rounds of the time that one checkpoint adds, in percent of a minute.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import socodet
from machine import machine
from socodet.images.photographs import photographs
from socodet.pretraining.recipes import Recipe, recipe
from socodet.proposals.settings import ProposalSettings
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings


def short_steps() -> Recipe:
    """The networks of `fpn_single_gpu` at 32 pixels."""
    full = recipe("fpn_single_gpu")
    views = tuple(replace(view, size=32) for view in full.sample.views)
    training = replace(full.training, batch_size=4, epochs=1e6, accumulate=1)
    return replace(full, sample=replace(full.sample, views=views), training=training)


def seconds(run: Path, table: Path, steps: int, checkpoint_every: int) -> float:
    """Seconds of the steps of a fresh run, without the first step and the final checkpoint."""
    execution = ExecutionSettings("cpu", workers=0, max_steps=steps, checkpoint_every=checkpoint_every, log_every=1)
    socodet.pretrain(
        photographs(), short_steps(), run, proposals=table, execution=execution, overwrite=True, show_progress=False
    )
    lines: Iterator[dict[str, Any]] = RunFolder(run).log_lines()
    return sum(4 / float(line["images_per_second"]) for line in lines if line["step"] > 1)


def main() -> None:
    """Measures, and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table, run = Path(folder) / "table.parquet", Path(folder) / "run"
        grid = ProposalSettings(method="grid")
        socodet.propose(photographs(), table, settings=grid, workers=1, show_progress=False)
        steps = max(6, round(arguments.seconds / (seconds(run, table, 6, 1000) / 5)))
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append([seconds(run, table, steps, every) for every in (steps // 2 + 1, 10 * steps)])
            print(rounds[-1], file=sys.stderr)
        size = max(path.stat().st_size for path in RunFolder(run).checkpoints())
    added = statistics.median(with_one - without for with_one, without in rounds)
    print(
        json.dumps(
            {
                "machine": machine(),
                "steps": steps,
                "checkpoint_megabytes": round(size / 1e6),
                "rounds_seconds": [[round(one, 2) for one in pair] for pair in rounds],
                "seconds_a_checkpoint": round(added, 2),
                "slower_percent_a_minute": round(added / 60 * 100, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
