"""`socodet export` of a fine-tuned detector: all its weights, ready to detect, and a card."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from socodet.deployment.card import detector_card
from socodet.deployment.onnx import onnx_files
from socodet.deployment.rcnn import detectron2_files, mmdetection_files
from socodet.deployment.torchvision import torchvision_files
from socodet.deployment.transformers import transformers_files
from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, check_output
from socodet.finetuning.detector import TrainedDetector, load_detector
from socodet.training.run_folder import Checkpoint
from socodet.weights.hub import reads_hub

DetectorFormat = Literal["torchvision", "onnx", "detectron2", "mmdetection", "transformers"]
_FRAMEWORKS: dict[str, Callable[[TrainedDetector, Path], FrameworkFiles]] = {
    "torchvision": torchvision_files,
    "onnx": onnx_files,
    "detectron2": detectron2_files,
    "mmdetection": mmdetection_files,
    "transformers": transformers_files,
}


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
