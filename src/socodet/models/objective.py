"""What the networks minimise: SoCo's loss or an InfoNCE loss, and terms that keep dimensions from collapsing."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import cross_entropy
from torch.nn.functional import normalize as unit

from socodet.models.settings import ObjectiveSettings
from socodet.runtime.extensions import is_extension, resolve_extension

VARIANCE_EPSILON = 1e-4


@dataclass(frozen=True)
class Embeddings:
    """All that a loss may look at: one tensor per view, a row per box in (image, box) order.

    The rows of image b are b*K to (b+1)*K - 1; the first view may have more boxes per image than the others.
    """

    representations: Sequence[Tensor]
    """Online h of Eq. 1: (B*K, H)."""
    projections: Sequence[Tensor]
    """Online projector's outputs, not normalised: (B*K, D)."""
    predictions: Sequence[Tensor]
    """v of Eq. 4: the predictor's outputs as unit vectors (B*K, D), float32 at least."""
    targets: Sequence[Tensor]
    """v' of Eq. 4: the target projector's outputs as unit vectors (B*K, D), without gradient."""
    partners: Sequence[int]
    """Box k of view v is the same object as box partners[v] + k of the first view."""
    images: int
    """B."""


class Objective(ABC):
    """A loss of the embeddings of one batch, and the lowest value it can reach.

    An objective that has state is an `nn.Module` too and keeps its state in buffers, which checkpoints save.
    """

    @abstractmethod
    def __call__(self, embeddings: Embeddings) -> Tensor:
        """The loss, a scalar."""

    @abstractmethod
    def lowest(self, views: int) -> float:
        """The value at perfect agreement of this many views."""


class CosineAgreement(Objective):
    """SoCo's own loss, Eq. 5-6 symmetrised."""

    def __call__(self, embeddings: Embeddings) -> Tensor:
        """-2 · mean cosine of the same object, summed over pairs of views; see `symmetric_loss`."""
        online, target = (
            [z.reshape(embeddings.images, -1, z.shape[1]) for z in side]
            for side in (embeddings.predictions, embeddings.targets)
        )
        return symmetric_loss(online, target, embeddings.partners)

    def lowest(self, views: int) -> float:
        """Each of the two directions of each pair gives -2."""
        return -4.0 * (views - 1)


class InfoNCE(Objective):
    """Each box against all boxes of other images in the batch (van den Oord et al. 2018, as MoCo v3 symmetrises it).

    2T · cross entropy of cosine / T over the same object (the positive) and the boxes of all other images; other
    boxes of the same image are left out. Summed over the same pairs as SoCo's loss. With several processes, the
    negatives come from all of them.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, embeddings: Embeddings) -> Tensor:
        """A scalar, at least 0."""
        losses = []
        for v, start in enumerate(embeddings.partners):
            if v == 0:
                continue
            for one, other in ((0, v), (v, 0)):
                online = self._part(embeddings.predictions[one], one, v, start, embeddings)
                target = self._part(embeddings.targets[other], other, v, start, embeddings)
                losses.append(self._one_direction(online, target, embeddings.images))
        return torch.stack(losses).sum()

    def lowest(self, views: int) -> float:
        """0, which is only approached at a finite temperature."""
        return 0.0

    @staticmethod
    def _part(z: Tensor, view: int, v: int, start: int, embeddings: Embeddings) -> Tensor:
        """The rows of the objects that view v shows."""
        if view != 0:
            return z
        boxes = len(embeddings.predictions[v]) // embeddings.images
        return z.reshape(embeddings.images, -1, z.shape[1])[:, start : start + boxes].reshape(-1, z.shape[1])

    def _one_direction(self, online: Tensor, target: Tensor, images: int) -> Tensor:
        everyone, first = _gathered(target)
        boxes = len(target) // images
        image_of = torch.arange(len(everyone), device=target.device) // boxes
        positive = torch.arange(len(target), device=target.device) + first
        with torch.autocast(online.device.type, enabled=False):  # half precision would round the cosines
            logits = online @ everyone.T / self.temperature
        hidden = image_of[positive][:, None] == image_of[None, :]
        hidden[torch.arange(len(target), device=target.device), positive] = False
        return 2 * self.temperature * cross_entropy(logits.masked_fill(hidden, -torch.inf), positive)


class DecorrelatedDimensions(Objective, nn.Module):
    """Another objective plus VICReg's variance and covariance terms (Bardes et al. 2022, Eq. 1-4).

    For each view's D-dimensional outputs, over all boxes of the batch in all processes, it adds `variance_weight` ·
    mean over dimensions of max(0, 1 - √(variance + 1e-4)), and `covariance_weight` · sum of squared off-diagonal
    covariances / D. Without these, a short run on few similar images lowers the loss by giving up dimensions. This is
    a module, so that the other objective's state, if it has any, is part of the networks' state.
    """

    def __init__(self, agreement: Objective, settings: ObjectiveSettings) -> None:
        super().__init__()
        self.agreement, self.settings = agreement, settings

    def __call__(self, embeddings: Embeddings) -> Tensor:
        """The other objective's loss and the two terms summed over views."""
        loss = self.agreement(embeddings)
        on_projections = self.settings.decorrelate == "projections"
        for view in embeddings.projections if on_projections else embeddings.representations:
            variance, covariance = variance_covariance(view)
            loss = loss + self.settings.variance_weight * variance + self.settings.covariance_weight * covariance
        return loss

    def lowest(self, views: int) -> float:
        """The other objective's: both terms can be 0."""
        return self.agreement.lowest(views)


