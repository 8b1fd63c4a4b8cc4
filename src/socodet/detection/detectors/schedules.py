"""Training schedules of section 4.2: length, learning rates and image sizes.

Lengths are in iterations with batches of 16 images. With another batch size, the number of iterations changes so that
the same number of images is seen, and the learning rate changes in proportion (Goyal et al. 2017). A detector may
change the numbers (`Detector.schedule`).
"""

from dataclasses import dataclass, replace
from typing import Annotated

from socodet.errors import SettingError, suggest_names
from socodet.runtime.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Range, Settings

REFERENCE_BATCH = 16
REFERENCE_SHORT_SIDE = 800
SHORT_WARMUP = 0.1
"""Maximum share of a run that warm-up takes."""


@dataclass(frozen=True)
class ScheduleSettings(Settings):
    """How long a detector is trained, with which learning rates and image sizes."""

    iterations: PositiveInt
    """Optimiser steps."""
    batch_size: PositiveInt = REFERENCE_BATCH
    """Images per step, over all processes."""
    lr: PositiveFloat = 0.02
    """Learning rate after warm-up, at this batch size."""
    warmup_iterations: NonNegativeInt = 1000
    """Steps during which the learning rate rises linearly from `warmup_start` times `lr`, or stays there
    (`warmup_constant`)."""
    warmup_start: float = 0.001
    warmup_constant: bool = False
    drops: tuple[float, ...] = (2 / 3, 8 / 9)
    """Fractions of the run after which the learning rate is divided by 10."""
    momentum: float = 0.9
    weight_decay: NonNegativeFloat = 2.5e-5
    decay_norms: bool = False
    """Whether weight decay applies to scale and shift of norms; not in Detectron2, but in MMDetection."""
    decay_biases: bool = True
    bias_lr: float = 1.0
    """Multiplies the learning rate of biases."""
    clip_norm: float | None = None
    """Gradients are clipped to this norm."""
    ema_decay: Annotated[float, Range(0, below=1)] | None = None
    """Decay of a moving average of the weights; if set, the average is scored instead of the weights."""
    ema_warmup: NonNegativeFloat = 0.0
    """Number of steps over which the decay rises: it is multiplied by 1 - exp(-step / ema_warmup)."""
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Training images are scaled to a shorter side drawn at random from these."""
    test_short_side: PositiveInt = 800
    max_side: PositiveInt = 1333
    precise_bn: NonNegativeInt = 200
    """Number of training batches on which batch norm statistics are re-estimated before an evaluation; 0 for none."""
    detections: int = 100
    """Maximum number of detections per image."""
    score_threshold: float = 0.05
    repeat_threshold: float | None = None
    """Images with categories in less than this share of the images are repeated (LVIS)."""

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_iterations:
            risen = 0.0 if self.warmup_constant else step / self.warmup_iterations
            return self.lr * (self.warmup_start * (1 - risen) + risen)
        passed = sum(step >= round(drop * self.iterations) for drop in self.drops)
        return self.lr * 0.1**passed


COCO = ScheduleSettings(90_000)
VOC = ScheduleSettings(
    24_000,
    warmup_iterations=100,  # section 4.2 gives none for VOC but follows MoCo, whose public configuration has this
    drops=(3 / 4, 11 / 12),
    weight_decay=1e-4,
    short_sides=tuple(range(480, 801, 32)),
)
LVIS = ScheduleSettings(180_000, detections=300, score_threshold=0.0001, repeat_threshold=0.001)

SCHEDULES: dict[str, ScheduleSettings] = {
    "auto": COCO,
    "coco_1x": COCO,
    "coco_2x": replace(COCO, iterations=180_000),
    "coco_4x": replace(COCO, iterations=360_000),
    "coco_6x": replace(COCO, iterations=540_000),
    "mini_coco": COCO,
    "voc_24k": VOC,
    "lvis_1x": LVIS,
    "lvis_2x": replace(LVIS, iterations=360_000),
    "lvis_90k": replace(LVIS, iterations=90_000),
}
"""Schedules of R-CNNs by name, for Tables 1 to 6 and 8 to 10.

`lvis_1x` has Detectron2's length. The method's public configuration trains LVIS for 90,000 steps, for which its README
reports the figures of Table 6's 1x column.
"""


def schedule(name: str) -> ScheduleSettings:
    """The R-CNN schedule with this name. SettingError for an unknown name."""
    if name not in SCHEDULES:
        raise SettingError(f"schedule {name!r}: unknown; {suggest_names(name, SCHEDULES)}")
    return SCHEDULES[name]


def resized(settings: ScheduleSettings, size: int) -> ScheduleSettings:
    """The schedule with images whose shorter side is at most `size`, and all other sizes scaled in proportion."""
    ratio = size / settings.test_short_side
    return replace(
        settings,
        short_sides=tuple(sorted({max(1, round(side * ratio)) for side in settings.short_sides})),
        test_short_side=max(1, round(settings.test_short_side * ratio)),
        max_side=max(1, round(settings.max_side * ratio)),
    )
