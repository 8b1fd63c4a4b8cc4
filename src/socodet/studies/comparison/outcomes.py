"""The runs of a comparison as they are on disk: how far each came, and its scores on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socodet.runtime.files import read_note
from socodet.training.run_folder import RunFolder

RUNS = "runs"
MAIN = "box_AP"
"""The score that inits are compared by; every set's rules have it."""
KINDS = ("box_", "mask_")
"""What names of scores begin with."""


@dataclass(frozen=True)
class RunPlace:
    """A run of a comparison and where it lies."""

    folder: Path
    """The comparison's."""
    init: str
    fraction: float
    """Part of the training pictures, in (0, 1]."""
    seed: int

    @property
    def run(self) -> RunFolder:
        """The fine-tuning run's folder."""
        return RunFolder(self.folder / RUNS / self.init / f"fraction-{self.fraction:g}" / f"seed-{self.seed}")

    @property
    def record(self) -> Path:
        """What is written when the run has ended."""
        return self.run.path.with_name(f"{self.run.path.name}.json")

    @property
    def begun(self) -> bool:
        """Whether the run goes on without the weights it began from."""
        noted = self.noted()
        return (noted is not None and noted["status"] == "finished") or bool(self.run.checkpoints())

    def noted(self) -> dict[str, Any] | None:
        """How the run ended; None while it has not."""
        return read_note(self.record)

    def __str__(self) -> str:
        return f"{self.init}, {100 * self.fraction:g}% of the pictures, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What one run came to."""

    init: str
    fraction: float
    seed: int
    status: str
    """finished; diverged at step N; step N; not begun."""
    curve: Mapping[int, Mapping[str, float]]
    """Finished steps → scores in percent by name, of each evaluation yet; without those that the set cannot give."""

    @property
    def finished(self) -> bool:
        """Whether all of it is done."""
        return self.status == "finished"

    @property
    def diverged(self) -> bool:
        """Whether it ended in NaN or infinity."""
        return self.status.startswith("diverged")

    @property
    def scores(self) -> Mapping[str, float]:
        """Of the finished run; none before."""
        return self.curve[max(self.curve)] if self.finished and self.curve else {}


def read_outcomes(folder: Path, inits: Iterable[str], asked: Iterable[RunPlace]) -> tuple[Outcome, ...]:
    """The runs asked for and those of earlier calls, by part of the pictures, init in the order given, and seed."""
    order = {name: number for number, name in enumerate(inits)}
    there = {
        RunPlace(folder, name, _number(path.parent), int(_number(path)))
        for name in order
        for path in (folder / RUNS / name).glob("fraction-*/seed-*")
        if path.is_dir() and path.name.removeprefix("seed-").isdigit()
    }
    places = sorted(there | set(asked), key=lambda place: (place.fraction, order[place.init], place.seed))
    return tuple(read_outcome(place) for place in places)


def read_outcome(place: RunPlace) -> Outcome:
    """A run as its log and its record tell it."""
    noted, checkpoints = place.noted(), place.run.checkpoints()
    curve = {
        line["step"]: {name: value for name, value in line.items() if name.startswith(KINDS) and value is not None}
        for line in place.run.log_lines()
        if MAIN in line
    }
    if noted is not None and noted["status"] == "diverged":
        status = f"diverged at step {noted['step']}"
    elif noted is not None:
        status = "finished"
    elif checkpoints:
        status = f"step {int(_number(checkpoints[-1].with_suffix('')))}"
    else:
        status = "not begun"
    return Outcome(place.init, place.fraction, place.seed, status, curve)


def _number(path: Path) -> float:
    """What stands behind the first hyphen of a name."""
    return float(path.name.partition("-")[2])