def build_objective(settings: ObjectiveSettings) -> Objective:
    """The objective of those settings."""
    agreement: Objective
    if is_extension(settings.loss):
        agreement = resolve_extension(settings.loss, Objective)  # type: ignore[type-abstract]
    else:
        agreement = InfoNCE(settings.temperature) if settings.loss == "infonce" else CosineAgreement()
    if settings.variance_weight == 0 and settings.covariance_weight == 0:
        return agreement
    return DecorrelatedDimensions(agreement, settings)


def symmetric_loss(online: Sequence[Tensor], target: Sequence[Tensor], partners: Sequence[int] | None = None) -> Tensor:
    """L + L̃ of Eq. 5-6 from unit vectors: -2 · mean cosine of the same object, summed over pairs of views.

    online, target: V tensors (..., K, D), the first view's with at least as many boxes. partners: box k of view v
    is the same object as box partners[v] + k of the first view; by default box k.
    -8 with three views when online and target agree perfectly, -4 with two, -12 with four.
    """
    losses = []
    for first, others in ((online[0], target), (target[0], online)):
        for v, other in enumerate(others[1:], start=1):
            start = partners[v] if partners else 0
            same_objects = first[..., start : start + other.shape[-2], :]
            losses.append(-2.0 * (same_objects * other).sum(dim=-1).mean())
    return torch.stack(losses).sum()


def variance_covariance(outputs_nd: Tensor) -> tuple[Tensor, Tensor]:
    """VICReg's two terms for N outputs (N, D), in float32 at least; with several processes, for the rows of all.

    The first: mean over dimensions of max(0, 1 - √(s² + 1e-4)). The second: Σ_{i≠j} C_ij² / D. s² and C are the
    unbiased variances and covariances over the rows.
    """
    z = outputs_nd.to(torch.promote_types(outputs_nd.dtype, torch.float32))
    with torch.autocast(z.device.type, enabled=False):  # products of half precision would round the covariances
        rows = len(z) * _processes()
        centred = z - _sum_over_all(z.sum(dim=0)) / rows
        covariance_dd = _sum_over_all(centred.T @ centred) / (rows - 1)
        variances = covariance_dd.diagonal()
        hinge = (1 - (variances + VARIANCE_EPSILON).sqrt()).clamp_min(0).mean()
        off_diagonal = covariance_dd.square().sum() - variances.square().sum()
        return hinge, off_diagonal / z.shape[1]


def unit_vectors(embeddings: Tensor) -> Tensor:
    """Unit vectors, as Eq. 5 compares them, in float32 at least: half precision would round the loss."""
    return unit(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _sum_over_all(value: Tensor) -> Tensor:
    if _processes() == 1:
        return value
    total: Tensor = all_reduce(value)  # type: ignore[no-untyped-call]
    return total


def _gathered(rows: Tensor) -> tuple[Tensor, int]:
    """The rows of all processes, each of which has equally many, and where this one's begin; without gradient."""
    if _processes() == 1:
        return rows, 0
    parts = [torch.empty_like(rows) for _ in range(_processes())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts), dist.get_rank() * len(rows)
