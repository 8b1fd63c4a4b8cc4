"""SoCo's step in a plain design, as a baseline for ours: what one would write first, done fairly.

Every box is pooled from all four pyramid levels and passes through head, projector and predictor four times; V1's boxes
do so once for V2 and once for V3; the loss selects, among all level x box pairs, those marked in a correspondence
matrix; LARS and the target's moving average are Python loops over parameters. The networks are the same modules.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit
from torchvision.ops import roi_align

from socodet.models.backbones import STRIDES
from socodet.models.encoders import FPNEncoder
from socodet.models.normalization import normalize
from socodet.models.soco import Embedder, SoCo
from socodet.views.batch import Batch, ViewBatch

LEVELS = len(STRIDES)


def pyramid(encoder: FPNEncoder, pixels: Tensor) -> list[Tensor]:
    """All four levels, from torchvision's own forward pass."""
    features = encoder.backbone["body"](pixels)
    return list(encoder.backbone["fpn"](features).values())


def embed_on_all_levels(
    embedder: Embedder, predictor: torch.nn.Module | None, levels: list[Tensor], boxes: Tensor
) -> Tensor:
    """(B, K, 4) boxes → (B, levels * K, D) unit embeddings, ordered by level."""
    images, per_image = boxes.shape[:2]
    index = torch.arange(images, device=boxes.device, dtype=boxes.dtype).repeat_interleave(per_image)
    rois = torch.cat([index[:, None], boxes.reshape(-1, 4)], dim=1)
    encoder = embedder.encoder
    assert isinstance(encoder, FPNEncoder)
    assert encoder.box_head is not None
    embeddings = []
    for feature, stride in zip(levels, STRIDES, strict=True):
        pooled = roi_align(feature, rois, encoder.pooled_size, 1 / stride, sampling_ratio=0, aligned=True)
        z = embedder.projector(encoder.box_head(pooled))
        if predictor is not None:
            z = predictor(z)
        embeddings.append(unit(z, dim=1).reshape(images, per_image, -1))
    return torch.cat(embeddings, dim=1)


def correspondence(first: ViewBatch, second: ViewBatch) -> Tensor:
    """(B, levels * K, levels * K): 1 where row and column are the same box, each on its assigned level."""
    images, per_image = first.levels.shape
    matrix = torch.zeros(images, LEVELS * per_image, LEVELS * per_image)
    for image in range(images):
        for k in range(per_image):
            row = int(first.levels[image, k]) * per_image + k
            column = int(second.levels[image, k]) * per_image + k
            matrix[image, row, column] = 1
    return matrix


def masked_loss(online: Tensor, target: Tensor, matrix: Tensor) -> Tensor:
    """-2 times the mean cosine over the marked pairs of each image."""
    similarity = torch.bmm(online, target.transpose(1, 2))
    return -2 * ((similarity * matrix).sum((1, 2)) / matrix.sum((1, 2))).mean()


def plain_loss(soco: SoCo, batch: Batch, matrices: list[Tensor]) -> Tensor:
    """The symmetric loss of three views; `matrices` holds V1's correspondence with V2 and with V3."""
    pixels = [normalize(view.pixels) for view in batch.views]
    boxes = [batch.views[v].boxes.to(pixels[0].device) for v in (0, 0, 1, 2)]
    online_encoder, target_encoder = soco.online.encoder, soco.target.encoder
    assert isinstance(online_encoder, FPNEncoder)
    assert isinstance(target_encoder, FPNEncoder)
    maps = [pyramid(online_encoder, p) for p in pixels]
    online = [
        embed_on_all_levels(soco.online, soco.predictor, maps[v], b) for v, b in zip((0, 0, 1, 2), boxes, strict=True)
    ]
    with torch.no_grad():
        maps = [pyramid(target_encoder, p) for p in pixels]
        target = [embed_on_all_levels(soco.target, None, maps[v], b) for v, b in zip((0, 0, 1, 2), boxes, strict=True)]
    m12, m13 = matrices
    return (
        masked_loss(online[0], target[2], m12)
        + masked_loss(online[1], target[3], m13)
        + masked_loss(online[2], target[0], m12.transpose(1, 2))
        + masked_loss(online[3], target[1], m13.transpose(1, 2))
    )


class LoopLARS:
    """LARS, one parameter at a time."""

    def __init__(self, soco: SoCo, weight_decay: float) -> None:
        self.parameters = [p for p in soco.parameters() if p.requires_grad]
        self.momenta = [torch.zeros_like(p) for p in self.parameters]
        self.weight_decay = weight_decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step of every parameter."""
        for p, m in zip(self.parameters, self.momenta, strict=True):
            if p.grad is None:
                continue
            g = p.grad
            if p.ndim > 1:
                g = g.add(p, alpha=self.weight_decay)
                weight, grad = p.norm(), g.norm()
                if weight > 0 and grad > 0:
                    g = g.mul(0.001 * weight / (grad + 1e-8))
            m.mul_(0.9).add_(g)
            p.add_(m, alpha=-lr)

    def zero_grad(self) -> None:
        """Drops the gradients."""
        for p in self.parameters:
            p.grad = None


@torch.no_grad()
def loop_average(soco: SoCo, momentum: float) -> None:
    """The target's moving average, one parameter at a time."""
    for online, target in zip(soco.online.parameters(), soco.target.parameters(), strict=True):
        target.data = target.data * momentum + online.data * (1 - momentum)
