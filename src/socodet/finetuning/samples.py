"""Training samples of a detector: images with their targets, and the order in which they come."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from socodet.detection.datasets import DetectionDataset
from socodet.detection.datasets.sampling import repeat_factors, repeated_indices
from socodet.detection.detectors import Detector
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.transform import Target
from socodet.errors import InputError
from socodet.runtime.world import ALONE, World
from socodet.training.workers import Begin, make_batches
from socodet.views.sample import sample_rng

Place = tuple[int, int]
"""(epoch, index of the image): with the seed, all that a sample depends on. The n-th repeat of an image within an epoch
counts as one of epoch + n · 2³²."""


@dataclass(frozen=True)
class DetectionBatch:
    """One process's share of a batch."""

    images: list[Tensor]
    """uint8 (3, H_i, W_i) RGB, each of its own size."""
    targets: list[Target]
    replaced: tuple[tuple[str, str], ...] = ()
    """File and reason of each image that could not be read and was replaced by another one."""

    def to(self, device: torch.device) -> tuple[list[Tensor], list[Target]]:
        """On the device: images as RGB in [0, 1], and targets."""
        images = [image.to(device).float() / 255 for image in self.images]
        return images, [{name: value.to(device) for name, value in target.items()} for target in self.targets]


class TrainingImages:
    """Image and target of a place, augmented by the detector's `training_sample`.

    The same for any number of workers. An image that cannot be read is replaced by the next one that can.
    """

    def __init__(self, dataset: DetectionDataset, detector: Detector, settings: ScheduleSettings, *, seed: int) -> None:
        self._dataset, self._detector, self._settings, self._seed = dataset, detector, settings, seed

    def batch(self, places: Sequence[Place], begin: Begin = lambda _name: None) -> DetectionBatch:
        """The batch of these places; `begin` is told the file of each image."""
        samples = []
        for place in places:
            begin(str(self._dataset.images[place[1]].file))
            samples.append(self[place])
        images, targets, problems = zip(*samples, strict=True)
        return DetectionBatch(list(images), list(targets), tuple(problem for problem in problems if problem))

    def __getitem__(self, place: Place) -> tuple[Tensor, Target, tuple[str, str] | None]:
        epoch, first = place
        problem: tuple[str, str] | None = None
        for offset in range(len(self._dataset)):
            index = (first + offset) % len(self._dataset)
            try:
                pixels = self._dataset.pixels(index)
            except InputError as error:
                file = str(self._dataset.images[index].file)
                problem = problem or (file, str(error).removeprefix(f"{file}: "))
                continue
            generator = sample_rng(self._seed, epoch, index)
            return *self.sample(pixels, index, generator), problem
        raise InputError(f"{self._dataset.name}: none of its images can be read any more; restore them")

    def sample(
        self, pixels_hw3: NDArray[np.uint8], index: int, generator: np.random.Generator
    ) -> tuple[Tensor, Target]:
        """The augmented sample of a decoded image (H, W, 3)."""

        def target_at(size: tuple[int, int]) -> Target:
            target = self._dataset.target(index, size)
            if not self._detector.has_masks:
                target.pop("masks", None)
            return target

        return self._detector.training_sample(pixels_hw3, target_at, self._settings, generator)


@dataclass(frozen=True)
class ImageStream:
    """The endless sequence of places, one shuffled epoch after another, cut into batches.

    With `factors` (`datasets.sampling.repeat_factors`) an epoch has some images several times, each time as another
    sample. Every process takes its share of each batch; a batch may span two epochs.
    """

    count: int
    batch_size: int
    seed: int
    factors: tuple[float, ...] | None = None
    world: World = ALONE

    def batch(self, step: int) -> list[Place]:
        """The places in the process's share of a step's batch."""
        share = self.batch_size // self.world.size
        first = step * self.batch_size + self.world.rank * share
        return [self._place(position) for position in range(first, first + share)]

    def _place(self, position: int) -> Place:
        if self.factors is None:
            epoch, rest = divmod(position, self.count)
            return epoch, int(_epoch(self, epoch)[rest])
        for epoch, start, end in _borders(self, position):
            if position < end:
                order = _epoch(self, epoch)
                index = int(order[position - start])
                earlier = int((order[: position - start] == index).sum())
                return epoch + earlier * 2**32, index
        raise AssertionError("epochs never end")


@lru_cache(maxsize=4)
def _epoch(stream: ImageStream, epoch: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(np.random.SeedSequence([stream.seed, epoch]))
    if stream.factors is None:
        return generator.permutation(stream.count)
    return generator.permutation(repeated_indices(np.array(stream.factors), generator))


@lru_cache(maxsize=2)
def _known_borders(stream: ImageStream) -> list[int]:
    """The first position of each epoch asked for so far; filled by `_borders`."""
    return [0]


def _borders(stream: ImageStream, position: int) -> Iterator[tuple[int, int, int]]:
    known = _known_borders(stream)
    while known[-1] <= position:
        known.append(known[-1] + len(_epoch(stream, len(known) - 1)))
    epoch = int(np.searchsorted(known, position, side="right")) - 1
    yield epoch, known[epoch], known[epoch + 1]


def image_stream(dataset: DetectionDataset, settings: ScheduleSettings, seed: int, world: World = ALONE) -> ImageStream:
    """The order of a training set's images under a schedule."""
    factors = None
    if settings.repeat_threshold is not None:
        factors = tuple(repeat_factors(dataset, settings.repeat_threshold).tolist())
    return ImageStream(len(dataset), settings.batch_size, seed, factors, world)


def training_batches(
    images: TrainingImages, stream: ImageStream, *, start: int, stop: int, workers: int
) -> Generator[DetectionBatch, None, None]:
    """The batches of steps `start` to `stop`, made by `workers` processes; 0 is this one (`make_batches`)."""
    return make_batches(images.batch, (stream.batch(step) for step in range(start, stop)), workers)
