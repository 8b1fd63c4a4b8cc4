"""Annotated images in the form that a probe shows to a network: resized to a square, with the probed objects."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.errors import InputError
from socodet.training.workers import Begin, make_batches
from socodet.views import geometry
from socodet.views.batch import RoIs, group_by_level
from socodet.views.geometry import Boxes
from socodet.views.photometric import UNCHANGED, draw_photometric
from socodet.views.rendering import render, resize, show_window
from socodet.views.sample import box_levels, sample_rng
from socodet.views.settings import PhotometricSettings, SampleSettings

BATCH_SIZE = 32
MIN_SIDE = 0.07
"""Minimum width and height of an object, as a share of the image's: 16 of 224 pixels. With a share, networks with
different image sizes are probed on the same objects."""
DEFAULTS = SampleSettings()
"""Window and colours of the other view: those of V2 in section 3.2, the same for every run."""


@dataclass(frozen=True)
class ObjectCounts:
    """How many images and objects of a dataset are probed, and how many are left out."""

    name: str
    images: int
    """Number of images with an object to probe."""
    objects: int
    crowd: int
    """Crowd regions, left out."""
    difficult: int
    """Objects marked difficult, left out."""
    small: int
    """Objects whose width or height is below `MIN_SIDE`, left out."""
    unreadable: int = 0
    """Images that could not be read; their objects are left out."""


@dataclass(frozen=True)
class View:
    """One view of one image with N boxes."""

    pixels: Tensor
    """(3, S, S) uint8 RGB."""
    boxes: Tensor
    """(N, 4) float32 xyxy in pixels of the view."""
    levels: Tensor
    """(N,) int64: 0..3 for P2..P5."""


@dataclass(frozen=True)
class ProbeSample:
    """One image with N objects, and its views."""

    labels: NDArray[np.int64]
    """(N,) annotated labels, from 1."""
    plain: View
    """The whole image at size S, with all N objects."""
    half: View | None = None
    """The same at S // 2."""
    other: View | None = None
    """A random crop with distorted colours, and the objects that it shows."""
    in_other: NDArray[np.bool_] | None = None
    """(N,) whether the other view shows each object."""


@dataclass(frozen=True)
class ProbeBatch:
    """One view of B images, each with its own number of boxes."""

    pixels: Tensor
    """(B, 3, S, S) uint8 RGB."""
    rois: RoIs

    def to(self, device: torch.device) -> "ProbeBatch":
        """The same on `device`."""
        return ProbeBatch(self.pixels.to(device), self.rois.to(device))


def probed_objects(dataset: DetectionDataset) -> tuple[list[NDArray[np.intp]], ObjectCounts]:
    """For each image the indices of the probed objects, and the counts.

    Crowd regions, objects marked difficult, and objects below `MIN_SIDE` are left out; an object to which several
    apply is counted under the first.
    """
    chosen: list[NDArray[np.intp]] = []
    crowd = difficult = small = 0
    for image in dataset.images:
        sides = (image.boxes[:, 2:] - image.boxes[:, :2]) / [image.width, image.height]
        is_difficult = image.difficult & ~image.crowd
        is_small = (sides < MIN_SIDE).any(1) & ~image.crowd & ~is_difficult
        chosen.append(np.flatnonzero(~(image.crowd | is_difficult | is_small)))
        crowd += int(image.crowd.sum())
        difficult += int(is_difficult.sum())
        small += int(is_small.sum())
    images = sum(len(objects) > 0 for objects in chosen)
    return chosen, ObjectCounts(dataset.name, images, sum(map(len, chosen)), crowd, difficult, small)


