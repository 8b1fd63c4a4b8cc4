"""Exports a run or weights to another framework: pretrained modules, or a whole fine-tuned detector."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from socodet.deployment.card import detector_card
from socodet.deployment.onnx import onnx_files
from socodet.deployment.rcnn import detectron2_files, mmdetection_files
from socodet.deployment.torchvision import torchvision_files
from socodet.deployment.transformers import transformers_files
from socodet.errors import InputError
from socodet.exporting import BN_IMAGES, Exported, export_run
from socodet.exporting.files import FrameworkFiles, card_path, check_output
from socodet.exporting.transformers import TransformersModel
from socodet.finetuning.detector import TrainedDetector, load_detector
from socodet.finetuning.run import is_finetuned
from socodet.training.run_folder import Checkpoint
from socodet.weights.hub import reads_hub

AnyFormat = Literal["torchvision", "onnx", "detectron2", "mmdetection", "timm", "transformers"]
DetectorFormat = Literal["torchvision", "onnx", "detectron2", "mmdetection", "transformers"]
_FRAMEWORKS: dict[str, Callable[[TrainedDetector, Path], FrameworkFiles]] = {
    "torchvision": torchvision_files,
    "onnx": onnx_files,
    "detectron2": detectron2_files,
    "mmdetection": mmdetection_files,
    "transformers": transformers_files,
}


@reads_hub("source")
def export(
    source: str | Path,
    output: str | Path,
    *,
    format: AnyFormat = "torchvision",
    model: TransformersModel | None = None,
    images: str | Path | None = None,
    bn_images: int = BN_IMAGES,
    checkpoint: Checkpoint = "best",
    overwrite: bool = False,
    show_progress: bool = True,
) -> Exported:
    """Writes what a run learned as a file for another framework, with a card that says what it is and how to load it.

    For a fine-tuning run's folder, this is the detector (`export_detector`). For a pretraining run's folder, or a file
    of weights such as a checkpoint of the method's public code, it is the pretrained modules:

    torchvision  .pth, .pt or .safetensors: backbone, FPN and box head of its R-CNN detectors
    detectron2   .pkl, and a folder of YAML configs
    mmdetection  .pth, a second one for single-stage detectors, and a folder of Python configs
    timm         .pth, .pt or .safetensors: the backbone
    transformers a folder for `from_pretrained`: `model` with the pretrained backbone and everything else fresh

    A model card, `NAME-FORMAT.md`, is written beside the file; configs are in `NAME-FORMAT/`. transformers' models
    freeze batch norm, so its statistics are re-estimated on `bn_images` of the run's images, or of `images`; 0 keeps
    them.
    checkpoint: for a detector, as in `load_detector`. InputError if `source` is none of these or has no checkpoint yet,
    if an output file exists and `overwrite` is false, if the format has another suffix, or if the framework has no such
    network.
    """
    if is_finetuned(source):
        if model is not None or images is not None or bn_images != BN_IMAGES:
            raise InputError(
                "--model, --images and --bn-images: only for pretrained modules, not for a fine-tuned detector; leave "
                "them out"
            )
        written = export_detector(
            source, output, format=cast("DetectorFormat", format), checkpoint=checkpoint, overwrite=overwrite
        )
        return Exported(written, card_path(written, format), None)
    if format == "onnx":
        raise InputError(
            f"{source}: --format onnx takes a fine-tuned detector; fine-tune the run first (socodet finetune)"
        )
    return export_run(
        source,
        output,
        format=format,
        model=model,
        images=images,
        bn_images=bn_images,
        overwrite=overwrite,
        show_progress=show_progress,
    )


@reads_hub("run")
def export_detector(
    run: str | Path,
    output: str | Path,
    *,
    format: DetectorFormat = "onnx",
    checkpoint: Checkpoint = "best",
    overwrite: bool = False,
) -> Path:
    """Writes a fine-tuning run's detector to the file `output` and returns its path.

    onnx         .onnx: from the pixels of an image to boxes, scores, labels and masks, with post-processing inside
    torchvision  .pth, .pt or .safetensors, and a module that builds the detector from torchvision's parts alone
    detectron2   .pkl, and a config of the detector
    mmdetection  .pth, and a config of the detector
    transformers a folder for `from_pretrained`, with an image processor (rt_detr only)

    A card is written beside the file, `NAME-FORMAT.md`, or for transformers in the folder, `README.md`; further files
    are in `NAME-FORMAT/`. checkpoint: as in `load_detector`. InputError if the folder holds no fine-tuned detector, if
    an output file exists and `overwrite` is false, if the format has another suffix, or if the framework has no such
    detector.
    """
    if format not in _FRAMEWORKS:
        raise InputError(f"--format {format}: not for fine-tuned detectors; choose one of {', '.join(_FRAMEWORKS)}")
    path, card = check_output(output, format, _FRAMEWORKS, overwrite=overwrite)
    detector = load_detector(run, checkpoint=checkpoint, device="cpu", precision="float32")
    files = _FRAMEWORKS[format](detector, path)
    files.write(card, detector_card(detector, files, format), overwrite=overwrite)
    return path
