"""RT-DETR version 2 of Hugging Face transformers: its configuration for a ResNet-d of any depth.

transformers is imported only when it is needed.
"""

import re
from typing import Any

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from socodet.errors import SettingError
from socodet.models.backbone_names import TIMM
from socodet.models.backbones import BLOCKS

STRIDES = (8, 16, 32)
"""Strides of the hybrid encoder's three maps."""
HEADS = 8
"""Attention heads."""
DECODER_CHANNELS = 256
"""Maximum number of the decoder's channels."""
STEM_CHANNELS = 64
"""Channels of a ResNet-d's stem. The first stage has as many, or with bottlenecks four times as many; each later one
doubles them."""
_DECODER_LAYERS = {18: 3, 34: 4}
"""Fewer than six for small networks, whose hybrid encoder also has half the hidden channels, as in the original."""


def import_transformers(purpose: str) -> Any:
    """Returns the package. SettingError when it is not installed; `purpose` says what needs it."""
    try:
        import transformers
    except ImportError:
        raise SettingError(
            f"{purpose}: needs transformers, which is not installed; pip install 'socodet[transformers]'"
        ) from None
    return transformers


def resnet_d_depth(backbone: str) -> int | None:
    """Layers of a ResNet-d by its name in timm, such as 50 for `timm/resnet50d`; None for other networks."""
    match = re.fullmatch(TIMM + r"resnet(18|34|50|101|152)d", backbone)
    return int(match[1]) if match else None


def depth_of(backbone: str) -> int:
    """The same, but `resnet50` also means the ResNet-d of that depth. SettingError for other networks."""
    depth = resnet_d_depth(backbone if backbone.startswith(TIMM) else f"{TIMM}{backbone}d")
    if depth is None:
        raise SettingError(f"backbone of rt_detr must be resnet18 to resnet152 or timm/resnetNd, not {backbone}")
    return depth


def rt_detr_config(depth: int, channels: int = 256, **fields: Any) -> Any:
    """An `RTDetrV2Config` with a ResNet-d of `depth` layers and an encoder of `channels` channels.

    The original has 256 channels, or 384 with 101 layers. `fields` are further fields of the configuration.
    """
    transformers = import_transformers("rt_detr")
    if channels % HEADS:
        raise SettingError(
            f"fpn_channels of rt_detr must be a multiple of {HEADS}, its attention heads, not {channels}"
        )
    small = depth < 50
    stages = [STEM_CHANNELS * (1 if small else 4) * 2**level for level in range(4)]
    decoder = min(channels, DECODER_CHANNELS)
    backbone = transformers.RTDetrResNetConfig(
        depths=list(BLOCKS[depth]),
        embedding_size=STEM_CHANNELS,
        hidden_sizes=stages,
        layer_type="basic" if small else "bottleneck",
        out_indices=[2, 3, 4],
    )
    sizes = {
        "encoder_in_channels": stages[1:],
        "encoder_hidden_dim": channels,
        "encoder_ffn_dim": 2048 if channels == 384 else 4 * channels,
        "hidden_expansion": 0.5 if small else 1.0,
        "d_model": decoder,
        "decoder_in_channels": [channels] * len(STRIDES),
        "decoder_ffn_dim": 4 * decoder,
        "decoder_layers": _DECODER_LAYERS.get(depth, 6),
    }
    return transformers.RTDetrV2Config(backbone_config=backbone, **{**sizes, **fields})


def hybrid_encoder(config: Any) -> nn.Module:
    """The encoder alone: a list of three projected maps, finest first → the same shapes as `last_hidden_state`."""
    import_transformers("rt_detr")
    from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import RTDetrV2HybridEncoder

    encoder: nn.Module = RTDetrV2HybridEncoder(config)
    reset_norms(encoder)
    return encoder


def neutralize_extra_shortcut(resnet: Any) -> None:
    """Makes RT-DETR's ResNet-18 and 34 compute what timm's do, which have no convolution in the first shortcut.

    It becomes an identity that can learn; its norm is frozen, because batch statistics would change it.
    """
    first = resnet.encoder.stages[0].layers[0]
    if len(first.layer) == 2:  # not a bottleneck
        shortcut = first.shortcut
        nn.init.dirac_(shortcut.convolution.weight)
        shortcut.normalization = FrozenBatchNorm2d(shortcut.normalization.num_features)


def reset_norms(network: nn.Module) -> None:
    """Resets the scales of batch norms to 1, as in the original; transformers initialises them near 0."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
