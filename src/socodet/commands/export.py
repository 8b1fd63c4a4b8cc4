"""`socodet export`: from a run to a file for a detection framework."""

import re
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
    """Write a run's pretrained modules as a file for a detection framework.

    Args:
        run: Folder that `socodet pretrain` wrote.
        output: File to write: .pth, .pt or .safetensors; .pkl for detectron2, .pth for mmdetection and timm.
        format: Whose names the weights get.
        overwrite: Replace a file that exists.
    """
    from socodet.export import export_run
    from socodet.export.card import card_path

    path = export_run(run, output, format=format, overwrite=overwrite)
    card = card_path(path, format)
    print(f"{path}: written; what it is and how to load it: {card}")
    unfinished = re.search(r"UNFINISHED: (\d+ of \d+ steps)", card.read_text(encoding="utf-8"))
    if unfinished:
        print(f"note: the run is not finished, these weights are those after {unfinished[1]}", file=sys.stderr)
