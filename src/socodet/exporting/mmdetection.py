"""MMDetection 3.x: one file for its R-CNNs and one for its single-stage detectors."""

import shlex
from pathlib import Path

from socodet.exporting.files import FrameworkFiles, framework_path, state_dict_bytes
from socodet.exporting.mmdetection_configs import c4_configs, fpn_configs, single_stage_configs
from socodet.exporting.modules import PretrainedModules
from socodet.models.backbones import SINGLE_STAGE_FINEST
from socodet.weights.formats import mmdetection


def mmdetection_files(modules: PretrainedModules, output: Path) -> FrameworkFiles:
    """The modules for `load_from`, with configs of the detectors that they fit.

    MMDetection numbers a neck's blocks from its finest level: `neck.lateral_convs.0` is P2's in an R-CNN, but P3's in
    RetinaNet and FCOS. These two therefore get a second file, `NAME.single_stage.pth`, without P2's blocks and the box
    head.
    """
    depth = modules.depth("mmdetection")
    is_c4 = modules.encoder.head_is_fifth_block
    weights, left_out = modules.renamed(mmdetection(c4=is_c4))
    files, missing = {output: state_dict_bytes(weights, output)}, {output: left_out}
    folder = framework_path(output, "mmdetection")
    if is_c4:
        configs = c4_configs(depth, output.name)
        note = "The fifth residual block is `roi_head.shared_head.layer4`."
    else:
        second = output.with_name(f"{output.stem}.single_stage.pth")
        weights, missing[second] = modules.renamed(mmdetection(SINGLE_STAGE_FINEST))
        files[second] = state_dict_bytes(weights, second)
        configs = fpn_configs(modules.settings, depth, output.name)
        configs |= single_stage_configs(modules.settings, depth, second.name)
        note = (
            f"`{output.name}` is for R-CNNs; RetinaNet and FCOS number their pyramid's blocks from P3 on and take "
            f"`{second.name}`."
        )
    first = shlex.quote(f"{folder.name}/{next(iter(configs))}")
    return FrameworkFiles(
        weights=files,
        left_out=missing,
        configs={folder / name: text for name, text in configs.items()},
        how_to_load=f"mim train mmdet {first}  # or python tools/train.py {first}",
        language="sh",
        notes=(
            "Images: RGB, 0 to 255, as set in the configs (bgr_to_rgb, mean, std).",
            'Stride 2 is in the 3x3 convolutions (style="pytorch").',
            note,
        ),
    )
