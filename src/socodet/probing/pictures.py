"""Annotated pictures as a probe shows them to a network: made square, with the objects that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from socodet.detection.datasets import DetectionDataset
from socodet.errors import InputError
from socodet.training.workers import start_worker
from socodet.views import geometry
from socodet.views.batch import RoIs, group_by_level
from socodet.views.geometry import Boxes
from socodet.views.photometric import UNCHANGED, draw_photometric
from socodet.views.rendering import render, resize, show_window
from socodet.views.sample import box_levels, sample_rng
from socodet.views.settings import PhotometricSettings, SampleSettings

AT_ONCE = 32
"""Pictures a batch."""
LEAST_SIDE = 0.07
"""Least width and height of an object as shares of the picture's: 16 pixels of 224. In shares, so that networks that
look at pictures of other sizes are asked about the same objects."""
QUESTION = SampleSettings()
"""Where the window and the colours of the other view come from: section 4.1's V2, the same for every run."""


@dataclass(frozen=True)
class Asked:
    """How many pictures and objects of a set are looked at, and how many are left out."""

    name: str
    pictures: int
    """With an object to ask for."""
    objects: int
    crowd: int
    """Regions of uncounted objects, left out."""
    difficult: int
    """Objects marked difficult, left out."""
    small: int
    """Objects narrower or lower than `LEAST_SIDE`, left out."""
    unreadable: int = 0
    """Of these pictures, those that could not be read; their objects are left out."""


@dataclass(frozen=True)
class View:
    """One view of one picture with N boxes."""

    pixels: Tensor
    """(3, S, S) uint8 RGB."""
    boxes: Tensor
    """(N, 4) float32 xyxy in pixels of the view."""
    levels: Tensor
    """(N,) int64: 0..3 for P2..P5."""


@dataclass(frozen=True)
class Shown:
    """One picture: its N objects, and the views of it."""

    labels: NDArray[np.int64]
    """(N,) as annotated, from 1."""
    plain: View
    """All of the picture at the side S, all N objects."""
    half: View | None = None
    """The same at S // 2."""
    other: View | None = None
    """A random window in other colours, with those of the objects that it shows."""
    in_other: NDArray[np.bool_] | None = None
    """(N,) which these are."""


@dataclass(frozen=True)
class ViewsOfBatch:
    """One view of B pictures, each with its own number of boxes."""

    pixels: Tensor
    """(B, 3, S, S) uint8 RGB."""
    rois: RoIs

    def to(self, device: torch.device) -> "ViewsOfBatch":
        """The same on `device`."""
        return ViewsOfBatch(self.pixels.to(device), self.rois.to(device))


def objects_asked_for(
    dataset: DetectionDataset, least_side: float = LEAST_SIDE
) -> tuple[list[NDArray[np.intp]], Asked]:
    """Of each picture, which of its objects are asked for; and the counts.

    Left out are crowd regions, objects marked difficult, and those below `least_side`, in this order of counting.
    """
    chosen: list[NDArray[np.intp]] = []
    crowd = difficult = small = 0
    for image in dataset.images:
        sides = (image.boxes[:, 2:] - image.boxes[:, :2]) / [image.width, image.height]
        is_difficult = image.difficult & ~image.crowd
        is_small = (sides < least_side).any(1) & ~image.crowd & ~is_difficult
        chosen.append(np.flatnonzero(~(image.crowd | is_difficult | is_small)))
        crowd += int(image.crowd.sum())
        difficult += int(is_difficult.sum())
        small += int(is_small.sum())
    pictures = sum(len(objects) > 0 for objects in chosen)
    return chosen, Asked(dataset.name, pictures, sum(map(len, chosen)), crowd, difficult, small)


class ProbePictures(Dataset[Shown | None]):
    """The pictures with objects to ask for, as the network sees them; None for one that cannot be read.

    size: the side S. levels: whose level rule is used. With `all_views` there are the three views, else the plain one.
    The other view of a picture is drawn by `seed` and the picture's place in the set.
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

    def __getitem__(self, place: int) -> Shown | None:
        index = self._indices[place]
        image, chosen = self._dataset.images[index], self._objects[index]
        try:
            pixels = self._dataset.picture(index)
        except InputError:
            return None
        unit = image.boxes[chosen].astype(np.float64) / [image.width, image.height, image.width, image.height]
        labels = image.labels[chosen]
        size, whole = self._size, geometry.WHOLE
        canvas = show_window(pixels, whole, size)
        if not self._all_views:
            return Shown(labels, self._view(render(canvas, UNCHANGED, False), unit * size))
        half = render(resize(canvas, size // 2), UNCHANGED, False)
        plain = render(canvas, UNCHANGED, False)

        rng = sample_rng(self._seed, 0, index)
        window = geometry.draw_window(QUESTION.crop_scale, QUESTION.crop_aspect, rng)
        flipped = bool(rng.random() < QUESTION.views[1].flip_probability)
        colours = draw_photometric(self._colours, rng)
        boxes = geometry.to_view(unit, window, size)
        in_other = geometry.kept(boxes, size, QUESTION.min_visible, LEAST_SIDE / 2 * size)
        boxes = geometry.clip(boxes[in_other], size)
        if flipped:
            boxes = geometry.flip(boxes, size)
        return Shown(
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
    """The other view's colours, the blur in proportion to the side."""
    colours = QUESTION.views[1].photometric
    low, high = colours.blur_sigma
    return replace(colours, blur_sigma=(low, max(low, high * size / QUESTION.views[1].size)))


def together(views: Sequence[View]) -> ViewsOfBatch:
    """One view of several pictures, its boxes grouped by level; there must be one box at least."""
    rois = group_by_level(torch.cat([v.boxes for v in views])[None], torch.cat([v.levels for v in views])[None])
    counts = torch.tensor([len(v.boxes) for v in views])
    rois.rois[rois.order, 0] = torch.arange(len(views), dtype=rois.rois.dtype).repeat_interleave(counts)
    return ViewsOfBatch(torch.stack([v.pixels for v in views]), rois)


def _as_list(shown: list[Shown | None]) -> list[Shown | None]:
    return shown


def picture_loader(pictures: ProbePictures, workers: int) -> DataLoader[Any]:
    """Lists of up to `AT_ONCE` pictures in the order of the set, made in `workers` processes (0: in this one)."""
    return DataLoader(
        pictures,
        batch_size=AT_ONCE,
        collate_fn=_as_list,
        num_workers=workers,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # draws nothing from a training run's
    )
