"""ONNX: a detector as one graph, from the pixels of images to boxes, scores, labels and masks.

Written by torch's TorchScript exporter: the newer one follows no data-dependent selection of boxes (PyTorch 2.14).
"""

import io
import json
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from socodet.deployment.onnx_graphs import graph_of
from socodet.deployment.onnx_steps import traceable
from socodet.detection.detectors.by_name import detector_named
from socodet.detection.detectors.rt_detr import RTDETR
from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, quoted
from socodet.finetuning.detector import TrainedDetector

OPSET = 17
"""RoiAlign is half-pixel aligned from 16 on."""
TRACED_BATCH, TRACED_SIZE = 2, (96, 128)
"""Number, height and width of the images that the network is traced with; the graph takes any."""


def onnx_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """One file, weights inside. InputError without the package onnx."""
    has_masks = detector_named(detector.recipe.settings.detector).has_masks
    masks = ", masks" if has_masks else ""
    how_many = (
        "any number of images of one size"
        if _graph(detector).takes_batches
        else "one image: this detector pools boxes image by image, so batch is 1"
    )
    suppression = "" if isinstance(detector.network, RTDETR) else " Non-maximum suppression is inside."
    return FrameworkFiles(
        weights={output: onnx_bytes(detector)},
        left_out={output: ()},
        how_to_load=(
            "import json\n\nimport numpy as np\nimport onnxruntime\nfrom PIL import Image, ImageOps\n\n"
            f"session = onnxruntime.InferenceSession({quoted(output.name)})\n"
            'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])\n'
            'image = np.asarray(ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB"))\n'
            "images = image[None]  # (batch, height, width, 3)\n"
            f'boxes, scores, labels, of_image{masks} = session.run(None, {{"images": images}})\n'
            "names = [classes[label - 1] for label in labels]"
        ),
        notes=(
            f"Input `images`: uint8 (batch, height, width, 3), RGB, of any height and width; {how_many}. Scaling and "
            "normalisation are inside.",
            "Outputs, of the N objects in all images: `boxes` float32 (N, 4), xyxy in pixels of the image; `scores` "
            "float32 (N,); `labels` int64 (N,), 1 is the first class; `of_image` int64 (N,), the place of each one's "
            f"image in the batch{'; `masks` bool (N, height, width)' if has_masks else ''}.{suppression}",
            f"Opset {OPSET}; class names are in the file's metadata, `classes`.",
        ),
    )


def onnx_bytes(detector: TrainedDetector) -> bytes:
    """The graph: `images` uint8 (B, H, W, 3) RGB → `boxes` (N, 4), `scores`, `labels`, `of_image` (N,), and `masks`.

    Boxes are xyxy in pixels of the image, label 1 is the first class, as in torchvision; `of_image` is an index in the
    batch, `masks` (N, H, W). H and W are free, and B where the detector allows it. Class names are in the metadata
    `classes`, a JSON list. InputError without the package onnx.
    """
    onnx = _package()
    device = next(detector.parameters()).device
    name = detector.recipe.settings.detector
    graph = _graph(detector)
    has_masks = detector_named(name).has_masks
    names = ["boxes", "scores", "labels", "of_image", *(["masks"] if has_masks else [])]
    free: dict[str, dict[int, str]] = {name: {0: "objects"} for name in names}
    free["images"] = {1: "height", 2: "width", **({0: "batch"} if graph.takes_batches else {})}
    if has_masks:
        free["masks"] |= {1: "height", 2: "width"}
    shape = (TRACED_BATCH if graph.takes_batches else 1, *TRACED_SIZE, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    written = io.BytesIO()
    with traceable(detector.network), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, about sizes that are constants, and of the exporter's age
        torch.onnx.export(
            graph,
            (pixels.to(device),),
            cast(Any, written),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=names,
            dynamic_axes=free,
        )
    model = onnx.load_from_string(written.getvalue())
    for key, value in {"classes": json.dumps(detector.class_names), "detector": name}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _graph(detector: TrainedDetector) -> nn.Module:
    graph = graph_of(detector.network)
    if graph is None:
        raise InputError(
            f"{detector.run}: --format onnx knows no {detector.recipe.settings.detector}; use load_detector"
        )
    return graph


def _package() -> Any:
    try:
        import onnx
    except ImportError:
        raise InputError("--format onnx needs the package onnx; pip install 'socodet[onnx]'") from None
    return onnx