class ProbeDataset:
    """The images with objects to probe; an item is None if its image cannot be read.

    size: the side S. levels: gives the pyramid-level rule. all_views: three views per image instead of only the plain
    one. The other view is a function of `seed` and the image's index in the dataset.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        objects: Sequence[NDArray[np.intp]],
        size: int,
        levels: SampleSettings,
        *,
        all_views: bool,
        seed: int = 0,
    ) -> None:
        self._dataset, self._objects, self._size, self._levels = dataset, objects, size, levels
        self._all_views, self._seed = all_views, seed
        self._indices = [index for index, chosen in enumerate(objects) if len(chosen)]
        self._colours = _colours_at(size)

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, places: Sequence[int], begin: Begin) -> list[ProbeSample | None]:
        """The samples of these places; calls `begin` with the file of each image."""
        samples = []
        for place in places:
            begin(str(self._dataset.images[self._indices[place]].file))
            samples.append(self[place])
        return samples

    def __getitem__(self, place: int) -> ProbeSample | None:
        index = self._indices[place]
        image, chosen = self._dataset.images[index], self._objects[index]
        try:
            pixels = self._dataset.pixels(index)
        except InputError:
            return None
        unit = image.boxes[chosen].astype(np.float64) / [image.width, image.height, image.width, image.height]
        labels = image.labels[chosen]
        size, whole = self._size, geometry.WHOLE
        canvas = show_window(pixels, whole, size)
        if not self._all_views:
            return ProbeSample(labels, self._view(render(canvas, UNCHANGED, False), unit * size))
        half = render(resize(canvas, size // 2), UNCHANGED, False)
        plain = render(canvas, UNCHANGED, False)

        rng = sample_rng(self._seed, 0, index)
        window = geometry.draw_window(DEFAULTS.crop_scale, DEFAULTS.crop_aspect, rng)
        flipped = bool(rng.random() < DEFAULTS.views[1].flip_probability)
        colours = draw_photometric(self._colours, rng)
        boxes = geometry.to_view(unit, window, size)
        in_other = geometry.visible(boxes, size, DEFAULTS.min_visible, MIN_SIDE / 2 * size)
        boxes = geometry.clip(boxes[in_other], size)
        if flipped:
            boxes = geometry.flip(boxes, size)
        return ProbeSample(
            labels,
            self._view(plain, unit * size),
            self._view(half, unit * (size // 2)),
            self._view(render(show_window(pixels, window, size), colours, flipped), boxes),
            in_other,
        )

    def _view(self, pixels: NDArray[np.uint8], boxes: Boxes) -> View:
        levels = torch.from_numpy(box_levels(boxes, self._levels))
        return View(torch.from_numpy(pixels), torch.from_numpy(boxes.astype(np.float32)), levels)


def _colours_at(size: int) -> PhotometricSettings:
    """The other view's colour distortion, with the blur in proportion to the size."""
    colours = DEFAULTS.views[1].photometric
    low, high = colours.blur_sigma
    return replace(colours, blur_sigma=(low, max(low, high * size / DEFAULTS.views[1].size)))


def collate_views(views: Sequence[View]) -> ProbeBatch:
    """One view of several images as a batch, with its boxes grouped by level; needs at least one box."""
    rois = group_by_level(torch.cat([v.boxes for v in views])[None], torch.cat([v.levels for v in views])[None])
    counts = torch.tensor([len(v.boxes) for v in views])
    rois.rois[rois.order, 0] = torch.arange(len(views), dtype=rois.rois.dtype).repeat_interleave(counts)
    return ProbeBatch(torch.stack([v.pixels for v in views]), rois)


def batch_bytes(size: int) -> int:
    """Size of the pixels of a batch whose samples have all three views."""
    return BATCH_SIZE * 3 * (2 * size**2 + (size // 2) ** 2)


def probe_batches(dataset: ProbeDataset, workers: int) -> Generator[list[ProbeSample | None], None, None]:
    """Lists of up to `BATCH_SIZE` samples in the dataset's order, made by `workers` processes (0: in this process)."""
    places = (range(first, min(first + BATCH_SIZE, len(dataset))) for first in range(0, len(dataset), BATCH_SIZE))
    return make_batches(dataset.batch, places, workers)
