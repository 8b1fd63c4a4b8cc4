"""Statistics of a run for its log: loss, pyramid levels, collapse, and the cost of the data."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from socodet.models.backbones import STRIDES
from socodet.runtime.counted import counted
from socodet.runtime.log import LOGGER
from socodet.training.loop import LoopResult
from socodet.views.batch import Batch

COLLAPSED_SHARE = 0.1
"""Embeddings have collapsed if their standard deviation is below this share of 1/√D, that of uniform embeddings."""
COLLAPSED_RANK = 2.0
"""They have also collapsed if their effective rank is below this, as for two opposite points."""
VARIANCE_TERM = "set --variance-weight 1.333 and --covariance-weight 0.0667"
MORE_IMAGES = "use more images, especially different ones"
"""Remedies for collapse; the second is for objectives that already have a variance term."""
HEADROOM = 1.3
"""How many times as fast as the step the data workers should be."""
NOTED_WAIT = 0.05
"""A note is printed if at least this share of the time was spent waiting for data."""


@dataclass
class DataCost:
    """CPU seconds that the data workers of one process spend on its samples."""

    cpu_seconds: float = 0.0

    def add(self, batch: Batch) -> None:
        """Adds a batch."""
        self.cpu_seconds += batch.cpu_seconds

    def cores_needed(self, at_work: float) -> float:
        """Cores that make these samples `HEADROOM` times as fast as the steps, which took `at_work` seconds."""
        return HEADROOM * self.cpu_seconds / max(at_work, 1e-9)

    def note(self, result: LoopResult, workers: int, processes: int) -> str | None:
        """How many workers would keep up, if the run waited for data; it has `workers` in each of `processes`."""
        if result.waited <= NOTED_WAIT * result.seconds:
            return None
        share, workers = result.waited / result.seconds, workers * processes
        cores = self.cores_needed(result.seconds - result.waited) * processes
        return (
            f"waiting for data {share:.0%} of the time; the data workers need {cores:.1f} cores "
            f"to be {HEADROOM} times as fast as the steps; {counted(workers, 'worker')} "
            f"{'is' if workers == 1 else 'are'} running"
        )


@dataclass
class LogWindow:
    """Statistics since the last log line."""

    losses: list[Tensor] = field(default_factory=list)
    rpn_losses: list[Tensor] = field(default_factory=list)
    boxes_on_level: list[int] = field(default_factory=lambda: [0] * len(STRIDES))
    data: DataCost = field(default_factory=DataCost)
    embeddings: Tensor = field(default_factory=lambda: torch.empty(0))
    """(N, D), this process's, from the last step with a loss in `losses`."""
    skipped: int = 0

    def add(self, batch: Batch, *, skipped: bool) -> None:
        """Adds a finished step."""
        self.skipped += skipped
        self.data.add(batch)
        for view in batch.views:
            for level, count in enumerate(view.rois.counts):
                self.boxes_on_level[level] += count

    @property
    def level_share(self) -> list[float]:
        """Share of the boxes on each level, over all views."""
        return [count / sum(self.boxes_on_level) for count in self.boxes_on_level]


class CollapseWatch:
    """Recognises collapsed embeddings, and warns once each time they begin to collapse."""

    def __init__(self, *, speaks: bool, has_variance_term: bool = False) -> None:
        self._speaks = speaks
        self._remedy = MORE_IMAGES if has_variance_term else VARIANCE_TERM
        self._collapsed = False

    def figures(self, embeddings_nd: Tensor, step: int) -> dict[str, Any]:
        """Log entries for unit-length embeddings (N, D); `collapsed` is among them only while they are."""
        std, even = embedding_std(embeddings_nd), embeddings_nd.shape[1] ** -0.5
        rank = effective_rank(embeddings_nd)
        line: dict[str, Any] = {"embedding_std": std, "effective_rank": rank}
        few = len(embeddings_nd) - 1 <= COLLAPSED_RANK  # so few always have a rank below it
        was, self._collapsed = self._collapsed, std < COLLAPSED_SHARE * even or (rank < COLLAPSED_RANK and not few)
        if self._collapsed:
            line["collapsed"] = True
            if self._speaks and not was:
                LOGGER.warning(
                    f"warning: collapse at step {step}: the embeddings' standard deviation is {std:.2g} (evenly "
                    f"spread: {even:.2g}) and their effective rank {rank:.2g}; {self._remedy}, or lower --base-lr"
                )
        return line


@torch.no_grad()
def embedding_std(embeddings_nd: Tensor) -> float:
    """Mean over dimensions of the standard deviation over N unit-length embeddings (N, D).

    About 1/√D when they are uniform on the sphere, 0 when all are the same point.
    """
    return float(embeddings_nd.float().std(dim=0, correction=0).mean())


@torch.no_grad()
def effective_rank(embeddings_nd: Tensor) -> float:
    """Exp of the entropy of the centred embeddings' normalised singular values (Roy & Vetterli 2007).

    Between 1 and min(N - 1, D): how many directions the N embeddings (N, D) really use.
    """
    centred = embeddings_nd.float() - embeddings_nd.float().mean(dim=0)
    singular = torch.linalg.svdvals(centred)
    share = singular / singular.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))
