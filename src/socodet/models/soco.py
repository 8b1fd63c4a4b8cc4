"""SoCo: an online and a target network learn to agree about the same object in every view (section 3.3)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from socodet.models.encoders import ObjectEncoder, over_views
from socodet.models.normalization import normalize
from socodet.models.settings import ModelSettings
from socodet.views.batch import RoIs, ViewBatch


@dataclass(frozen=True)
class SoCoOutput:
    """What one forward pass gives.

    `loss`: scalar, Eq. 6 symmetrised, averaged over images. `embeddings`: (B·K, D), the target's unit-length
    embeddings of the first view's boxes, without gradient, to watch for collapse.
    """

    loss: Tensor
    embeddings: Tensor


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear: the shape of projector and predictor (section 4.1)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
    )


class Embedder(nn.Module):
    """An object encoder and a projector: g(f^H(RoIAlign(f^I(V), b)))."""

    def __init__(self, encoder: ObjectEncoder, settings: ModelSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = mlp(encoder.representation_size, settings.hidden_size, settings.embedding_size)

    def forward(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> list[Tensor]:
        """A view each: normalised pixels (B, 3, H, W) and their boxes → (B·K, D)."""
        return over_views(self.projector, self.encoder.over_views(pixels, rois))


class SoCo(nn.Module):
    """Online network f_θ, g_θ, q_θ and target network f_ξ, g_ξ (Eq. 2-4).

    Both run in training mode: the target normalises with its own batch statistics, as in BYOL. The target
    gets no gradient; `update_target` moves it towards the online network.
    """

    def __init__(self, encoder: ObjectEncoder, settings: ModelSettings) -> None:
        super().__init__()
        self.online = Embedder(encoder, settings)
        self.predictor = mlp(settings.embedding_size, settings.hidden_size, settings.embedding_size)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, views: Sequence[ViewBatch]) -> SoCoOutput:
        """The first view against each of the others, online against target and the reverse (Eq. 5-6)."""
        pixels, rois = [normalize(view.pixels) for view in views], [view.rois for view in views]
        with torch.no_grad():
            target = [_direction(z) for z in self.target(pixels, rois)]
        online = [_direction(z) for z in over_views(self.predictor, self.online(pixels, rois))]
        online_bkd, target_bkd = (
            [z.reshape(len(pixels[0]), -1, z.shape[1]) for z in side] for side in (online, target)
        )
        loss = symmetric_loss(online_bkd, target_bkd, [view.partner for view in views])
        return SoCoOutput(loss=loss, embeddings=target[0])

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """ξ ← τ ξ + (1 - τ) θ for every parameter (section 3.3); batch-norm statistics stay each network's own."""
        torch._foreach_lerp_(list(self.target.parameters()), list(self.online.parameters()), 1.0 - momentum)


def _direction(embeddings: Tensor) -> Tensor:
    """Unit vectors (Eq. 4), in float32 at least: half precision would round the loss."""
    return unit(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)


def symmetric_loss(online: Sequence[Tensor], target: Sequence[Tensor], partners: Sequence[int] | None = None) -> Tensor:
    """L + L̃ of Eq. 5-6 from unit vectors: -2 · mean cosine of the same object, summed over pairs of views.

    online, target: V tensors (..., K, D), the first view's with as many boxes or more. partners: box k of view v
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
