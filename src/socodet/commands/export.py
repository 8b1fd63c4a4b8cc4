"""`socodet export`: from a run to a file for a detection framework."""

import sys
from pathlib import Path
from typing import Literal

import tyro


def export(
    run: tyro.conf.Positional[Path],
    output: Path,
    format: Literal["torchvision", "detectron2", "mmdetection", "timm"] = "torchvision",
    overwrite: bool = False,
) -> None:
    """Write pretrained modules as a file for a detection framework.

    Args:
        run: Folder that `socodet pretrain` wrote, or a file of weights, such as a checkpoint of the method's public
            code.
        output: File to write: .pth, .pt or .safetensors; .pkl for detectron2, .pth for mmdetection and timm.
        format: Whose names the weights get.
        overwrite: Replace a file that exists.
    """
    from socodet.export import export_with_card

    exported = export_with_card(run, output, format=format, overwrite=overwrite)
    print(f"{exported.weights}: written; what it is and how to load it: {exported.card}")
    if exported.unfinished:
        print(f"note: the run is not finished, these weights are those after {exported.unfinished}", file=sys.stderr)
