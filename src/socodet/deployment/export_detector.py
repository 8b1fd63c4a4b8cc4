"""`socodet export` of a fine-tuned detector: all its weights, ready to detect, and a card."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from socodet.deployment.card import detector_card
from socodet.deployment.detectron2 import detectron2_files
from socodet.deployment.mmdetection import mmdetection_files
from socodet.deployment.onnx import onnx_files
from socodet.deployment.torchvision import torchvision_files
from socodet.deployment.transformers import transformers_files
from socodet.errors import InputError
from socodet.exporting.card import card_path
from socodet.exporting.files import FrameworkFiles, check_suffix
from socodet.finetuning.detector import TrainedDetector, load_detector
from socodet.runtime.files import settled, write_atomically
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

    onnx         .onnx: from the pixels of an image to boxes, scores, labels and masks, post-processing inside
    torchvision  .pth, .pt or .safetensors, and a module that builds the detector from torchvision's parts alone
    detectron2   .pkl, and a config of the detector
    mmdetection  .pth, and a config of the detector
    transformers a folder for `from_pretrained`, with an image processor; of rt_detr

    Beside it comes a card, `NAME-FORMAT.md`, in transformers' folder `README.md`; further files are in `NAME-FORMAT/`.
    checkpoint: as `load_detector` takes it. InputError if the folder holds no fine-tuned detector, if a file to be
    written exists and `overwrite` is false, if the format has another suffix, and if the framework has no such
    detector.
    """
    path = settled(output)
    if format not in _FRAMEWORKS:
        raise InputError(f"--format {format}: takes no fine-tuned detector; choose one of {', '.join(_FRAMEWORKS)}")
    if path.is_dir() and format != "transformers":
        raise InputError(f"{path}: is a folder; give a file for --output")
    if path.is_file() and format == "transformers":
        raise InputError(f"{path}: is a file; give a folder for --output")
    check_suffix(path, format, _FRAMEWORKS)
    card_file = card_path(path, format)
    _refuse_to_replace(() if path.is_dir() else (path,), overwrite)
    detector = load_detector(run, checkpoint=checkpoint, device="cpu", precision="float32")
    files = _FRAMEWORKS[format](detector, path)
    _refuse_to_replace((*files.weights, *files.configs, card_file), overwrite)
    text = detector_card(detector, files, format)
    for config, content in files.configs.items():
        write_atomically(config, content.encode())
    write_atomically(card_file, text.encode())
    for weights, data in files.weights.items():
        write_atomically(weights, data)
    return path


def _refuse_to_replace(paths: tuple[Path, ...], overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists; give another --output or pass --overwrite")
