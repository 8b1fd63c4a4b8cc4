"""The order in which images are seen, in pretraining and in fine-tuning."""

from bisect import bisect
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from socodet.runtime.world import ALONE, World

KEPT = 4
"""Number of passes whose order is cached."""
Place = tuple[int, int]
"""(epoch, image index): with the seed, all that a sample depends on. The n-th repeat of an image within an epoch has
the epoch + n · 2³²."""


class _Pass(NamedTuple):
    """The order of one pass."""

    order: NDArray[np.int64]
    """(P,) positions within the indices."""
    earlier: NDArray[np.int64] | None
    """(P,) how often each came earlier in the pass; None if each comes once."""


@dataclass(frozen=True)
class Stream:
    """The endless sequence of places: one shuffled pass over `indices` after another, cut into batches.

    Without factors, position p of the stream is image p mod N of pass p // N, whatever came before, so that a
    resumed run continues the same sequence. With `factors`, one per image
    (`finetuning.samples.repeat_factors`), a pass has some images several times, each time as another
    sample. A batch may straddle two passes, and a dataset smaller than a batch is seen several times in one. Every
    process takes its share of each of a batch's `parts` micro-batches, so that these hold the same images for any
    number of processes.
    """

    indices: NDArray[np.int64]
    batch_size: int
    seed: int
    world: World = ALONE
    parts: int = 1
    factors: tuple[float, ...] | None = None

    def batch(self, step: int) -> list[Place]:
        """The places in this process's share of a step's batch."""
        part = self.batch_size // self.parts
        share = part // self.world.size
        starts = [step * self.batch_size + k * part + self.world.rank * share for k in range(self.parts)]
        return [self._place(start + offset) for start in starts for offset in range(share)]

    def _place(self, position: int) -> Place:
        if self.factors is None:
            epoch, rest = divmod(position, len(self.indices))
            return epoch, int(self.indices[self._pass(epoch).order[rest]])
        while self._borders[-1] <= position:
            self._borders.append(self._borders[-1] + len(self._pass(len(self._borders) - 1).order))
        epoch = bisect(self._borders, position) - 1
        (order, earlier), rest = self._pass(epoch), position - self._borders[epoch]
        assert earlier is not None
        return epoch + int(earlier[rest]) * 2**32, int(self.indices[order[rest]])

    def _pass(self, epoch: int) -> _Pass:
        if epoch not in self._passes:
            while len(self._passes) >= KEPT:
                del self._passes[next(iter(self._passes))]
            self._passes[epoch] = _drawn(self.seed, epoch, len(self.indices), self.factors)
        return self._passes[epoch]

    @cached_property
    def _passes(self) -> dict[int, _Pass]:
        """The newest passes by epoch."""
        return {}

    @cached_property
    def _borders(self) -> list[int]:
        """The first position of each pass so far."""
        return [0]


def _drawn(seed: int, epoch: int, count: int, factors: tuple[float, ...] | None) -> _Pass:
    generator = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    if factors is None:
        return _Pass(generator.permutation(count), None)
    order = generator.permutation(repeated_indices(np.array(factors), generator))
    by_image = np.argsort(order, kind="stable")
    alike = order[by_image]
    earlier = np.empty(len(order), np.int64)
    earlier[by_image] = np.arange(len(order)) - np.searchsorted(alike, alike)
    return _Pass(order, earlier)


def repeated_indices(factors: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """The images of one epoch, in order. The fractional part of a factor is the probability of one more repetition."""
    times = np.floor(factors).astype(np.int64)
    times += generator.random(len(factors)) < factors - times
    return np.repeat(np.arange(len(factors)), times)
