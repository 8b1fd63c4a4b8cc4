"""What a row's modules are worth in a detector: fine-tuned in the same way from every row, scored on the same set."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from socodet.errors import InputError
from socodet.finetuning.finetune import finetune
from socodet.finetuning.labelled_sets import fitting_settings, images_trained_on, open_labelled_sets, require_objects
from socodet.finetuning.run import SCORES, digest
from socodet.finetuning.settings import FinetuneSettings
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

COLUMNS = {"box_AP": "AP box", "mask_AP": "AP mask"}
"""What of the scores becomes a column, and how it is headed."""


@dataclass(frozen=True)
class Transferred:
    """How far a call of a `Transfer` came."""

    figures: Mapping[str, float] | None
    """By column name, such as `{"AP box": 38.1, "AP mask": 34.4}`, in percent; None while it is not finished."""
    stopped_by: str | None = None
    """The signal that ended it, `max_steps`, or None; a signal ends the ablation, also one amid the last step."""


class Transfer(Protocol):
    """Fine-tunes a detector from a row's run."""

    @property
    def description(self) -> Mapping[str, Any]:
        """All that its figures depend on beside the row, of JSON types; plain values become columns of the table."""

    def __call__(self, run: RunFolder, folder: Path, seed: int) -> Transferred:
        """From a finished run with that seed, in a folder of its own; again with the same after an interruption.

        DivergedError when the loss or the weights become NaN or infinite: recorded of the row, and the others go on.
        """


class DetectorTransfer:
    """The same detector from every row; a module that the row did not pretrain starts fresh, the same for each seed.

    `train` and `val` are sets as `open_detection_set` takes them; of a folder, its training and validation
    part. InputError, before anything is trained, for sets or a schedule that cannot be used.
    """

    def __init__(
        self,
        train: str | Path,
        settings: FinetuneSettings,
        *,
        val: str | Path | None = None,
        images: str | Path | None = None,
        execution: ExecutionSettings | None = None,
        show_progress: bool = True,
    ) -> None:
        self.settings = settings
        self.execution, self.show_progress = execution, show_progress
        if val is None and not Path(train).is_dir():
            raise InputError(f"{train}: is one set; name another one to score every row on (--finetune.val)")
        self.train, validation = open_labelled_sets(train, val, images, say_problems=show_progress)
        assert validation is not None
        self.val = validation
        require_objects(self.val, "to find")
        self._shown = len(images_trained_on(self.train, settings))
        self.description = self._describe()

    def _describe(self) -> dict[str, Any]:
        settings = fitting_settings(self.settings, self.train)
        resolved = settings.resolved_schedule(max(1, round(self._shown * (settings.fraction or 1))))
        fields = dataclasses.asdict(settings)
        del fields["seed"]  # each row's own
        return {
            "detector": settings.detector,
            "train": self.train.name,
            "val": self.val.name,
            "schedule": settings.schedule,
            "iterations": resolved.iterations,
            "batch_size": resolved.batch_size,
            "lr": resolved.lr,
            "size": resolved.test_short_side,
            "settings": {**fields, "schedule": dataclasses.asdict(resolved)},
            "sets": {
                part: {"images": len(data), "masks": data.has_masks, "style": data.style, "sha256": digest(data)}
                for part, data in (("train", self.train), ("val", self.val))
            },
        }

    def __call__(self, run: RunFolder, folder: Path, seed: int) -> Transferred:
        """Fine-tunes with the row's own seed and reads AP of boxes, and of masks where there are any."""
        result = finetune(
            self.train,
            folder,
            dataclasses.replace(self.settings, seed=seed),
            val=self.val,
            init=run.path,
            execution=self.execution,
            resume=True,
            show_progress=self.show_progress,
        )
        if self.show_progress and result.unreadable:
            print(f"{folder}: {len(result.unreadable)} pictures could not be read and were left out", file=sys.stderr)
        if not result.finished:
            return Transferred(None, result.stopped_by)
        # Of a run that was finished already, nothing is scored again; the last evaluation is the last step's.
        scores = json.loads((folder / SCORES).read_text())["scores"]
        figures = {head: scores[name] for name, head in COLUMNS.items() if scores.get(name) is not None}
        return Transferred(figures, result.stopped_by)
