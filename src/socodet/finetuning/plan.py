"""The plan of a fine-tuning run, printed before the first step."""

from collections.abc import Iterator
from pathlib import Path

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.classes import describe_objects
from socodet.finetuning.auto_schedule import AUTO
from socodet.finetuning.run import FinetuneRecipe
from socodet.runtime.counted import counted

LARGE_STEP = 2_000_000
"""Pixels in a batch above which a step on a CPU is slow and needs gigabytes of memory."""
RULES = {"coco": "COCO's", "voc": "Pascal VOC's", "lvis": "LVIS's"}


def plan_lines(
    recipe: FinetuneRecipe,
    shown: DetectionDataset,
    validation: DetectionDataset | None,
    *,
    init: str | Path,
    every: int | None,
    patience: int | None,
) -> Iterator[str]:
    """The lines of the plan: detector, images, objects, length, learning rate and evaluation.

    shown: the training images. every: steps between evaluations.
    """
    settings, schedule = recipe.settings, recipe.schedule
    yield f"plan: {settings.detector} with {recipe.model.backbone}, from {init}"
    yield f"  images   {len(shown):,} of {shown.name}"
    yield f"  objects  {describe_objects(shown)}"
    passes = schedule.iterations * schedule.batch_size / len(shown)
    sides = sorted({schedule.short_sides[0], schedule.short_sides[-1]})
    yield (
        f"  length   {counted(schedule.iterations, 'step')} of {counted(schedule.batch_size, 'image')}, "
        f"{counted(passes, 'epoch')}{_reason(recipe)}"
    )
    yield f"  lr       {schedule.lr:.3g}; shorter sides of {' to '.join(map(str, sides))} pixels"
    if validation is None:
        return
    if every is None or every >= schedule.iterations:
        when = "at the end (--evaluation.every N also scores it every N steps)"
    else:
        steps = "step" if every == 1 else f"{every:,} steps"
        when = f"every {steps} (--evaluation.every sets it) and at the end; the best checkpoint is kept"
    until = "" if patience is None else f"; ends after {patience} evaluations without a higher AP"
    yield (
        f"  scored   on {validation.name} ({counted(len(validation), 'image')}, "
        f"{counted(sum(validation.object_counts()), 'object')}) by {RULES[validation.style]} rules, {when}{until}"
    )


def large_step_note(recipe: FinetuneRecipe, device: str) -> str | None:
    """Advice for a step too large for most CPUs, where running out of memory kills the process without a message."""
    settings, schedule = recipe.settings, recipe.schedule
    side = schedule.short_sides[-1]
    if device != "cpu" or schedule.batch_size * side**2 <= LARGE_STEP:
        return None
    fewer = ", and --rois-per-image 64," if "rcnn" in settings.detector and settings.rois_per_image is None else ""
    return (
        f"note: without a GPU, a step of {counted(schedule.batch_size, 'image')} of {side} pixels takes long and needs "
        f"gigabytes of memory; a smaller --size and --batch-size, such as 320 and 4{fewer} save much of both"
    )


def _reason(recipe: FinetuneRecipe) -> str:
    settings = recipe.settings
    if settings.iterations is not None or settings.epochs is not None:
        return ""
    if settings.schedule == AUTO:
        return " (--schedule auto: by the number of images; --iterations or --epochs set another)"
    return f" (--schedule {settings.schedule})"
