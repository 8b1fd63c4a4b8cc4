"""The order in which images are seen, and the batches of their samples."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from socodet.errors import UnreadableImageError
from socodet.images.cut_short import CUT_SHORT
from socodet.images.decode import decode_image
from socodet.images.source import ImageSource, reading_of
from socodet.pretraining.recipes.recipe import Recipe
from socodet.proposals.on_the_fly import OnlineProposals
from socodet.proposals.table import ProposalTable
from socodet.runtime.world import ALONE, World
from socodet.training.workers import Begin, make_batches
from socodet.views.batch import Batch, collate
from socodet.views.sample import Sample, make_sample, sample_rng
from socodet.views.settings import SampleSettings

SHOWN_TO_RPN = 64
"""Proposals of an image that an RPN head learns to find, at most."""


@dataclass(frozen=True)
class SampleStream:
    """The endless sequence of (epoch, image): one shuffled pass over `indices` after another, cut into batches.

    Position p of the stream is image p mod N of pass p // N, whatever came before, so that a resumed run continues
    the same sequence, and every process takes its share of each batch. A batch may straddle two passes, and a set
    smaller than a batch is seen several times in one. Of `parts` micro-batches each is shared among the processes, so
    that it holds the same images for any number of processes.
    """

    indices: NDArray[np.int64]
    batch_size: int
    seed: int
    world: World = ALONE
    parts: int = 1

    def batch(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, image index) of every image of this process's share of the batch of this step."""
        part = self.batch_size // self.parts
        share = part // self.world.size
        starts = [step * self.batch_size + k * part + self.world.rank * share for k in range(self.parts)]
        positions = [start + offset for start in starts for offset in range(share)]
        count = len(self.indices)
        return [(p // count, int(self.indices[_order(self.seed, p // count, count)[p % count]])) for p in positions]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(count)


class SampleDataset:
    """The finished sample of (epoch, image index): the same for any number of workers.

    Take batches by `batch`, or with torch's workers, where `places` are (epoch, image index): DataLoader(samples,
    batch_size, sampler=places, collate_fn=socodet.collate, num_workers=2).

    `shown`: how many proposals of the first view a sample has at most, besides its objects.

    An image that cannot be read is replaced by the next one that can; the sample has the index of its image.
    """

    def __init__(
        self,
        source: ImageSource,
        proposals: ProposalTable | OnlineProposals,
        indices: NDArray[np.int64],
        settings: SampleSettings,
        seed: int,
        shown: int = 0,
    ) -> None:
        self._source, self._proposals, self._indices = source, proposals, indices
        self._settings, self._seed, self._shown = settings, seed, shown
        self._least_side, self._reading = settings.least_side, reading_of(source)

    def batch(self, places: Sequence[tuple[int, int]], begin: Begin = lambda _name: None) -> Batch:
        """The batch of these (epoch, image index), with its CPU seconds."""
        before = time.thread_time()
        batch = collate([self.sample(place, begin) for place in places])
        return replace(batch, cpu_seconds=time.thread_time() - before)

    def __getitem__(self, place: tuple[int, int]) -> tuple[int, Sample]:
        return self.sample(place)

    def sample(self, place: tuple[int, int], begin: Begin = lambda _name: None) -> tuple[int, Sample]:
        """The sample of one (epoch, image index), and the index of its image; `begin` is told each image tried."""
        epoch, first = place
        start = int(np.searchsorted(self._indices, first))
        for offset in range(len(self._indices)):
            index = int(self._indices[(start + offset) % len(self._indices)])
            key = self._source.key(index)
            begin(key)
            try:
                data = self._source.read(index)
                width, boxes = self._proposals.look_up(key, data)
                image = decode_image(data, self._least_side, self._reading, on_cut=partial(CUT_SHORT.add, key))
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


def dataset_of(
    recipe: Recipe, source: ImageSource, proposals: ProposalTable | OnlineProposals, indices: NDArray[np.int64]
) -> SampleDataset:
    """The samples of a recipe."""
    shown = SHOWN_TO_RPN if recipe.model.rpn_weight > 0 else 0
    return SampleDataset(source, proposals, indices, recipe.sample, recipe.training.seed, shown)


def sample_batches(
    dataset: SampleDataset,
    stream: SampleStream,
    *,
    start: int,
    stop: int,
    workers: int,
    pin_on: torch.device | None = None,
) -> Generator[Batch, None, None]:
    """The batches of steps `start` to `stop`, made by `workers` processes (0: by this one); see `make_batches`."""
    return make_batches(dataset.batch, (stream.batch(step) for step in range(start, stop)), workers, pin_on=pin_on)


def replaced_images(batch: Batch, expected: Sequence[tuple[int, int]]) -> set[int]:
    """Indices of images that could not be read when their turn came."""
    seen = batch.indices.tolist()
    return {index for (_, index), got in zip(expected, seen, strict=True) if got != index}
