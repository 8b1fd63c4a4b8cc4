"""`socodet export`: from a run to a file for a detection framework."""

import sys
from pathlib import Path
from typing import Literal

import tyro

from socodet.runtime.settings import NonNegativeInt


def export(
    run: tyro.conf.Positional[Path],
    output: Path,
    format: Literal["torchvision", "detectron2", "mmdetection", "timm", "transformers"] = "torchvision",
    model: Literal["detr", "conditional_detr", "deformable_detr", "rt_detr_v2"] | None = None,
    images: Path | None = None,
    bn_images: NonNegativeInt = 128,
    overwrite: bool = False,
) -> None:
    """Write pretrained modules as a file for a detection framework.

    Args:
        run: Folder that `socodet pretrain` wrote, or a file of weights, such as a checkpoint of the method's public
            code.
        output: File to write: .pth, .pt or .safetensors; .pkl for detectron2, .pth for mmdetection and timm.
            A folder for transformers.
        format: The framework whose tensor names the weights get.
        model: Which of transformers' detectors to write, its backbone pretrained and the rest fresh.
        images: Images for the batch norm statistics of transformers' models, which freeze them; by default the run's.
        bn_images: Number of images to re-estimate these statistics on; 0 keeps those of pretraining.
        overwrite: Replace an existing file.
    """
    from socodet.export import export_with_card

    exported = export_with_card(
        run,
        output,
        format=format,
        model=model,
        images=images,
        bn_images=bn_images,
        overwrite=overwrite,
        show_progress=True,
    )
    print(f"{exported.weights}: written; the card says what it is and how to load it: {exported.card}")
    if exported.unfinished:
        print(f"note: the run is not finished; these are the weights after {exported.unfinished}", file=sys.stderr)
