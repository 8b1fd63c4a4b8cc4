"""The runs that a report is about, read from their folders."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from socodet.errors import InputError
from socodet.pretraining.recipes import Recipe
from socodet.runtime.extensions import is_extension
from socodet.runtime.serialization import from_json, to_json
from socodet.training.run_folder import RunFolder
from socodet.views.settings import SampleSettings

T = TypeVar("T")
Kind = Literal["pretrain", "finetune"]


@dataclass(frozen=True)
class RunRecord:
    """The content of a run's folder, without its weights."""

    name: str
    """Unique on the page."""
    path: Path
    description: Mapping[str, Any]
    """The content of run.json."""
    lines: Sequence[Mapping[str, Any]]
    """The lines of log.jsonl, reduced to numbers."""

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.path)

    @property
    def kind(self) -> Kind:
        """The command that wrote the run."""
        return "finetune" if "settings" in self.description["recipe"] else "pretrain"

    @property
    def views(self) -> int:
        """Number of views in a pretraining run's sample."""
        return len(self.description["recipe"]["sample"]["views"])

    @property
    def total_steps(self) -> int | None:
        """Total number of steps, done or not; None while the log does not say."""
        recipe = self.description["recipe"]
        if self.kind == "finetune":
            steps = recipe.get("schedule", {}).get("iterations")
            return steps if isinstance(steps, int) else None
        lines = (line for line in reversed(self.lines) if line.get("epoch"))
        found = next((line["step"] / line["epoch"] * recipe["training"]["epochs"] for line in lines), None)
        return None if found is None else round(found)

    @property
    def embedding_size(self) -> int:
        """D, the length of a pretraining run's embeddings."""
        size: int = self.description["recipe"]["model"]["embedding_size"]
        return size

    @property
    def rank_bound(self) -> int | None:
        """The function `rank_bound` for a pretraining run."""
        recipe = self.description["recipe"]
        sample, batch_size = self.settings(SampleSettings, "sample"), recipe["training"]["batch_size"]
        return rank_bound(recipe["model"]["architecture"], self.embedding_size, sample, batch_size)

    @property
    def has_levels(self) -> bool:
        """Whether a pretraining run distributes boxes over the levels of a pyramid."""
        recipe = self.description["recipe"]
        has_pyramid = recipe["model"]["architecture"] not in ("image", "c4", "c5")
        return has_pyramid and recipe["sample"]["level_rule"] != "single"

    def settings(self, cls: type[T], part: str) -> T:
        """One part of the recipe, such as "sample". Raises InputError when it does not fit this version."""
        return from_json(cls, self.description["recipe"].get(part), f"{self.path}/run.json: {part}")

    def last(self, name: str) -> float | None:
        """The newest value of a field of the log."""
        values = [line[name] for line in self.lines if line.get(name) is not None]
        return values[-1] if values else None


def rank_bound(architecture: str, embedding_size: int, sample: SampleSettings, batch_size: int) -> int | None:
    """The highest possible effective rank of a run: its embedding size, or one less than the embeddings in a batch.

    A batch has one embedding for each of the first view's boxes, or one per image if whole images are compared. None
    for a user's own encoder, whose number of embeddings is not known.
    """
    if is_extension(architecture):
        return None
    boxes = 1 if architecture == "image" else (max(sample.object_sets) + 1) * sample.boxes_per_image
    return min(batch_size * boxes - 1, embedding_size)


def read_records(runs: Sequence[str | Path]) -> list[RunRecord]:
    """Reads the runs' folders. Raises InputError for a folder that is not a run, or is given twice."""
    paths = [Path(run) for run in runs]
    if not paths:
        raise InputError("report: no run is given; give the folders of one or more runs")
    for place, path in enumerate(paths):
        if os.path.realpath(path) in map(os.path.realpath, paths[:place]):
            raise InputError(f"{path}: is given twice; name each run once")
    for path in paths:
        within = None if (path / "run.json").exists() else next(path.glob("**/run.json"), None)
        if within is not None:
            raise InputError(f"{path}: is not a run but holds some; name one or more of them, such as {within.parent}")
    folders = [RunFolder(path) for path in paths]
    return [
        RunRecord(name, folder.path, _description(folder), list(map(_numbers, folder.log_lines())))
        for name, folder in zip(names_of(paths), folders, strict=True)
    ]


def _numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a log line that can be shown."""
    return {name: value for name, value in line.items() if value is None or _is_number(value)}


def _is_number(value: Any) -> bool:
    """Whether the value is a finite number, or a list of finite numbers."""
    if isinstance(value, list):
        return all(map(_is_number, value))
    return isinstance(value, int | float) and not (isinstance(value, int) and abs(value) > 2**63)


def _description(folder: RunFolder) -> Mapping[str, Any]:
    """The content of run.json. InputError unless it has what every page shows."""
    description = folder.describe()
    file, recipe = folder.path / "run.json", description["recipe"]
    if "settings" not in recipe:
        recipe = recipe | to_json(from_json(Recipe, recipe, f"{file}: recipe"))
    elif not isinstance(recipe["settings"], dict) or not isinstance(recipe["settings"].get("detector"), str):
        raise InputError(f"{file}: its recipe names no detector; restore it")
    versions = description.get("versions")
    if not isinstance(versions, dict) or not {"socodet", "torch"} <= versions.keys():
        raise InputError(f"{file}: does not say which versions wrote it; restore it")
    return description | {"recipe": recipe}


def names_of(paths: Sequence[Path]) -> list[str]:
    """A short and unique name for each folder: as many of the last parts of its path as needed."""
    resolved = [Path(os.path.realpath(path)).parts for path in paths]
    names: list[str] = []
    for parts in resolved:
        length = next(
            (n for n in range(1, len(parts) + 1) if sum(other[-n:] == parts[-n:] for other in resolved) == 1),
            len(parts),
        )
        names.append("/".join(parts[-length:]))
    return names
