"""Detectron2: the `.pkl` layout that its checkpointer reads, and configs."""

import io
import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from socodet.errors import InputError
from socodet.exporting.detectron2_configs import c4_configs, fpn_configs
from socodet.exporting.files import FrameworkFiles, framework_path, python_string
from socodet.exporting.modules import PretrainedModules
from socodet.weights.formats import detectron2

PICKLE_PROTOCOL = 4


def detectron2_files(modules: PretrainedModules, output: Path) -> FrameworkFiles:
    """The modules for `DetectionCheckpointer`, with configs of the detectors that they fit.

    InputError for modules that fit none of Detectron2's stock models.
    """
    depth = modules.depth("detectron2")
    is_c4, has_pyramid = modules.encoder.head_is_fifth_block, modules.encoder.has_pyramid
    if is_c4 and depth < 50:
        raise InputError(
            f"{modules.source}: C4 of a ResNet-{depth}; Detectron2's C4 detectors have bottleneck blocks, "
            "which begin with resnet50"
        )
    weights, left_out = modules.renamed(detectron2(pyramid=has_pyramid, c4=is_c4))
    folder = framework_path(output, "detectron2")
    configs: dict[str, str] = {}
    if not is_c4:
        configs |= fpn_configs(modules.settings, depth, output)
    if is_c4 or (not has_pyramid and depth >= 50):
        configs |= c4_configs(depth, output)
    first = folder / next(iter(configs))
    return FrameworkFiles(
        weights={output: pickled(weights)},
        left_out={output: left_out},
        configs={folder / name: text for name, text in configs.items()},
        how_to_load=(
            "from detectron2.checkpoint import DetectionCheckpointer\n"
            "from detectron2.config import get_cfg\n"
            "from detectron2.modeling import build_model\n\n"
            "cfg = get_cfg()\n"
            'cfg.MODEL.DEVICE = "cpu"  # or "cuda"\n'
            f"cfg.merge_from_file({python_string(f'{first.parent.name}/{first.name}')})\n"
            f"cfg.MODEL.WEIGHTS = {python_string(output.name)}\n"
            "model = build_model(cfg)\n"
            "DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)"
        ),
        notes=(
            "Images: RGB, 0 to 255, as set in the configs (INPUT.FORMAT, PIXEL_MEAN, PIXEL_STD).",
            "Stride 2 is in the 3x3 convolutions (STRIDE_IN_1X1 False).",
            "MODEL.WEIGHTS in the configs is where the file was written; if you move it, give its path on the command "
            f"line: `train_net.py --config-file … MODEL.WEIGHTS {shlex.quote(output.name)}`.",
        ),
    )


def pickled(weights: Mapping[str, Tensor]) -> bytes:
    """The file's bytes: arrays under "model", and the flag that makes Detectron2 match names by their endings."""
    buffer = io.BytesIO()
    content = {
        "model": {name: value.numpy() for name, value in weights.items()},
        "__author__": "socodet",
        "matching_heuristics": True,
    }
    _ArrayPickler(buffer, PICKLE_PROTOCOL).dump(content)
    return buffer.getvalue()


class _ArrayPickler(pickle.Pickler):
    """Pickles arrays through `numpy.ndarray` alone.

    NumPy's own pickles name private modules that moved in NumPy 2.0, so they do not load where Detectron2 is installed
    with an older NumPy.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            return np.ndarray, (obj.shape, obj.dtype.str, bytearray(np.ascontiguousarray(obj).tobytes()))
        return NotImplemented
