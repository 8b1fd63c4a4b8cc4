"""What a training step costs: seconds on this machine, measured with throw-away networks, and FLOPs."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from socodet.errors import InputError, is_out_of_memory
from socodet.images.source import ImageSource, reading_of
from socodet.models.fused_norm import FusedBatchNorm2d
from socodet.models.soco import build_soco
from socodet.pretraining.data import dataset_of
from socodet.pretraining.recipes.recipe import Recipe
from socodet.pretraining.trainer import Trainer
from socodet.proposals.image_boxes import OnlineProposals
from socodet.runtime.limits import available_cores
from socodet.runtime.progress import ProgressBar, progress_bar
from socodet.runtime.world import ALONE
from socodet.training.devices import choose_device, workers_for
from socodet.training.settings import ExecutionSettings
from socodet.views.batch import Batch

FIRST, TIMED = 2, 3
"""Steps that warm up, and steps that are timed."""
COUNTED = 8
"""Batch size of the step whose FLOPs are counted."""


class BatchTooLargeError(InputError):
    """A step does not fit into memory."""


def seconds_per_step(
    recipe: Recipe,
    source: ImageSource,
    execution: ExecutionSettings,
    *,
    online: bool = False,
    show_progress: bool = False,
) -> float:
    """Median seconds per step of `recipe` on images of `source`, including data loading as in `seconds_with_data`.

    The images are spaced evenly over the dataset. Making proposals counts only if `online`: otherwise a run makes them
    once. InputError when no image can be read, BatchTooLargeError when a batch does not fit into memory.
    """
    size, images = recipe.training.batch_size, len(source)
    spaced = range(size) if images < size else [position * images // size for position in range(size)]
    with progress_bar("making a batch to time a step with", 2 * size, show=show_progress) as bar:
        # the first time compiles the kernels and makes the proposals
        batch = _batch(recipe, source, spaced, times=2, bar=bar, online=online)
    try:
        with progress_bar("timing a step", FIRST + TIMED, show=show_progress) as bar:
            seconds = _step_seconds(recipe, len(source), execution, batch, bar)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise BatchTooLargeError(
            f"a batch of {size} images does not fit into memory; give a smaller --batch-size, or a larger --accumulate"
        ) from error
    device = choose_device(execution.device, ALONE)
    workers = workers_for(execution.workers, device, recipe.sample.pixel_bytes * size, show_note=False)
    step, on_cpu = statistics.median(seconds[FIRST:]), device.type == "cpu"
    return seconds_with_data(step, batch.cpu_seconds, workers=workers, cores=available_cores(), on_cpu=on_cpu)


def seconds_with_data(step: float, data: float, *, workers: int, cores: int, on_cpu: bool) -> float:
    """Seconds per step, if the step alone takes `step` seconds and its samples take `data` CPU seconds.

    Step and data workers run in parallel, so the slower one counts; on a CPU they share the cores. Without workers,
    they run one after the other.
    """
    if not workers:
        return step + data
    return max(step + data / cores if on_cpu else step, data / min(workers, cores))


def flops_per_image(recipe: Recipe, source: ImageSource) -> float:
    """FLOPs of a training step per image: multiplications and additions, forward and backward.

    Measured by torch's counter, which counts convolutions and matrix products, on the first images of `source`.
    InputError when no image can be read.
    """
    few = replace(recipe, training=replace(recipe.training, batch_size=COUNTED, accumulate=1))
    trainer = _trainer(few, len(source), ExecutionSettings("cpu", precision="float32"))
    with progress_bar("", COUNTED, show=False) as bar:
        batch = _batch(few, source, range(COUNTED), times=1, bar=bar)
    with FlopCounterMode(display=False) as counter:
        trainer.step(batch)
    return float(counter.get_total_flops()) / COUNTED


def _batch(
    recipe: Recipe,
    source: ImageSource,
    positions: Sequence[int],
    *,
    times: int,
    bar: ProgressBar,
    online: bool = False,
) -> Batch:
    """A batch of the images at these positions, which wrap around; it is made `times` times, the last is returned."""
    proposals = (OnlineProposals if online else _CachedProposals)(recipe.proposals, reading_of(source))
    dataset = dataset_of(recipe, source, proposals, np.arange(len(source)))
    places = [(position // len(source), position % len(source)) for position in positions]
    try:
        for _ in range(times - 1):
            dataset.batch(places, lambda _name: bar.advance())
        return dataset.batch(places, lambda _name: bar.advance())
    except OSError as error:
        raise InputError(f"{source.location}: {error}; check the files") from None


def _trainer(recipe: Recipe, images: int, execution: ExecutionSettings) -> Trainer:
    """A trainer of networks built as `pretrain` builds them."""
    soco = build_soco(recipe.model, recipe.training.seed, recipe.objective, FusedBatchNorm2d)
    return Trainer(soco, recipe.training, images, execution)


def _step_seconds(
    recipe: Recipe, images: int, execution: ExecutionSettings, batch: Batch, bar: ProgressBar
) -> list[float]:
    """Seconds of each step."""
    trainer = _trainer(recipe, images, execution)
    seconds = []
    for _ in range(FIRST + TIMED):
        before = time.monotonic()
        loss, _ = trainer.step(batch)
        float(loss)  # waits for the device
        seconds.append(time.monotonic() - before)
        bar.advance(units=recipe.training.batch_size)
    return seconds


@dataclass(frozen=True)
class _CachedProposals(OnlineProposals):
    """Makes the proposals of each image only once."""

    known: dict[str, tuple[int, NDArray[np.float32]]] = field(default_factory=dict)

    def look_up(self, key: str, data: bytes) -> tuple[int, NDArray[np.float32]]:
        """As `OnlineProposals.look_up`."""
        if key not in self.known:
            self.known[key] = super().look_up(key, data)
        return self.known[key]
