"""A run's folder: its settings, log and checkpoints. A file is complete or absent, whenever the process dies.

RUN/run.json           the recipe with all fields, the images, versions, the command that began the run
RUN/proposals.parquet  the proposal table, if the run made its own
RUN/log.jsonl          one JSON object per logged step
RUN/skipped.jsonl      the images that could not be read, if there are any: path and reason
RUN/tensorboard/       the same as scalars
RUN/trackers.json      the run's ids in Weights & Biases and MLflow, if it is logged there; RUN/wandb/, W&B's own files
RUN/checkpoints/       step-XXXXXXXX.pt, the newest two; epoch-XXXX.pt, kept for good; best.pt, weights alone, of a
                       fine-tuning run; step-XXXXXXXX.safetensors, weights alone, in a run from the Hub

torch, which takes seconds to import, is imported only where it is used: a command can check a folder first.
"""

import dataclasses
import errno
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from socodet._version import __version__
from socodet.errors import InputError
from socodet.images.reading import PLAIN, PixelReading
from socodet.runtime.command_line import running_command
from socodet.runtime.differences import refuse_different_study
from socodet.runtime.files import (
    atomic_file,
    refuse_foreign_folder,
    remove_folder,
    resolve_path,
    write_atomically,
    write_note,
)
from socodet.runtime.notices import log_note
from socodet.runtime.serialization import from_json
from socodet.training.checkpoint_file import SAFETENSORS, find_damage, read_state, write_state

T = TypeVar("T")

