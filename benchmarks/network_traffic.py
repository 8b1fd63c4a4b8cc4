"""What a step over several GPUs sends: gradients and batch statistics, counted from the networks themselves."""

from dataclasses import dataclass

import torch
from torch import nn

from socodet.models.encoders import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.views import SampleSettings

FLOAT = 4
"""Bytes of a float32: gradients, and batch statistics whatever the precision of the activations."""


@dataclass(frozen=True)
class Networks:
    """What of the online and the target network goes over the wire, and how often."""

    parameters: int
    """Of the online network with projector and predictor."""
    encoder_parameters: int
    """Of those, the encoder's."""
    online_norms: tuple[int, ...]
    """Channels of each batch norm."""
    target_norms: tuple[int, ...]
    views: int

    @classmethod
    def of(cls, soco: SoCo, views: int) -> "Networks":
        """Counts them."""
        online = [p for p in soco.parameters() if p.requires_grad]
        return cls(
            sum(p.numel() for p in online),
            sum(p.numel() for p in soco.online.encoder.parameters()),
            (*norm_channels(soco.online), *norm_channels(soco.predictor)),
            tuple(norm_channels(soco.target)),
            views,
        )

    def gradient_bytes(self, gpus: int) -> float:
        """Bytes each GPU sends in a step for the gradients' mean, in float32."""
        return ring_all_reduce(FLOAT * self.parameters, gpus)

    def norm_bytes(self, gpus: int) -> float:
        """Bytes each GPU sends in a step for batch norm over all GPUs, every pyramid level computed.

        torch's SyncBatchNorm gathers mean, inverse deviation and count from every GPU to every GPU in a forward pass
        and sums two numbers a channel in a backward pass; the target network has no backward pass.
        """
        return self.views * (ring_all_gather(self._forward, gpus) + ring_all_reduce(self._backward, gpus))

    def norm_bytes_if_summed(self, gpus: int) -> float:
        """The same if a forward pass summed its statistics over the GPUs and gathered them nowhere."""
        return self.views * ring_all_reduce(self._forward + self._backward, gpus)

    @property
    def _forward(self) -> int:
        return sum(FLOAT * (2 * channels + 1) for channels in (*self.online_norms, *self.target_norms))

    @property
    def _backward(self) -> int:
        return sum(FLOAT * 2 * channels for channels in self.online_norms)

    @property
    def norm_exchanges(self) -> int:
        """How often a step waits for batch statistics: once a norm, view and pass."""
        return self.views * (2 * len(self.online_norms) + len(self.target_norms))


def norm_channels(network: nn.Module) -> list[int]:
    """Channels of each batch norm inside."""
    return [m.num_features for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def ring_all_reduce(size: float, gpus: int) -> float:
    """Bytes each GPU sends to sum `size` bytes over all: each part goes round once to be summed, once to be known."""
    return 2 * (gpus - 1) / gpus * size


def ring_all_gather(size: float, gpus: int) -> float:
    """Bytes each GPU sends until all have the `size` bytes of each."""
    return (gpus - 1) * size


def soco_r50_fpn() -> Networks:
    """The default recipe's networks, without storage for their weights."""
    settings = ModelSettings()
    with torch.device("meta"):
        soco = SoCo(build_encoder(settings), settings)
    return Networks.of(soco, len(SampleSettings().views))
