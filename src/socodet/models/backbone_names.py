"""Which backbones there are, by name: torchvision's ResNets, and `timm/NAME` for timm's networks."""

import difflib
from collections.abc import Iterable

from socodet.errors import SettingError
from socodet.runtime.extensions import is_extension

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
TIMM = "timm/"


def check_backbone(name: str) -> None:
    """SettingError if there is no backbone of that name, with similar names; or if timm is missing."""
    if not name.startswith(TIMM):
        if name not in RESNETS and not is_extension(name):
            known = f"{', '.join(RESNETS)}, {TIMM}NAME, or module:name"
            raise SettingError(f"backbone must be one of {known}{_unknown_backbone(name, RESNETS)}")
        return
    try:
        from timm import list_models
    except ImportError:
        raise SettingError(
            f"backbone {name}: needs timm, which is not installed; pip install 'socodet[timm]'"
        ) from None
    networks = list_models()
    if name.removeprefix(TIMM) not in networks:
        raise SettingError(
            f"backbone must be {TIMM} and one of timm's {len(networks)} networks, without the tag of pretrained "
            f"weights{_unknown_backbone(name, [TIMM + network for network in networks])}"
        )


def _unknown_backbone(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    return f", not {name}" + (f"; did you mean {' or '.join(near)}?" if near else "")
