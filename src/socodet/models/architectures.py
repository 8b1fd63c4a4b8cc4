"""Object encoders by the name of their architecture."""

from dataclasses import replace

from torch import nn

from socodet.errors import InputError, SettingError
from socodet.models.backbones import NormLayer
from socodet.models.encoders import C4Encoder, C5Encoder, FPNEncoder, HeadlessFPNEncoder, ImageEncoder, ObjectEncoder
from socodet.models.settings import ModelSettings
from socodet.runtime.extensions import find, is_extension, resolve_extension

_ENCODERS: dict[str, type[ObjectEncoder]] = {
    "fpn": FPNEncoder,
    "fpn_no_head": HeadlessFPNEncoder,
    "c4": C4Encoder,
    "c5": C5Encoder,
    "image": ImageEncoder,
}


def encoder_class(settings: ModelSettings) -> type[ObjectEncoder]:
    """The encoder of that architecture."""
    if is_extension(settings.architecture):
        own = find(settings.architecture)
        if not (isinstance(own, type) and issubclass(own, ObjectEncoder)):
            raise InputError(f"{settings.architecture}: is no subclass of socodet.models.encoders.ObjectEncoder")
        return own
    if settings.architecture == "rt_detr":
        from socodet.models.rt_detr_encoder import RTDETREncoder

        return RTDETREncoder
    return _ENCODERS[settings.architecture]


def build_encoder(settings: ModelSettings, norm_layer: NormLayer = nn.BatchNorm2d) -> ObjectEncoder:
    """The encoder of that architecture, randomly initialised.

    SettingError if the user's own cannot be made, or has no backbone that detectors would find.
    """
    chosen, name = encoder_class(settings), settings.architecture
    if not is_extension(name):
        return chosen(settings, norm_layer)  # type: ignore[call-arg]
    own = resolve_extension(name, chosen, settings, norm_layer)
    if not (isinstance(getattr(own, "backbone", None), nn.ModuleDict) and "body" in own.backbone):
        raise SettingError(
            f"{name}: has no backbone for detectors to take; keep it in self.backbone = nn.ModuleDict({{'body': …}})"
        )
    return own


def backbone_settings(settings: ModelSettings) -> ModelSettings:
    """Settings of an encoder that pools boxes from the same backbone's last stage and averages them.

    InputError for C4, whose last stage is the head.
    """
    if encoder_class(settings).head_is_fifth_block:
        raise InputError("--of backbone: a C4 network's last stage is its box head; probe it with --of head")
    return replace(settings, architecture="c5", rpn_weight=0.0)
