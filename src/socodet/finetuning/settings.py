"""Settings of fine-tuning: parsed by the command line, varied by studies, stored by runs."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from socodet.detection.detectors.names import ALIASES, NAMES
from socodet.detection.detectors.schedules import (
    REFERENCE_BATCH,
    SCHEDULES,
    SHORT_WARMUP,
    ScheduleSettings,
    resized,
)
from socodet.detection.detectors.settings import ROIS_PER_IMAGE, InferenceSettings
from socodet.errors import SettingError
from socodet.finetuning.auto_schedule import AUTO, PRECISE_BN_SHARE, steps_for
from socodet.runtime.extensions import Extension, is_extension
from socodet.runtime.settings import NonNegativeInt, PositiveFloat, PositiveInt, Range, Seed, Settings
from socodet.weights.pretrained_run import only_its_backbone

if TYPE_CHECKING:
    DetectorName = str
    ScheduleName = str
else:
    DetectorName = Literal[*NAMES, *ALIASES] | Extension
    ScheduleName = Literal[*SCHEDULES]

SCRATCH = "scratch"
"""The value of --init that loads no weights."""


@dataclass(frozen=True)
class FinetuneSettings(Settings):
    """Everything that determines what fine-tuning learns, except data, initial weights and module sizes.

    A field that is None takes the schedule's value.
    `socodet finetune --help-all` explains each field.
    """

    detector: DetectorName = "mask_rcnn_fpn"
    """Detector to train; if the dataset has no masks, faster_rcnn is trained instead of mask_rcnn. module:name is your
    own `Detector`."""
    schedule: ScheduleName = AUTO
    """Training schedule from the paper: length, learning rate drops, weight decay and image sizes. auto uses the
    dataset's own for COCO, VOC and LVIS; for other datasets, coco_1x with a length that depends on the number of
    images and with ten evaluations (fewer in a short run)."""
    iterations: PositiveInt | None = None
    """Number of training steps, instead of the schedule's."""
    epochs: PositiveFloat | None = None
    """Passes over the training images, instead of the schedule's steps."""
    batch_size: PositiveInt = REFERENCE_BATCH
    """Images per step, over all processes. The schedule's steps and learning rate assume 16 and are scaled to match."""
    base_lr: PositiveFloat | None = None
    """Learning rate at batch size 16, instead of the schedule's."""
    size: Annotated[int, Range(32)] | None = None
    """Length of an image's shorter side in pixels, or its maximum where training draws it at random; the schedule's
    other image sizes are scaled in proportion."""
    fraction: Annotated[float, Range(above=0, at_most=1)] | None = None
    """Train on this fraction of the training images, drawn by --seed (Mini COCO: 0.05 or 0.1)."""
    keep_empty: bool = False
    """Also train on images without objects, as background; by default they are left out."""
    precise_bn: NonNegativeInt | None = None
    """Number of training batches on which batch norm statistics are re-estimated before each evaluation; 0 turns this
    off."""
    rois_per_image: Annotated[int, Range(4)] | None = None
    """RoIs per image on which a step trains an R-CNN's box head: 512 by default, at most a quarter of them foreground.
    At test time it classifies twice as many proposals, up to 1,000. Lower values save much time for small images on a
    CPU."""
    backbone_only: bool = False
    """Load only the backbone, of every --init; the detector's other modules start fresh. Without either flag this is so
    for runs of the recipe auto that began from scratch and have fewer than 20,000 steps."""
    all_modules: bool = False
    """Load all modules of every --init, also of such runs."""
    keep_head_scale: bool = False
    """Keep the scale of a pretrained box head's output; by default it is rescaled to match a fresh head's."""
    seed: Seed = 0
    """Random seed for newly initialised weights, the order of the images and everything else that is random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations is not None and self.epochs is not None:
            raise SettingError("--iterations and --epochs: give one of them")
        if self.backbone_only and self.all_modules:
            raise SettingError("--backbone-only and --all-modules: give one of them")
        pools = "rcnn" in self.detector or is_extension(self.detector)  # no torch to judge a name
        if self.rois_per_image is not None and not pools:
            raise SettingError(f"--rois-per-image: {self.detector} has no box head; leave it out, or choose an R-CNN")

    def loads_backbone_only(self, init: str | Path) -> bool:
        """Whether only the backbone of these initial weights is loaded."""
        return self.backbone_only or (not self.all_modules and only_its_backbone(init))

    def resolved_schedule(self, images: int = 0) -> ScheduleSettings:
        """The schedule with every number resolved; an epoch has `images` images.

        Without `iterations` or `epochs`, the run sees as many images as the schedule, whose length `auto` derives from
        `images`. Warm-up also keeps its number of images, but takes at most a tenth of the run. Precise batch norm
        uses at most as many batches as the run has steps; with `auto`, at most a fiftieth of that.
        """
        from socodet.detection.detectors.by_name import detector_named

        table = detector_named(self.detector).schedule(self.schedule)
        if self.schedule == AUTO:
            table = replace(table, iterations=steps_for(images))
        ratio = REFERENCE_BATCH / self.batch_size
        if self.epochs is not None:
            steps = max(1, math.floor(self.epochs * images / self.batch_size + 1e-9))
        else:
            steps = round(table.iterations * ratio) if self.iterations is None else self.iterations
        if self.schedule == AUTO and self.precise_bn is None:
            table = replace(table, precise_bn=min(table.precise_bn, math.ceil(steps / PRECISE_BN_SHARE)))
        resolved = replace(
            table,
            iterations=steps,
            batch_size=self.batch_size,
            lr=(table.lr if self.base_lr is None else self.base_lr) / ratio,
            warmup_iterations=min(round(table.warmup_iterations * ratio), math.floor(steps * SHORT_WARMUP)),
            precise_bn=min(table.precise_bn if self.precise_bn is None else self.precise_bn, steps),
        )
        return resolved if self.size is None else resized(resolved, self.size)

    def inference(self, resolved: ScheduleSettings) -> InferenceSettings:
        """How a detector trained with this schedule resizes images, and which detections it returns."""
        return InferenceSettings(
            short_side=resolved.test_short_side,
            max_side=resolved.max_side,
            score_threshold=resolved.score_threshold,
            detections=resolved.detections,
            rois_per_image=ROIS_PER_IMAGE if self.rois_per_image is None else self.rois_per_image,
        )


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """When and how a run evaluates the detector; nothing here changes what it learns.

    `socodet finetune --help-all` explains each field.
    """

    every: PositiveInt | None = None
    """Steps between evaluations on the validation set. By default the detector is evaluated only at the end, or with
    --schedule auto ten times (less often in a short run). The weights with the highest box AP are kept as
    checkpoints/best.pt."""
    save_predictions: bool = False
    """Save the detections of the latest evaluation as predictions.json, in COCO's result format."""
