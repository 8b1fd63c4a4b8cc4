"""MMDetection's names (3.x), one file for its R-CNNs and one for its single-stage detectors."""

from pathlib import Path

from socodet.errors import InputError
from socodet.export.mmdetection_configs import c4_configs, fpn_configs, single_stage_configs
from socodet.export.state_dict import state_dict_bytes
from socodet.weights.modules import FINEST_LEVEL, FrameworkFiles, PretrainedModules, place

SINGLE_STAGE_FINEST_LEVEL = 3
"""RetinaNet's and FCOS's pyramids begin at P3 (`start_level=1` in their configs)."""

_SOURCES = {"conv": "conv", "norm": "bn"}
_NECK = {"lateral": "lateral_convs", "output": "fpn_convs"}


def mmdetection_files(modules: PretrainedModules, output: Path) -> FrameworkFiles:
    """The run for `load_from`, with the configs of the detectors it fits.

    MMDetection numbers a neck's blocks from its finest level on: `neck.lateral_convs.0` is P2's in an R-CNN and
    P3's in RetinaNet and FCOS. One file cannot be both, so that these get a second one beside the first,
    `NAME.single_stage.pth`, without P2's blocks and the box head.
    InputError for another suffix than .pth.
    """
    if output.suffix != ".pth":
        raise InputError(f"{output}: MMDetection reads .pth files; give a name that ends so")
    depth = modules.depth("mmdetection")
    weights, left_out = place(modules.tensors, lambda name: mmdetection_name(name, modules, FINEST_LEVEL))
    files = {output: state_dict_bytes(weights, output)}
    missing = {output: left_out}
    folder = output.with_name(f"{output.stem}-mmdetection")
    if modules.settings.architecture == "c4":
        configs = c4_configs(depth, output.name)
        note = "The fifth residual block is `roi_head.shared_head.layer4`."
    else:
        second = output.with_name(f"{output.stem}.single_stage.pth")
        weights, missing[second] = place(
            modules.tensors, lambda name: mmdetection_name(name, modules, SINGLE_STAGE_FINEST_LEVEL)
        )
        files[second] = state_dict_bytes(weights, second)
        configs = fpn_configs(modules.settings, depth, output.name)
        configs |= single_stage_configs(modules.settings, depth, second.name)
        note = (
            f"`{output.name}` is for R-CNNs; RetinaNet and FCOS number their pyramid's blocks from P3 on and take "
            f"`{second.name}`."
        )
    first = next(iter(configs))
    return FrameworkFiles(
        weights=files,
        left_out=missing,
        configs={folder / name: text for name, text in configs.items()},
        how_to_load=f"mim train mmdet {folder.name}/{first}  # or python tools/train.py {folder.name}/{first}",
        language="sh",
        notes=(
            "Images: RGB, 0 to 255, as the configs have it (bgr_to_rgb, mean, std).",
            'Stride 2 is in the 3x3 convolutions (style="pytorch").',
            note,
        ),
    )


def mmdetection_name(name: str, modules: PretrainedModules, finest: int) -> str | None:
    """Where a detector whose pyramid begins at level `finest` keeps the tensor of that plain name, if it does."""
    kind, rest = name.split(".", 1)
    if kind == "body":
        is_head = modules.settings.architecture == "c4" and rest.startswith("layer4.")
        return f"roi_head.shared_head.{rest}" if is_head else f"backbone.{rest}"
    number, _, tensor = rest.partition(".")
    if kind in _NECK:
        source, _, leaf = tensor.partition(".")
        block = int(number) - finest
        return f"neck.{_NECK[kind]}.{block}.{_SOURCES[source]}.{leaf}" if block >= 0 else None
    if finest != FINEST_LEVEL:
        return None  # a single-stage detector has no box head
    if number == "fc":
        return f"roi_head.bbox_head.shared_fcs.0.{tensor}"
    index, source, leaf = tensor.split(".")
    return f"roi_head.bbox_head.shared_convs.{int(index) - 1}.{_SOURCES[source]}.{leaf}"
