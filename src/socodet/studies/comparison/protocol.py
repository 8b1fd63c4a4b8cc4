"""What all runs of a comparison have in common, and the first weights in which they differ."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from socodet.detection.datasets import DetectionDataset
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.errors import InputError
from socodet.finetuning.finetune import SCRATCH
from socodet.finetuning.labelled_sets import images_trained_on
from socodet.finetuning.run import FinetuneRecipe, digest
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.models.settings import ModelSettings
from socodet.weights.pretrained_run import model_settings

POINTS = 10
"""Evaluations of a run, where the user does not say how often."""


@dataclass(frozen=True)
class Init:
    """First weights under the name that the table and the folders give them."""

    name: str
    source: str
    """A pretraining run's folder, a file of weights, or `scratch`: what `finetune` takes as `init`."""

    def __post_init__(self) -> None:
        if not self.source:
            raise InputError(f"--init {self.name}=: names no weights; write NAME=PATH or NAME=scratch")
        if not self.name or self.name.startswith(".") or not self.name.isprintable() or set(self.name) & set("/\\|"):
            raise InputError(f"init {self.name!r}: cannot be a name in a table; name it yourself, --init NAME=PATH")

    @property
    def is_scratch(self) -> bool:
        """Whether nothing is pretrained."""
        return self.source == SCRATCH

    @property
    def place(self) -> str:
        """The absolute path, or `scratch`."""
        return SCRATCH if self.is_scratch else str(Path(self.source).resolve())


def named_inits(given: Sequence[str]) -> tuple[Init, ...]:
    """First weights as a command line names them: `PATH`, `scratch` or `NAME=PATH`.

    Without a name, it is the folder's, or the file's without its ending. What exists as a path is one, equals sign or
    not.
    """
    inits = []
    for text in given:
        name, equals, source = text.partition("=")
        if not equals or "/" in name or Path(text).exists():
            path = Path(text)
            name, source = path.stem if path.is_file() else path.resolve().name, text
        inits.append(Init(name, source))
    return tuple(inits)


@dataclass(frozen=True)
class Protocol:
    """How every run of a comparison is trained and scored; they differ in first weights, seed and number of labels."""

    training: DetectionDataset
    validation: DetectionDataset
    settings: FinetuneSettings
    """Of every run, but for the seed and the fraction."""
    model: ModelSettings
    evaluation: EvaluationSettings

    def __post_init__(self) -> None:
        images_trained_on(self.training, self.settings)  # complains when there are none

    @cached_property
    def pictures(self) -> int:
        """Images that are trained on with all labels. InputError when none has an object."""
        return len(images_trained_on(self.training, self.settings))

    def schedule(self, fraction: float = 1.0) -> ScheduleSettings:
        """The schedule with this part of the labels, every number resolved.

        Its length is the same for every seed and first weights: epochs pass over so many pictures as the part has on
        average.
        """
        return self.settings.resolved_schedule(max(1, round(fraction * self.pictures)))

    def settings_of(self, fraction: float, seed: int) -> FinetuneSettings:
        """Those of one run."""
        return replace(
            self.settings,
            iterations=self.schedule(fraction).iterations,
            epochs=None,
            fraction=None if fraction == 1 else fraction,
            seed=seed,
        )

    def evaluations(self, fraction: float) -> EvaluationSettings:
        """When a run on this part of the labels is scored: `POINTS` times, unless asked otherwise."""
        every = self.evaluation.every or math.ceil(self.schedule(fraction).iterations / POINTS)
        return replace(self.evaluation, every=every)

    def describe(self) -> dict[str, Any]:
        """All that must be the same for runs to stand in one table, in plain JSON types."""
        shared = replace(self.settings, fraction=None, seed=0)
        return {
            "recipe": FinetuneRecipe(shared, self.model, self.schedule()).as_dict(),
            "evaluation_every": self.evaluation.every,
            "train": _describe(self.training),
            "val": _describe(self.validation),
        }


def _describe(data: DetectionDataset) -> dict[str, Any]:
    return {
        "images": len(data),
        "style": data.style,
        "masks": data.has_masks,
        "sha256": digest(data),
        "categories": [asdict(category) for category in data.categories],
    }


def shared_model(inits: Sequence[Init]) -> ModelSettings:
    """What the modules look like where the user does not say: as in the first of the inits that is a run's folder."""
    for init in inits:
        if not init.is_scratch and Path(init.source).is_dir():
            return model_settings(init.source)
    return ModelSettings()
