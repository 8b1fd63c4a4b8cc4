"""What is watched while a run trains: the loss, the pyramid levels, collapse, and what the data cost."""

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from socodet.models.backbones import STRIDES
from socodet.models.spread import effective_rank, embedding_std
from socodet.training.loop import LoopResult
from socodet.views.batch import Batch

COLLAPSED_SHARE = 0.1
"""Embeddings whose standard deviation is below this share of 1/√D, that of vectors spread evenly, have collapsed."""
COLLAPSED_RANK = 2.0
"""So have those that use fewer directions than this, such as two opposite points, however far apart they lie."""
HEADROOM = 1.3
"""How many times over data workers should be able to feed the step."""
NOTED_WAIT = 0.05
"""The share of the time spent waiting for data from which it is said."""


@dataclass
class DataCost:
    """CPU seconds that the samples of a process cost its data workers."""

    cpu_seconds: float = 0.0

    def add(self, batch: Batch) -> None:
        """One batch more."""
        self.cpu_seconds += batch.cpu_seconds

    def cores_needed(self, at_work: float) -> float:
        """Cores of data workers that make these samples `HEADROOM` times over in the seconds the steps were at work.

        That is `HEADROOM` x images a second of the step alone x CPU seconds a sample.
        """
        return HEADROOM * self.cpu_seconds / max(at_work, 1e-9)

    def note(self, result: LoopResult, workers: int, processes: int) -> str | None:
        """What would keep the step fed, where a run waited; `workers` in each of its `processes`."""
        if result.waited <= NOTED_WAIT * result.seconds:
            return None
        share, workers = result.waited / result.seconds, workers * processes
        cores = self.cores_needed(result.seconds - result.waited) * processes
        return (
            f"waiting for data {share:.0%} of the time; {cores:.1f} cores of data workers would "
            f"feed this step {HEADROOM} times over, {workers} {'is' if workers == 1 else 'are'} at work"
        )


@dataclass
class LogWindow:
    """What was gathered since the last log line."""

    losses: list[Tensor] = field(default_factory=list)
    boxes_on_level: list[int] = field(default_factory=lambda: [0] * len(STRIDES))
    data: DataCost = field(default_factory=DataCost)
    embeddings: Tensor = field(default_factory=lambda: torch.empty(0))
    """(N, D) of the last step with a loss in `losses`."""
    skipped: int = 0

    def add(self, batch: Batch, *, skipped: bool) -> None:
        """One finished step."""
        self.skipped += skipped
        self.data.add(batch)
        for view in batch.views:
            for level, count in enumerate(view.rois.counts):
                self.boxes_on_level[level] += count

    @property
    def level_share(self) -> list[float]:
        """The share of the boxes on each level, over all views."""
        return [count / sum(self.boxes_on_level) for count in self.boxes_on_level]


class CollapseWatch:
    """Tells whether embeddings still spread over the sphere, and warns once when they begin not to."""

    def __init__(self, *, speaks: bool) -> None:
        self._speaks = speaks
        self._collapsed = False

    def figures(self, embeddings_nd: Tensor, step: int) -> dict[str, Any]:
        """Spread of unit-length embeddings (N, D) for the log; `collapsed` stands there only while they are."""
        spread, even = embedding_std(embeddings_nd), embeddings_nd.shape[1] ** -0.5
        rank = effective_rank(embeddings_nd)
        line: dict[str, Any] = {"embedding_std": spread, "effective_rank": rank}
        was, self._collapsed = self._collapsed, spread < COLLAPSED_SHARE * even or rank < COLLAPSED_RANK
        if self._collapsed:
            line["collapsed"] = True
            if self._speaks and not was:
                print(
                    f"warning: collapse at step {step}: the embeddings' standard deviation is {spread:.2g}, that of "
                    f"evenly spread ones {even:.2g}, and their effective rank {rank:.2g}; lower "
                    "--base-lr, raise --target-momentum, or set --variance-weight, such as 4",
                    file=sys.stderr,
                )
        return line
