"""Training samples of a detector: images with their targets, and their order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.detection.detectors.detector import Detector
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.transform import Target
from socodet.errors import InputError, none_readable
from socodet.runtime.world import ALONE, World
from socodet.training.streams import Place, Stream
from socodet.training.workers import FORKED, Begin
from socodet.views.sample import sample_rng


@dataclass(frozen=True)
class DetectionBatch:
    """One process's share of a batch."""

    images: list[Tensor]
    """uint8 (3, H_i, W_i) RGB, of different sizes."""
    targets: list[Target]
    replaced: tuple[tuple[str, str], ...] = ()
    """File and reason of each image that could not be read and was replaced by another one."""

    def to(self, device: torch.device) -> tuple[list[Tensor], list[Target]]:
        """Images as RGB in [0, 1] and targets, on the device."""
        images = [image.to(device).float() / 255 for image in self.images]
        return images, [{name: value.to(device) for name, value in target.items()} for target in self.targets]


Task = tuple[Sequence[Place], Mapping[int, ImageAnnotations]]
"""Places in the stream, and their images by index."""


class TrainingImages:
    """The image and target of a place, augmented by the detector's `training_sample`.

    They do not depend on the number of workers. An unreadable image is replaced by the next readable one.
    """

    def __init__(self, dataset: DetectionDataset, detector: Detector, settings: ScheduleSettings, *, seed: int) -> None:
        self._dataset, self._detector, self._settings, self._seed = dataset, detector, settings, seed
        self._sent: Mapping[int, ImageAnnotations] = {}

    def task(self, places: Sequence[Place]) -> Task:
        """The places with their images, to be sent to a data loader worker.

        If a forked worker looked them up itself, it would in time copy the memory of the whole dataset, because Python
        stores reference counts inside the objects. A worker that is not forked has its own copy from the start.
        """
        if not FORKED:
            return places, {}
        images = {index: self._dataset.images[index] for _, index in places}
        return places, {index: image for index, image in images.items() if image.stored is None}

    def made(self, task: Task, begin: Begin = lambda _name: None) -> DetectionBatch:
        """The `batch` of a task."""
        places, self._sent = task
        return self.batch(places, begin)

    def batch(self, places: Sequence[Place], begin: Begin = lambda _name: None) -> DetectionBatch:
        """The batch of these places; calls `begin` with the file of each image."""
        samples = []
        for place in places:
            dataset, index = self._set_of(place[1])
            begin(str(dataset.images[index].file))
            samples.append(self[place])
        images, targets, problems = zip(*samples, strict=True)
        return DetectionBatch(list(images), list(targets), tuple(problem for problem in problems if problem))

    def __getitem__(self, place: Place) -> tuple[Tensor, Target, tuple[str, str] | None]:
        epoch, first = place
        problem: tuple[str, str] | None = None
        for offset in range(len(self._dataset)):
            index = (first + offset) % len(self._dataset)
            dataset, place_there = self._set_of(index)
            try:
                pixels = dataset.pixels(place_there)
            except InputError as error:
                file = str(dataset.images[place_there].file)
                problem = problem or (file, str(error).removeprefix(f"{file}: "))
                continue
            generator = sample_rng(self._seed, epoch, index)
            return *self.sample(pixels, index, generator), problem
        assert problem is not None  # a set to train on has an image
        raise none_readable(f"{self._dataset.name}: none of its images", problem)

    def sample(
        self, pixels_hw3: NDArray[np.uint8], index: int, generator: np.random.Generator
    ) -> tuple[Tensor, Target]:
        """The augmented sample of a decoded image (H, W, 3)."""
        dataset, place_there = self._set_of(index)

        def target_at(size: tuple[int, int]) -> Target:
            target = dataset.target(place_there, size)
            if not self._detector.has_masks:
                target.pop("masks", None)
            return target

        return self._detector.training_sample(pixels_hw3, target_at, self._settings, generator)

    def _set_of(self, index: int) -> tuple[DetectionDataset, int]:
        """A dataset with the image, and its index there; if the image was sent, a dataset of this image alone."""
        image = self._sent.get(index)
        return (self._dataset, index) if image is None else (replace(self._dataset, images=[image]), 0)


def batch_bytes(dataset: DetectionDataset, detector: Detector, settings: ScheduleSettings) -> float:
    """About how large a batch is, over all processes, if its images have the schedule's largest size."""
    pixels = min(max(settings.short_sides), settings.max_side) * settings.max_side
    masks = sum(map(len, dataset.images)) / len(dataset) if dataset.has_masks and detector.has_masks else 0
    return settings.batch_size * pixels * (3 + masks)


def repeat_factors(dataset: DetectionDataset, threshold: float) -> NDArray[np.float64]:
    """(N,): how often each image is shown per epoch, at least once (LVIS: Gupta et al. 2019, appendix B).

    f(c) is the fraction of images with category c, and r(c) = max(1, sqrt(threshold / f(c))). An image's factor is the
    largest r(c) of its categories, or 1 if it has none.
    """
    shown = [set(image.labels.tolist()) for image in dataset.images]
    images = Counter(label for labels in shown for label in labels)
    factor = {label: max(1.0, (threshold * len(dataset) / count) ** 0.5) for label, count in images.items()}
    return np.array([max((factor[label] for label in labels), default=1.0) for labels in shown])


def image_stream(dataset: DetectionDataset, settings: ScheduleSettings, seed: int, world: World = ALONE) -> Stream:
    """The order of a training set's images under a schedule."""
    factors = None
    if settings.repeat_threshold is not None:
        factors = tuple(repeat_factors(dataset, settings.repeat_threshold).tolist())
    return Stream(np.arange(len(dataset)), settings.batch_size, seed, world, factors=factors)
