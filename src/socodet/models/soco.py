"""SoCo: an online and a target network learn to agree about the same object in every view (section 3.3)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from socodet.errors import InputError
from socodet.models.architectures import build_encoder
from socodet.models.backbones import NormLayer
from socodet.models.encoders import FPNEncoder, ObjectEncoder, over_views
from socodet.models.normalization import normalize
from socodet.models.objective import CosineAgreement, Embeddings, Objective, build_objective, unit_vectors
from socodet.models.region_proposals import rpn_loss
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.views.batch import RoIs, ViewBatch


@dataclass(frozen=True)
class SoCoOutput:
    """The output of one forward pass.

    `loss`: scalar, by default Eq. 6 symmetrised, averaged over images. `embeddings`: (B·K, D), the target's unit-length
    embeddings of the first view's boxes, without gradient, to watch for collapse. `rpn_loss`: scalar, unweighted, if an
    RPN head is pretrained too; `loss` includes it, weighted.
    """

    loss: Tensor
    embeddings: Tensor
    rpn_loss: Tensor | None = None


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

    def forward(self, pixels: Sequence[Tensor], rois: Sequence[RoIs]) -> tuple[list[Tensor], list[Tensor]]:
        """Normalised pixels (B, 3, H, W) and boxes, one per view → h (B·K, H) and projections (B·K, D) per view."""
        representations = self.encoder.over_views(pixels, rois)
        return representations, over_views(self.projector, representations)

    def with_rpn(
        self, views: Sequence[ViewBatch], pixels: Sequence[Tensor], rois: Sequence[RoIs]
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """`forward`, and the RPN head's loss on the first view (`region_proposals.rpn_loss`)."""
        encoder, (first, *_) = self.encoder, views
        assert isinstance(encoder, FPNEncoder)
        assert encoder.rpn_head is not None
        levels = encoder.levels_over_views(pixels, rois)
        pyramid = [level for level in levels[0] if level is not None]
        loss = rpn_loss(encoder.rpn_head, pyramid, first.proposals)
        representations = encoder.of_levels(levels, rois)
        return representations, over_views(self.projector, representations), loss


class SoCo(nn.Module):
    """Online network f_θ, g_θ, q_θ and target network f_ξ, g_ξ (Eq. 2-4).

    Both run in training mode: the target normalises with its own batch statistics, as in BYOL. The target
    gets no gradient; `update_target` moves it towards the online network.
    """

    if TYPE_CHECKING:  # nn.Module's __call__ returns Any

        def __call__(self, views: Sequence[ViewBatch]) -> SoCoOutput:
            """As `forward`."""
            ...

    def __init__(self, encoder: ObjectEncoder, settings: ModelSettings, objective: Objective | None = None) -> None:
        super().__init__()
        self.objective = objective or CosineAgreement()
        self.rpn_weight = settings.rpn_weight
        self.online = Embedder(encoder, settings)
        self.predictor = mlp(settings.embedding_size, settings.hidden_size, settings.embedding_size)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, views: Sequence[ViewBatch]) -> SoCoOutput:
        """The objective of all views' embeddings; by default the first view against each of the others (Eq. 5-6)."""
        pixels, rois = [normalize(view.pixels) for view in views], [view.rois for view in views]
        with torch.no_grad():
            target = [unit_vectors(z) for z in self.target(pixels, rois)[1]]
        found: Tensor | None = None
        if self.rpn_weight > 0:
            if not views[0].proposals.shape[1]:
                raise InputError(
                    "rpn_weight: the batch has no proposals to learn; make it with SampleDataset(..., shown=64)"
                )
            representations, projections, found = self.online.with_rpn(views, pixels, rois)
        else:
            representations, projections = self.online(pixels, rois)
        predictions = [unit_vectors(z) for z in over_views(self.predictor, projections)]
        partners = [view.partner for view in views]
        embeddings = Embeddings(representations, projections, predictions, target, partners, len(pixels[0]))
        loss = self.objective(embeddings)
        if not (isinstance(loss, Tensor) and loss.ndim == 0):
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise InputError(f"objective {type(self.objective).__name__}: must return a scalar tensor, not {what}")
        if torch.is_grad_enabled() and projections[0].requires_grad and not loss.requires_grad:
            raise InputError(
                f"objective {type(self.objective).__name__}: its loss has no gradient; compute it from predictions, "
                "projections or representations; targets have no gradient"
            )
        if found is not None:
            loss = loss + self.rpn_weight * found
        return SoCoOutput(loss=loss, embeddings=target[0], rpn_loss=found)

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """ξ ← τ ξ + (1 - τ) θ for every parameter (section 3.3); batch-norm statistics stay each network's own."""
        torch._foreach_lerp_(list(self.target.parameters()), list(self.online.parameters()), 1.0 - momentum)


def build_soco(
    settings: ModelSettings,
    seed: int,
    objective: ObjectiveSettings | None = None,
    norm_layer: NormLayer = nn.BatchNorm2d,
) -> SoCo:
    """Randomly initialised networks; the same for the same seed. The caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(settings, norm_layer)
        return SoCo(encoder, settings, build_objective(objective or ObjectiveSettings()))
