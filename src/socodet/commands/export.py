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
            the method's public code. Of a fine-tuned run the whole detector is written, of all others the pretrained
            modules.
        output: File to write: .pth, .pt or .safetensors for torchvision, .onnx for onnx, .pkl for detectron2, .pth for
            mmdetection and timm; for transformers a folder.
        format: The target framework. onnx takes fine-tuned detectors, timm pretrained modules, transformers both, of
            the fine-tuned ones rt_detr.
        model: Which of transformers' detectors to write, its backbone pretrained and the rest fresh.
        images: Images for the batch norm statistics of transformers' models, which freeze them; by default the run's.
        bn_images: Number of images to re-estimate these statistics on; 0 keeps those of pretraining.
        checkpoint: Of a fine-tuned detector: the best on its validation set, if it was scored during training, or the
            last.
        overwrite: Replace an existing file.
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