KEPT_CHECKPOINTS = 2
Checkpoint = Literal["best", "last"]
"""best: the weights that scored highest on the validation set if a run kept them, else the newest. last: the newest."""
AUTO = "auto"
"""Name of the recipe that is chosen from the images and the machine."""
FINETUNED = "finetune"
"""The name of a fine-tuning run's recipe."""
NO_DETECTOR = "is a pretraining run; fine-tune it (socodet finetune SET --output DETECTOR --init {}), and give DETECTOR"
FULL = (errno.ENOSPC, errno.EDQUOT)
LISTED_AGAIN = (0.0, 0.1, 1.0, 5.0, 30.0, 30.0)  # seconds: a network drive may list deleted files for a minute


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths and contents of one run."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", resolve_path(self.path))

    def pixel_reading(self) -> PixelReading:
        """How the images that the run trained on were decoded."""
        description = self.describe()
        noted = description.get("reading")
        if isinstance(data := description.get("data"), dict):  # a fine-tuning run
            noted = data.get("pixel_reading")
        return PLAIN if noted is None else from_json(PixelReading, noted, f"{self.path}/run.json")

    @property
    def log(self) -> Path:
        """The JSONL log."""
        return self.path / "log.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def trackers(self) -> Path:
        """The ids under which experiment trackers have the run."""
        return self.path / "trackers.json"

    @property
    def proposals(self) -> Path:
        """The proposal table that a run makes if it is given none."""
        return self.path / "proposals.parquet"

    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "run.json").is_file()

    def describe(self, of: str = "pretrain or finetune") -> dict[str, Any]:
        """The contents of run.json. If there is none, raises InputError that names the commands `of` that write one."""
        file = self.path / "run.json"
        try:
            description = json.loads(file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self.path}: {self._no_run(of)}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}: not valid JSON ({error}); restore it or start a new run") from None
        if not isinstance(description, dict) or not isinstance(description.get("recipe"), dict):
            raise InputError(f"{file}: has no recipe; restore it or start a new run")
        return description

    def started_from(self) -> str | None:
        """Where the run's initial weights came from; None if they were random."""
        start = self.describe().get("start")
        return str(start["from"]) if isinstance(start, dict) and "from" in start else None

    def _no_run(self, of: str) -> str:
        if not self.path.exists():
            return f"no such folder; give the one that {of} wrote"
        if RunFolder(self.path.parent).exists():
            return f"within a run, not a run itself; give {self.path.parent}"
        return f"not a run (no run.json); give the folder that {of} wrote"

    def require_detector(self) -> None:
        """Raises InputError when this is not a fine-tuning run with a checkpoint."""
        if self.describe(FINETUNED)["recipe"].get("name") != FINETUNED:
            raise InputError(f"{self.path}: {NO_DETECTOR.format(self.path)}")
        if not self.checkpoints() and not self.best.exists():
            raise InputError(f"{self.path}: has no checkpoint yet; let the run continue until it writes one")

    def settings(self, cls: type[T], part: str) -> T:
        """One part of the recipe, such as "model". Raises InputError when this version cannot read it."""
        recipe = self.describe()["recipe"]
        if part not in recipe:
            raise InputError(f"{self.path}/run.json: its recipe has no {part}; give the folder that pretrain wrote")
        return from_json(cls, recipe[part], f"{self.path}/run.json: {part}")

    def refuse_foreign(self) -> None:
        """Raises InputError when the path is a file, or a folder with anything but a run in it."""
        refuse_foreign_folder(self.path, self.path / "run.json", "a run")

    def refuse_other(self, requested: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
        """Raises InputError when parts of the new description differ from those of the one in the folder."""
        refuse_different_study(self.path, requested, recorded, "a run", self.describe().get("command"))

    def write_description(self, description: Mapping[str, Any]) -> None:
        """Writes run.json: the description, the command that is running, and the versions in use."""
        import torch
        import torchvision

        versions = {
            "socodet": __version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "python": platform.python_version(),
        }
        begun = {} if (command := running_command()) is None else {"command": command}
        write_note(self.path / "run.json", {"versions": versions, **begun, **description})

    def clear(self) -> None:
        """Deletes what a run writes, but for run.json, which marks the folder as a run's until it is replaced."""
        remove_folder(self.path / "checkpoints")  # first, and at once: without them there is no run to resume
        for name in ("log.jsonl", "skipped.jsonl", "trackers.json", "proposals.parquet"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.tensorboard, self.path / "wandb", *self.path.glob(".proposals.parquet.*.parts")):
            shutil.rmtree(folder, ignore_errors=True)

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        folder = self.path / "checkpoints"
        return sorted([*folder.glob("step-*.pt"), *folder.glob(f"step-*{SAFETENSORS}")])

    def checkpoint(self, step: int) -> Path:
        """The file of the state after `step` steps."""
        return self.path / "checkpoints" / f"step-{step:08d}.pt"

    def save_checkpoint(self, step: int, state: Mapping[str, Any], epoch: int | None = None) -> Path:
        """Writes the state after `step` steps, then deletes all but the newest two.

        With `epoch`, it also stays for good under that epoch's name.

        On a full disk, damaged checkpoints and all but the newest are deleted first. OSError if that is not enough; the
        newest readable checkpoint is then still there, and no unfinished file.
        """
        path = self.checkpoint(step)
        self._write_in_place_of_older(path, state)
        if epoch is not None:
            self.keep(path, epoch)
        for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)
        return path

    def kept(self, epoch: int) -> Path:
        """The checkpoint of an epoch that is kept for good."""
        return self.path / "checkpoints" / f"epoch-{epoch:04d}.pt"

    def keep(self, checkpoint: Path, epoch: int) -> None:
        """Gives a checkpoint a second name, that of an epoch, under which it stays for good."""
        kept = self.kept(epoch)
        kept.unlink(missing_ok=True)
        try:
            os.link(checkpoint, kept)  # one file under two names
        except OSError:  # a file system without links
            with atomic_file(kept) as file, checkpoint.open("rb") as written:
                shutil.copyfileobj(written, file)

    def remove_unfinished(self) -> None:
        """Removes the unfinished checkpoint of a killed process; to be called before one is written."""
        for path in (self.path / "checkpoints").glob(".*.partial"):
            path.unlink(missing_ok=True)

    def _write_in_place_of_older(self, path: Path, state: Mapping[str, Any]) -> None:
        try:
            write_state(path, state)
        except OSError as error:
            if error.errno not in FULL:
                raise
        else:
            return
        there = self.checkpoints()
        damaged = [old for old in there if find_damage(old) is not None]
        for old in [*damaged, *[old for old in there if old not in damaged][:-1]]:
            old.unlink(missing_ok=True)  # its space may be what is missing
            with suppress(OSError):
                write_state(path, state)
                return
        write_state(path, state)

    @property
    def best(self) -> Path:
        """The weights with the highest score on the validation set, if the run keeps them."""
        return self.path / "checkpoints" / "best.pt"

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Writes the state with the highest score so far."""
        write_state(self.best, state)

    def load_best(self) -> dict[str, Any] | None:
        """The state with the highest score, on the CPU; None when the run keeps none. Never unpickles code."""
        try:
            return read_state(self.best) if self.best.exists() else None
        except (OSError, ValueError) as error:
            fix = "use --checkpoint last" if self.checkpoints() else "restore it, or train again: no other is left"
            raise InputError(f"{self.best}: not a readable checkpoint ({error}); {fix}") from None

    def load_checkpoint(self, _pauses: Sequence[float] = LISTED_AGAIN) -> dict[str, Any] | None:
        """The newest readable state, on the CPU; None when there is no checkpoint. Never unpickles code."""
        unreadable = []
        for path in reversed(self.checkpoints()):
            try:
                state = read_state(path)
            except FileNotFoundError:
                if os.path.lexists(path) or not _pauses:  # a link to nowhere
                    raise
                time.sleep(_pauses[0])
                return self.load_checkpoint(_pauses[1:])  # the run continues and has newer ones
            except ValueError as error:
                unreadable.append(f"{path} ({error})")
                continue
            if unreadable:
                log_note(f"{unreadable[0]}: not a readable checkpoint; {path.name}, the one before, is used")
            return state
        if unreadable:
            kept = sorted((self.path / "checkpoints").glob("epoch-*.pt"))
            start = f"begin another run from {kept[-1]}" if kept else "pass --overwrite to start over"
            raise InputError(f"{unreadable[0]}: not a readable checkpoint; {start}")
        return None

    def note_skipped(self, skipped: Iterable[tuple[str, str]]) -> None:
        """Adds images that could not be read, and why, to skipped.jsonl; a message says if it cannot be written."""
        file = self.path / "skipped.jsonl"
        lines = file.read_text(errors="surrogateescape").splitlines() if file.exists() else []
        lines += [json.dumps({"path": path, "reason": reason}) for path, reason in skipped]
        if lines:
            content = "".join(f"{line}\n" for line in dict.fromkeys(lines))
            try:
                write_atomically(file, content.encode(errors="surrogateescape"))
            except OSError as error:
                log_note(f"{file}: cannot be written ({error.strerror or error}); free some space on that disk")

    def training_seconds(self, batch: int) -> float:
        """Seconds that the logged steps took in all calls; `batch`: images per step."""
        seconds, earlier = 0.0, 0
        for line in self.log_lines():
            if "images_per_second" in line:
                seconds += (line["step"] - earlier) * batch / line["images_per_second"]
                earlier = line["step"]
        return seconds

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """The log's lines in order, without lines that a crash cut short or that do not belong to a log."""
        if not self.log.is_file():
            return
        with self.log.open(errors="replace") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    continue
                if isinstance(line, dict) and type(line.get("step")) is int and 0 <= line["step"] < 2**53:
                    yield line
