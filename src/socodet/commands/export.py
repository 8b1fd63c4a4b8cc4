"""`socodet export`: from a run to a file for a detection framework."""

from pathlib import Path
from typing import Any, Literal

import tyro

from socodet.runtime.log import LOGGER
from socodet.runtime.settings import NonNegativeInt
from socodet.training.run_folder import Checkpoint


def export(
    run: tyro.conf.Positional[Path],
    output: Path,
    format: Literal["torchvision", "onnx", "detectron2", "mmdetection", "timm", "transformers"] = "torchvision",
    model: Literal["detr", "conditional_detr", "deformable_detr", "rt_detr_v2"] | None = None,
    images: Path | None = None,
    bn_images: NonNegativeInt = 128,
    checkpoint: Checkpoint = "best",
    overwrite: bool = False,
) -> Any:
    """Write pretrained modules, or a fine-tuned detector, as a file for another framework.

    Args:
        run: Folder that `socodet pretrain` or `socodet finetune` wrote, or a file of weights, such as a checkpoint of
            the method's public code. From a fine-tuned run, the whole detector is written; from all others, the
            pretrained modules.
        output: File to write: .pth, .pt or .safetensors for torchvision and timm, .onnx for onnx, .pkl for detectron2,
            .pth for mmdetection; for transformers a folder.
        format: The target framework. onnx is for fine-tuned detectors, timm for pretrained modules, transformers for
            pretrained modules and a fine-tuned rt_detr.
        model: The transformers detector to write, with a pretrained backbone and everything else freshly initialised.
        images: Images for re-estimating the batch norm statistics, which transformers' models freeze; by default the
            run's.
        bn_images: Number of images for these statistics; 0 keeps those of pretraining.
        checkpoint: For a fine-tuned detector: the best on its validation set, if it was scored during training, or
            the last.
        overwrite: Replace an existing file, and remove the card and other files of its export.
    """
    from socodet.deployment.export import export

    exported = export(
        run,
        output,
        format=format,
        model=model,
        images=images,
        bn_images=bn_images,
        checkpoint=checkpoint,
        overwrite=overwrite,
    )
    print(exported)
    if exported.unfinished:
        LOGGER.info(f"note: the run is not finished; these are the weights after {exported.unfinished}")
    return exported
