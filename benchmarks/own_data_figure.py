"""The figures of docs/results.md and results_in_full.md: final AP over the share of labels, and AP over steps.

python benchmarks/own_data_figure.py [--set neu_det] [--backbone resnet18] [--fraction 0.1] [--folds 3] [--output FILE]

Reads the committed folds. Writes the figure over labels to FILE, and the one over steps beside it, with _steps in its
name. A start is left out where it has fewer than --folds folds.
"""

import argparse
import json
from pathlib import Path

from socodet.reports.theme import to_svg
from socodet.runtime.files import write_atomically
from socodet.studies.figure import Lines, lines_figure
from socodet.studies.table import Spread

RESULTS = Path(__file__).parent / "results" / "own_data.json"
NAMES = {
    "scratch": "from scratch",
    "soco": "SoCo, all modules",
    "image": "whole images, equal compute",
    "soco_backbone": "SoCo, backbone alone",
}
"""Names of the starts in the figures."""


def main() -> None:
    """Draws both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="neu_det")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("docs/images/own_data.svg"))
    given = parser.parse_args()
    rows = [
        row
        for row in json.loads(RESULTS.read_text())
        if (row["set"], row["backbone"]) == (given.set, given.backbone) and row["start"] in NAMES
    ]
    ends: dict[str, dict[float, list[float]]] = {}
    curves: dict[str, dict[int, list[float]]] = {}
    for start, name in NAMES.items():
        for row in (row for row in rows if row["start"] == start):
            ends.setdefault(name, {}).setdefault(row["fraction"], []).append(row["AP"])
            if row["fraction"] == given.fraction:
                for step, ap in row["curve"]:
                    curves.setdefault(name, {}).setdefault(step, []).append(ap)
    ends = {name: {at: aps for at, aps in points.items() if len(aps) >= given.folds} for name, points in ends.items()}
    ends = {name: points for name, points in ends.items() if points}
    names = [*ends]
    figure = lines_figure(
        [Lines("after fine-tuning", spreads(ends))], names, "labelled images", "box AP", over_fractions=True
    )
    over_steps = lines_figure(
        [Lines(f"with {100 * given.fraction:g}% of the labels", spreads(curves))],
        names,
        "step of fine-tuning",
        "box AP",
    )
    for drawn, stem in ((figure, given.output.stem), (over_steps, f"{given.output.stem}_steps")):
        assert drawn is not None
        write_atomically(given.output.with_name(f"{stem}.svg"), to_svg(drawn, stem))


def spreads(
    values: dict[str, dict[float, list[float]]] | dict[str, dict[int, list[float]]],
) -> dict[str, dict[float, Spread]]:
    """Mean and spread over folds for each point."""
    return {name: {at: Spread(tuple(some)) for at, some in sorted(by.items())} for name, by in values.items()}


if __name__ == "__main__":
    main()
