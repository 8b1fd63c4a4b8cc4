"""Batches for the device: one tensor of pixels per view, with its boxes grouped by pyramid level."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from socodet.errors import ArgumentError
from socodet.views.sample import Sample

Device = torch.device | str | int


@dataclass(frozen=True)
class _Tensors:
    def pin_memory(self) -> Self:
        """The same in page-locked memory, from which copies to a GPU run in the background."""
        return replace(self, **{field.name: _pinned(getattr(self, field.name)) for field in fields(self)})


def _pinned(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_pinned, value))
    return value.pin_memory() if isinstance(value, Tensor | _Tensors) else value


@dataclass(frozen=True)
class RoIs(_Tensors):
    """The boxes of one view of a batch, grouped by pyramid level on the CPU so that the device never waits.

    `rois[counts[0]:][:counts[1]]` are the boxes of P3, and so on. Features pooled in this order return to (image, box)
    order by `pooled[order]`.
    """

    rois: Tensor
    """(B*K, 5) float32: image index in the batch, then xyxy in pixels of the view; P2's boxes first."""
    counts: tuple[int, ...]
    """Boxes on each level; the sum is B*K."""
    order: Tensor
    """(B*K,) int64: at b*K + k the row of `rois` that holds box k of image b."""
    needed: tuple[bool, ...]
    """Which levels are computed: those that hold boxes, here or in any other process of the run."""

    def to(self, device: Device) -> "RoIs":
        """The same on `device`."""
        rois, order = (x.to(device, non_blocking=True) for x in (self.rois, self.order))
        return replace(self, rois=rois, order=order)


@dataclass(frozen=True)
class ViewBatch(_Tensors):
    """One view of a batch of B images with K boxes each.

    Box k of an image is the same object as box `partner + k` of the first view.
    """

    pixels: Tensor
    """(B, 3, S, S) uint8, RGB."""
    rois: RoIs
    """The boxes, grouped by level."""
    boxes: Tensor
    """(B, K, 4) float32: xyxy in pixels of the view."""
    levels: Tensor
    """(B, K) int64: 0..3 for P2..P5."""
    partner: int = 0
    """Index of the first view's box that is the same object as this view's first box; 0 if all views share objects."""
    proposals: Tensor = field(default_factory=lambda: torch.empty(0, 0, 4))
    """(B, P, 4) float32: proposals that the first view shows, xyxy in its pixels, padded with rows of zeros."""

    def to(self, device: Device) -> "ViewBatch":
        """Moves what the networks read to `device`; boxes and levels stay."""
        pixels, proposals = (x.to(device, non_blocking=True) for x in (self.pixels, self.proposals))
        return replace(self, pixels=pixels, rois=self.rois.to(device), proposals=proposals)

    def part(self, images: slice) -> "ViewBatch":
        """The view of a slice of the images, with its boxes regrouped; `needed` remains that of the whole batch."""
        boxes, levels = self.boxes[images], self.levels[images]
        rois = replace(group_by_level(boxes, levels), needed=self.rois.needed)
        pinned = self.boxes.is_pinned()
        rois = rois.pin_memory() if pinned else rois
        return ViewBatch(self.pixels[images], rois, boxes, levels, self.partner, self.proposals[images])


@dataclass(frozen=True)
class Batch(_Tensors):
    """B samples: V views, and where they come from."""

    views: tuple[ViewBatch, ...]
    """One per view, in the order of the settings."""
    windows: Tensor
    """(B, V, 4) float32: the window of each view, xyxy in [0, 1] of the source image."""
    indices: Tensor
    """(B,) int64: index of each image in the image source."""
    cpu_seconds: float = 0.0
    """CPU time that a data worker spent on these samples."""

    def split(self, parts: int) -> "tuple[Batch, ...]":
        """Splits into `parts` equal micro-batches of consecutive images, their boxes grouped by level; on the CPU.

        Every micro-batch computes the levels of the whole batch, so that all processes agree on them.
        """
        if parts == 1:
            return (self,)
        size = len(self.indices) // parts
        return tuple(self._part(slice(k * size, (k + 1) * size), self.cpu_seconds / parts) for k in range(parts))

    def _part(self, images: slice, cpu_seconds: float) -> "Batch":
        views = tuple(view.part(images) for view in self.views)
        return Batch(views, self.windows[images], self.indices[images], cpu_seconds)

    def to(self, device: Device) -> "Batch":
        """The same with the views' pixels and RoIs on `device`."""
        return replace(self, views=tuple(view.to(device) for view in self.views))


def group_by_level(boxes: Tensor, levels: Tensor) -> RoIs:
    """The boxes of one view sorted by level, within a level in (image, box) order.

    boxes: (B, K, 4) float32 xyxy. levels: (B, K) int64 in 0..3. Both on the CPU.
    """
    images, per_image, _ = boxes.shape
    flat_levels = levels.reshape(-1)
    by_level = torch.argsort(flat_levels, stable=True)
    image_index = torch.arange(images, dtype=boxes.dtype).repeat_interleave(per_image)
    rois = torch.cat([image_index[:, None], boxes.reshape(-1, 4)], dim=1)[by_level]
    order = torch.empty_like(by_level)
    order[by_level] = torch.arange(len(by_level))
    counts = torch.bincount(flat_levels, minlength=4).tolist()
    return RoIs(rois, tuple(counts), order, tuple(count > 0 for count in counts))


def collate(samples: Sequence[tuple[int, Sample]]) -> Batch:
    """A batch of samples made with the same settings, each given with the index of its image in the image source.

    ArgumentError if there are none.
    """
    if not samples:
        raise ArgumentError("a batch needs at least one sample; give one place or more")
    indices, parts = zip(*samples, strict=True)
    views = []
    for v, partner in enumerate(parts[0].partners):
        pixels, boxes, levels = (
            torch.from_numpy(np.stack([getattr(sample, name)[v] for sample in parts]))
            for name in ("pixels", "boxes", "levels")
        )
        views.append(ViewBatch(pixels, group_by_level(boxes, levels), boxes, levels, partner))
    shown = torch.from_numpy(np.stack([sample.shown for sample in parts]))
    if shown.shape[1]:  # an RPN looks at all levels
        rois = replace(views[0].rois, needed=(True,) * len(views[0].rois.needed))
        views[0] = replace(views[0], rois=rois, proposals=shown)
    windows = torch.from_numpy(np.stack([sample.windows for sample in parts]))
    return Batch(tuple(views), windows, torch.tensor(indices, dtype=torch.int64))
