"""The network traffic of a step on several GPUs: gradients and batch statistics, counted from the networks."""

from dataclasses import dataclass

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

from socodet.models.architectures import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.views.settings import SampleSettings

FLOAT = 4
"""Bytes of a float32, used for gradients and sums of a norm's backward pass in any precision of the activations."""
DOUBLE = 8
"""Bytes of a float64, used for sums of a norm's forward pass."""


@dataclass(frozen=True)
class Networks:
    """The sizes of what the online and the target network send, and how often they send it."""

    parameters: int
    """Parameters of the online network with projector and predictor."""
    encoder_parameters: int
    """Those in the encoder."""
    online_norms: tuple[int, ...]
    """Channels of each batch norm in the online network."""
    target_norms: tuple[int, ...]
    online_exchanges: int
    """Exchanges of batch statistics per pass, forward or backward."""
    target_exchanges: int
    views: int

    @classmethod
    def of(cls, soco: SoCo, views: int) -> "Networks":
        """Counts a SoCo network's parameters, norms and exchanges."""
        online = [p for p in soco.parameters() if p.requires_grad]
        return cls(
            sum(p.numel() for p in online),
            sum(p.numel() for p in soco.online.encoder.parameters()),
            (*norm_channels(soco.online), *norm_channels(soco.predictor)),
            tuple(norm_channels(soco.target)),
            exchanges(soco.online) + exchanges(soco.predictor),
            exchanges(soco.target),
            views,
        )

    def gradient_bytes(self, gpus: int) -> float:
        """Bytes each GPU sends per step to average the gradients, in float32."""
        return ring_all_reduce(FLOAT * self.parameters, gpus)

    def norm_bytes(self, gpus: int) -> float:
        """Bytes each GPU sends per step for batch norm over all GPUs, if every pyramid level is computed.

        A forward pass sends two sums per channel and the count; a backward pass, which only the online network has,
        two sums per channel.
        """
        forward = sum(DOUBLE * (2 * channels + 1) for channels in (*self.online_norms, *self.target_norms))
        backward = sum(FLOAT * 2 * channels for channels in self.online_norms)
        return self.views * ring_all_reduce(forward + backward, gpus)

    @property
    def norm_exchanges(self) -> int:
        """How often a step waits for batch statistics; those of all views are exchanged together."""
        return 2 * self.online_exchanges + self.target_exchanges


def exchanges(network: nn.Module) -> int:
    """Exchanges of batch statistics per pass: one per norm, but only two for a whole pyramid (laterals and outputs)."""
    pyramids = [m for m in network.modules() if isinstance(m, FeaturePyramidNetwork)]
    return len(norm_channels(network)) - sum(len(norm_channels(fpn)) - 2 for fpn in pyramids)


def norm_channels(network: nn.Module) -> list[int]:
    """Channels of each batch norm in a network."""
    return [m.num_features for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def ring_all_reduce(size: float, gpus: int) -> float:
    """Bytes each GPU sends to sum `size` bytes over all: each part goes round once for the sum, once for the result."""
    return 2 * (gpus - 1) / gpus * size


def soco_r50_fpn() -> Networks:
    """The default recipe's networks, on the meta device."""
    settings = ModelSettings()
    with torch.device("meta"):
        soco = SoCo(build_encoder(settings), settings)
    return Networks.of(soco, len(SampleSettings().views))
