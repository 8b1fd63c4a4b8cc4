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
from socodet.finetuning.labelled_sets import fitting_detector, open_labelled_sets, require_objects
from socodet.finetuning.run import SCORES, digest
from socodet.finetuning.schedules import REFERENCE_BATCH, resolve_schedule
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

DETECTOR = "mask_rcnn_r50_fpn"
"""Of every row, as in Tables 4 and 5; on a set without masks its counterpart without them."""
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


@dataclass(frozen=True)
class FinetuneSettings:
    """How every row's detector is fine-tuned, beside the training set and the schedule's name."""

    val: Path | None = None
    """Annotated set to score on; by default the validation part of a folder."""
    images: Path | None = None
    """Folder of the images of a .json file, if they are not found nearby."""
    iterations: int | None = None
    """Steps, in place of the schedule's."""
    epochs: float | None = None
    """Passes over the training images, in place of the schedule's steps."""
    batch_size: int = REFERENCE_BATCH
    """Images a step; the schedule's steps and rate are for 16 and follow."""
    base_lr: float | None = None
    """Learning rate at batches of 16, in place of the schedule's."""
    size: int | None = None
    """Shorter side of an image at most; all sizes of the schedule shrink in proportion."""
    precise_bn: int | None = None
    """Training batches that batch norm's statistics are taken from before the detector is scored."""
    rois_per_image: int | None = None
    """Boxes of an image that the box head learns from in a step; by default 512."""
    keep_head_scale: bool = False
    """Leave the output of a pretrained box head as large as it is, not as large as a fresh head's."""


class DetectorTransfer:
    """Mask R-CNN on FPN from any row; a module that the row did not pretrain starts fresh, the same for the same seed.

    `train` and `settings.val` are sets as `open_detection_set` takes them; of a folder, its training and validation
    part. InputError, before anything is trained, for sets or a schedule that cannot be used.
    """

    def __init__(
        self,
        train: str | Path,
        schedule: str = "coco_1x",
        settings: FinetuneSettings | None = None,
        *,
        execution: ExecutionSettings | None = None,
        show_progress: bool = True,
    ) -> None:
        self.schedule, self.settings = schedule, settings or FinetuneSettings()
        self.execution, self.show_progress = execution, show_progress
        val = self.settings.val
        if val is None and not Path(train).is_dir():
            raise InputError(f"{train}: is one set; name another one to score every row on (--finetune.val)")
        images = self.settings.images
        self.train, validation = open_labelled_sets(train, val, images, say_problems=show_progress)
        assert validation is not None
        self.val = validation
        require_objects(self.train, "to learn from")
        require_objects(self.val, "to find")
        self._shown = len(self.train.with_objects())
        self.description = self._describe()

    def _describe(self) -> dict[str, Any]:
        detector = fitting_detector(DETECTOR, self.train)
        asked = self.settings
        resolved = resolve_schedule(
            self.schedule,
            detector,
            single_stage=False,
            batch_size=asked.batch_size,
            iterations=asked.iterations,
            epochs=asked.epochs,
            images=self._shown,
            base_lr=asked.base_lr,
            size=asked.size,
            precise_bn=asked.precise_bn,
            rois_per_image=asked.rois_per_image,
            keep_head_scale=asked.keep_head_scale,
        )
        fields = dataclasses.asdict(resolved)
        del fields["seed"]  # each row's own
        return {
            "detector": detector,
            "train": self.train.name,
            "val": self.val.name,
            "schedule": self.schedule,
            "iterations": resolved.iterations,
            "batch_size": resolved.batch_size,
            "lr": resolved.lr,
            "size": resolved.test_short_side,
            "settings": fields,
            "sets": {
                part: {"images": len(data), "masks": data.has_masks, "style": data.style, "sha256": digest(data)}
                for part, data in (("train", self.train), ("val", self.val))
            },
        }

    def __call__(self, run: RunFolder, folder: Path, seed: int) -> Transferred:
        """Fine-tunes with the row's own seed and reads AP of boxes, and of masks where there are any."""
        asked = self.settings
        result = finetune(
            self.train,
            folder,
            val=self.val,
            init=run.path,
            detector=DETECTOR,
            schedule=self.schedule,
            iterations=asked.iterations,
            epochs=asked.epochs,
            batch_size=asked.batch_size,
            base_lr=asked.base_lr,
            size=asked.size,
            precise_bn=asked.precise_bn,
            rois_per_image=asked.rois_per_image,
            keep_head_scale=asked.keep_head_scale,
            seed=seed,
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
