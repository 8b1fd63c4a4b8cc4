"""The dataset of samples that pretraining draws its batches from."""

import operator
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from socodet.errors import ArgumentError, UnreadableImageError
from socodet.images.decode import decode_image, image_size
from socodet.images.source import ImageSource, read_encoded, reading_of
from socodet.images.truncated import TRUNCATED
from socodet.pretraining.recipes.recipe import Recipe
from socodet.proposals.image_boxes import OnlineProposals, other_coordinates
from socodet.proposals.table import ProposalTable
from socodet.training.streams import Place
from socodet.training.workers import Begin
from socodet.views.batch import Batch, collate
from socodet.views.sample import Sample, make_sample, sample_rng
from socodet.views.settings import SampleSettings

SHOWN_TO_RPN = 64
"""Maximum number of an image's proposals that an RPN head learns to find."""


class Proposals(Protocol):
    """Where boxes come from: a proposal table, `OnlineProposals`, or the user's own object."""

    def look_up(self, key: str, data: bytes) -> tuple[int, NDArray[np.float32]]:
        """The width of an encoded image in pixels, and its proposals (N, 4) xyxy. Raises UnreadableImageError."""


class SampleDataset(Dataset[tuple[int, Sample]]):
    """Maps (epoch, image index) to a finished sample, which is the same for any number of workers.

    `batch` makes a batch. With torch's workers, use DataLoader(samples, batch_size, sampler=places,
    collate_fn=socodet.collate, num_workers=2), where `places` lists (epoch, image index).

    source: as returned by `open_images`. proposals: `OnlineProposals`, which read images as the source does, or any
    object with `look_up`. indices: the images that may be shown. settings: a recipe's `sample`. shown: maximum number
    of the first view's proposals that a sample has besides its objects; with `rpn_weight`, `pretrain` uses 64.

    An image that cannot be read is replaced by the next one that can; a sample comes with the index of the image shown.
    Raises ArgumentError for arguments of the wrong type, for indices that the source does not have, for places whose
    image is not among the indices, and if `look_up` returns a wrong width.
    """

    def __init__(
        self,
        source: ImageSource,
        proposals: Proposals,
        indices: NDArray[np.int64] | Sequence[int],
        settings: SampleSettings,
        seed: int,
        shown: int = 0,
    ) -> None:
        numbers = {"seed": seed, "shown": shown}
        for name, given, fits, what in (
            ("source", source, hasattr(source, "read"), "what open_images returns"),
            ("proposals", proposals, hasattr(proposals, "look_up"), "OnlineProposals(...), or an object with look_up"),
            ("settings", settings, isinstance(settings, SampleSettings), "SampleSettings, such as recipe.sample"),
            *((name, one, isinstance(one, Integral), "a whole number") for name, one in numbers.items()),
        ):
            if not fits:
                raise ArgumentError(f"SampleDataset: {name} must be {what}, not of type {type(given).__name__}")
        for name, number in numbers.items():
            if number < 0:
                raise ArgumentError(f"SampleDataset: {name} must be 0 or more, not {number}")
        self._source, self._indices = source, _sorted(indices, len(source))
        self._settings, self._seed, self._shown = settings, seed, shown
        self._least_side, self._reading = settings.least_side, reading_of(source)
        if isinstance(proposals, OnlineProposals):
            proposals = replace(proposals, reading=proposals.reading.filled_from(self._reading))
        self._proposals = proposals
        self._own = not isinstance(proposals, ProposalTable | OnlineProposals)
        """Whether the proposals come from the user's own object."""

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def sample_bytes(self) -> int:
        """Size of a sample, but for its boxes."""
        return self._settings.pixel_bytes

    def batch(self, places: Sequence[Place], begin: Begin = lambda _name: None) -> Batch:
        """The batch of these (epoch, image index) places, with the CPU seconds it took."""
        before = time.thread_time()
        batch = collate([self.sample(place, begin) for place in places])
        return replace(batch, cpu_seconds=time.thread_time() - before)

    def __getitem__(self, place: Place) -> tuple[int, Sample]:
        return self.sample(place)

    def sample(self, place: Place, begin: Begin = lambda _name: None) -> tuple[int, Sample]:
        """The index of the image shown, and its sample; `begin` is called with the key of each image tried."""
        epoch, first = self._checked(place)
        start = int(np.searchsorted(self._indices, first))
        for offset in range(len(self._indices)):
            index = int(self._indices[(start + offset) % len(self._indices)])
            key = self._source.key(index)
            begin(key)
            try:
                data = read_encoded(self._source, index, self._reading.max_pixels)
                width, boxes = self._look_up(key, data)
                image = decode_image(data, self._least_side, self._reading, on_truncated=partial(TRUNCATED.add, key))
            except (UnreadableImageError, OSError):
                continue
            part = round(width / image.shape[1])  # a large JPEG is decoded at 1/2, 1/4 or 1/8
            return index, make_sample(
                image,
                boxes / np.float32(part),
                self._settings,
                sample_rng(self._seed, epoch, index),
                self._shown,
            )
        raise UnreadableImageError(f"{self._source.location}: none of its images can be read any more; check the files")

    def _look_up(self, key: str, data: bytes) -> tuple[int, NDArray[np.float32]]:
        """The image's width and proposals. ArgumentError if the user's own `look_up` returns anything else."""
        found = self._proposals.look_up(key, data)
        if not self._own:
            return found
        try:
            width, boxes = int(found[0]), np.asarray(found[1], np.float32)
        except (TypeError, ValueError, IndexError):
            width, boxes = 0, np.empty(0, np.float32)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        if width < 1 or boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
            raise ArgumentError(
                f"SampleDataset: proposals.look_up must return the width of {key} in pixels and finite boxes (N, 4)"
            )
        real, height = image_size(data, sys.maxsize)
        if width != real:
            raise ArgumentError(
                f"SampleDataset: proposals.look_up gives a width of {width} for {key}, which is {real} pixels wide; "
                "give the width and boxes of the upright image, with its EXIF orientation applied"
            )
        if problem := other_coordinates(boxes, width, height):
            raise ArgumentError(f"SampleDataset: proposals.look_up {problem.format(key)}")
        return width, boxes

    def _checked(self, place: Place) -> Place:
        """The place as integers. ArgumentError if it is not a place, or its image is not among the indices."""
        try:
            epoch, index = map(operator.index, place)
        except (TypeError, ValueError):
            epoch, index = -1, -1
        if epoch < 0:
            raise ArgumentError(f"SampleDataset: a place is (epoch, image index), not {place!r}")
        at = int(np.searchsorted(self._indices, index))
        if at == len(self) or self._indices[at] != index:
            raise ArgumentError(f"SampleDataset: image index {index} is not among its {len(self):,} indices")
        return epoch, index


