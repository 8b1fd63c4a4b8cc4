"""`socodet export`: from a run to a file for a detection framework."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import tyro

from socodet.errors import InputError
from socodet.runtime.log import LOGGER
from socodet.runtime.settings import NonNegativeInt
from socodet.training.run_folder import Checkpoint

if TYPE_CHECKING:
    from socodet.deployment.export_detector import DetectorFormat


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
        run: Folder that `socodet pretrain` wrote, or a file of weights, such as a checkpoint of the method's public
            code: its pretrained modules are written. Folder that `socodet finetune` wrote: the whole detector.
        output: File to write: .pth, .pt or .safetensors; .pkl for detectron2, .pth for mmdetection and timm.
            A folder for transformers; .onnx for onnx.
        format: The target framework. onnx takes fine-tuned detectors, timm pretrained modules, transformers both, of
            the fine-tuned ones rt_detr.
        model: Which of transformers' detectors to write, its backbone pretrained and the rest fresh.
        images: Images for the batch norm statistics of transformers' models, which freeze them; by default the run's.
        bn_images: Number of images to re-estimate these statistics on; 0 keeps those of pretraining.
        checkpoint: Of a fine-tuned detector: the best on its validation set, if it was scored during training, or the
            last.
        overwrite: Replace an existing file.
    """
    from socodet.deployment.export_detector import export_detector
    from socodet.export import export_with_card
    from socodet.export.card import card_path
    from socodet.finetuning.run import is_finetuned

    if is_finetuned(run):
        if model is not None or images is not None:
            raise InputError("--model and --images: are for pretrained modules, not for a fine-tuned detector")
        detector_format = cast("DetectorFormat", format)
        written = export_detector(run, output, format=detector_format, checkpoint=checkpoint, overwrite=overwrite)
        print(f"{written}: written; what it is and how to load it: {card_path(written, format)}")
        return {"weights": written, "card": card_path(written, format)}
    if format == "onnx":
        raise InputError(
            f"{run}: --format onnx takes a fine-tuned detector; fine-tune the run first (socodet finetune)"
        )

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
        LOGGER.info(f"note: the run is not finished; these are the weights after {exported.unfinished}")
    return exported
