"""A run's folder: what it was asked to do, its log, its checkpoints. Everything written there is written whole.

RUN/run.json           the recipe's name and every resolved field, the images, versions
RUN/proposals.parquet  the proposal table, when the run made its own
RUN/log.jsonl          one JSON object a logged step
RUN/tensorboard/       the same as scalars
RUN/checkpoints/       step-XXXXXXXX.pt, the last two
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from socodet.errors import InputError
from socodet.runtime.files import first_difference, write_atomically
from socodet.runtime.serialization import from_json

T = TypeVar("T")

KEPT_CHECKPOINTS = 2


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths and contents of one run."""

    path: Path

    @property
    def log(self) -> Path:
        """The JSONL log."""
        return self.path / "log.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def proposals(self) -> Path:
        """The table a run makes when it is given none."""
        return self.path / "proposals.parquet"

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return (self.path / "run.json").is_file()

    def describe(self) -> dict[str, Any]:
        """What run.json says. InputError when the folder holds no run."""
        file = self.path / "run.json"
        try:
            description = json.loads(file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{self.path}: not a run (no run.json); give the folder that pretrain or finetune wrote"
            ) from None
        except ValueError as error:
            raise InputError(f"{file}: not valid JSON ({error}); restore it or start a new run") from None
        if not isinstance(description, dict) or "recipe" not in description:
            raise InputError(f"{file}: has no recipe; restore it or start a new run")
        return description

    def settings(self, cls: type[T], room: str) -> T:
        """One room's settings in the recipe, such as "model". InputError when they are not those of this version."""
        recipe = self.describe()["recipe"]
        if room not in recipe:
            raise InputError(f"{self.path}/run.json: its recipe has no {room}; give the folder that pretrain wrote")
        return from_json(cls, recipe[room], f"{self.path}/run.json: {room}")

    def refuse_foreign(self) -> None:
        """InputError when the path is a file, or a folder with something else than a run in it."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; give a folder for --output")
        if not self.exists() and self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(f"{self.path}: holds files that are not a run's; give another --output")

    def refuse_other(self, part: str, asked: Any, there: Any) -> None:
        """InputError when a part of the description that is asked for differs from the one in the folder."""
        difference = first_difference(asked, there)
        if difference:
            raise InputError(
                f"{self.path}: holds a run of other settings: {part} {difference}; "
                "give another --output, or pass --overwrite to lose that run"
            )

    def write_description(self, description: Mapping[str, Any]) -> None:
        """Writes run.json."""
        write_atomically(self.path / "run.json", json.dumps(description, indent=2).encode() + b"\n")

    def clear(self) -> None:
        """Removes what a run writes, and nothing else."""
        for name in ("run.json", "log.jsonl", "proposals.parquet"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.tensorboard, self.path / "checkpoints", *self.path.glob(".proposals.parquet.*.parts")):
            shutil.rmtree(folder, ignore_errors=True)

    def checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*.pt"))

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> Path:
        """Writes the state after `step` steps whole, then drops all but the newest two."""
        path = self.path / "checkpoints" / f"step-{step:08d}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink()
        return path

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest state that can be read, on the CPU; None when there is none. Never unpickles code."""
        unreadable = []
        for path in reversed(self.checkpoints()):
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                unreadable.append(f"{path} ({type(error).__name__})")
                continue
            return state
        if unreadable:
            raise InputError(f"{unreadable[0]}: not a readable checkpoint; pass --overwrite to start anew")
        return None

    def training_seconds(self, batch: int) -> float:
        """Seconds of the steps with batches of this size, over all interruptions."""
        seconds, earlier = 0.0, 0
        for line in self.log_lines():
            if "images_per_second" in line:
                seconds += (line["step"] - earlier) * batch / line["images_per_second"]
                earlier = line["step"]
        return seconds

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """The logged steps in order; a line cut short by a crash is left out."""
        if not self.log.is_file():
            return
        with self.log.open() as file:
            for line in file:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    continue