def _sorted(indices: NDArray[np.int64] | Sequence[int], images: int) -> NDArray[np.int64]:
    """The indices, sorted. ArgumentError unless they are whole numbers from 0 to `images` - 1."""
    try:
        given = np.asarray(indices)
    except ValueError:  # lists of several lengths
        given = np.empty((1, 1))
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        mask = "; for a mask, give np.flatnonzero(mask)" if given.dtype.kind == "b" else ""
        raise ArgumentError(f"SampleDataset: indices must be a list of whole numbers{mask}")
    outside = given[(given < 0) | (given >= images)]
    if outside.size:
        raise ArgumentError(f"SampleDataset: index {outside[0]} does not exist; the source has {images:,} images")
    return np.sort(given.astype(np.int64))


def dataset_of(
    recipe: Recipe, source: ImageSource, proposals: ProposalTable | OnlineProposals, indices: NDArray[np.int64]
) -> SampleDataset:
    """The samples of a recipe."""
    shown = SHOWN_TO_RPN if recipe.model.rpn_weight > 0 else 0
    return SampleDataset(source, proposals, indices, recipe.sample, recipe.training.seed, shown)


def replaced_images(batch: Batch, expected: Sequence[Place]) -> set[int]:
    """Indices of images that could not be read when their turn came."""
    seen = batch.indices.tolist()
    return {index for (_, index), got in zip(expected, seen, strict=True) if got != index}
