"""A fine-tuned RT-DETR for Hugging Face transformers: a folder that its `from_pretrained` and `pipeline` read."""

from pathlib import Path

import torch

from socodet.detection.detectors.rt_detr import RTDETR
from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, python_string
from socodet.exporting.transformers import saved_files
from socodet.finetuning.detector import TrainedDetector
from socodet.models.rt_detr import import_transformers


def transformers_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """Model, configuration with the class names, and image processor. InputError for other detectors."""
    network = detector.network
    if not isinstance(network, RTDETR):
        raise InputError(
            f"{detector.run}: transformers has no {detector.recipe.settings.detector}; of the detectors here, only "
            "rt_detr can be exported to it; use --format onnx, or socodet.load_detector"
        )
    transformers = import_transformers("--format transformers")
    config = network.detr.config
    config.id2label = dict(enumerate(detector.class_names))
    config.label2id = {name: index for index, name in config.id2label.items()}
    model = transformers.RTDetrV2ForObjectDetection(config)
    model.load_state_dict(network.detr.state_dict(), strict=False)  # norms that are frozen here have no counter
    mean, std = network.get_buffer("pixel_mean").tolist(), network.get_buffer("pixel_std").tolist()
    processor = transformers.RTDetrImageProcessor(
        size={"height": network.side, "width": network.side},
        do_normalize=(mean, std) != ([0.0] * 3, [1.0] * 3),
        image_mean=mean,
        image_std=std,
    )
    weights, configs = saved_files(output, model.to(torch.float32), processor)
    return FrameworkFiles(
        weights=weights,
        left_out=dict.fromkeys(weights, ()),
        configs=configs,
        how_to_load=(
            "from transformers import pipeline\n\n"
            f'detect = pipeline("object-detection", model={python_string(output.name)}, threshold=0.5)\n'
            'found = detect("image.jpg")  # score, label and box of each object'
        ),
        notes=(
            "The image processor scales images to the detector's square and normalises them. It rounds scaled pixels, "
            "so boxes and scores can differ slightly from socodet's.",
        ),
        first_label=0,
    )
